"""From beats of data to elements of the SRAMs, as they are or decoded from MX."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from unmask.isa.table import INT32_BYTES
from unmask.numerics import mx
from unmask.rtl.bits import wire
from unmask.rtl.dma import CHUNK, Shape
from unmask.rtl.faults import BITS as FAULT_BITS
from unmask.rtl.faults import Fault
from unmask.rtl.matrix.filling import Filling
from unmask.rtl.matrix.sram import MatrixWrite
from unmask.rtl.mx import SMALL, decode, scaled
from unmask.rtl.position import Position
from unmask.rtl.sram import SramWrite, rotate

_MOST_CARRIED = 3
"""Bytes of an element that a beat may end with without its last."""


class Unpacking(wiring.Component):
    """From beats to words of the SRAMs, four cycles later.

    Blocks for the matrix SRAM stay packed; what is said of them and of `matrix` is only there if the shape has one.

    The elements of a beat are brought to a window that starts at a granule of the SRAM; the bytes of an element that the beat before ended
    with come first. Scales are kept until the elements of their chunk have come.

    Ports:
        valid, data, low, high, first, last, error, kind, sram, sram_end, tag: a beat, as `Shape.burst` has them of bursts; `error` is what
            the memory said of it.
        vector, integer, matrix, done: what is written now, and whether it ends an instruction.
        busy: a beat is under way.
        fault, code, fault_tag: one cycle before the faulty beat would be written.
    """

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        super().__init__(
            {
                "valid": In(1),
                "data": In(8 * shape.beat_bytes),
                "low": In(shape.beat_bits),
                "high": In(shape.beat_bits + 1),
                "first": In(1),
                "last": In(1),
                "error": In(1),
                "kind": In(range(len(shape.kinds))),
                "sram": In(shape.address_bits),
                "sram_end": In(shape.address_bits),
                "tag": In(shape.tag_bits),
                "vector": Out(SramWrite(ceil_log2(shape.vector_elements // shape.granule), 16, shape.lanes)),
                "integer": Out(SramWrite(ceil_log2(shape.integer_words), 32, shape.words)),
                **({"matrix": Out(MatrixWrite.of(shape))} if shape.matrix_blocks else {}),
                "done": Out(1),
                "busy": Out(1),
                "fault": Out(1),
                "code": Out(FAULT_BITS),
                "fault_tag": Out(shape.tag_bits),
            }
        )
        granule = shape.granule
        # Of each kind of data: bytes that the window moves by, lanes that a window fills.
        self._steps, self._filled = [], []
        for kind, bits in enumerate(shape.kinds[:-1]):
            if kind in shape.matrix_kinds:
                self._steps.append(mx.BLOCK * bits // 8)
                self._filled.append(mx.BLOCK * shape.matrix_lanes)
            else:
                self._steps.append(INT32_BYTES if bits == 32 else granule * bits // 8)
                self._filled.append(shape.words if bits == 32 else min(shape.lanes, 8 * shape.beat_bytes // bits + granule))
        self._steps.append(1)

    def elaborate(self, platform: Any) -> Module:
        """Position; rotation; elements; rounding."""
        m = Module()
        position = self._position(m)
        turned = self._rotation(m, position)
        self._elements(m, turned)
        return m

    def _position(self, m: Module) -> data.View:
        """Where a beat's bytes lie in the window, and where the window lies in the SRAM."""
        shape = self._shape
        m.submodules.steps = steps = Position(shape, self._steps)
        m.d.comb += [
            steps.valid.eq(self.valid),
            steps.first.eq(self.first),
            steps.low.eq(self.low),
            steps.high.eq(self.high),
            steps.kind.eq(self.kind),
        ]
        layout = data.StructLayout(
            {
                "valid": 1,
                "last": 1,
                "error": 1,
                "kind": range(len(shape.kinds)),
                "start": len(steps.start),
                "end": len(steps.end),
                "unit": shape.address_bits,
                "sram": shape.address_bits,
                "room": signed(shape.address_bits + 1),
                "turn": shape.beat_bits,
                "tag": shape.tag_bits,
            }
        )
        position = Signal(layout, name="position")
        offset = Mux(self.kind == shape.scales, steps.unit, steps.start)
        reached = self.sram + (steps.unit << ceil_log2(shape.granule))
        m.d.sync += [
            position.valid.eq(self.valid),
            position.last.eq(self.last),
            position.error.eq(self.error),
            position.kind.eq(self.kind),
            position.start.eq(steps.start),
            position.end.eq(steps.end),
            position.unit.eq(steps.unit),
            position.sram.eq(self.sram),
            position.room.eq(self.sram_end - reached),
            position.turn.eq(offset - self.low),
            position.tag.eq(self.tag),
        ]
        return position

    def _rotation(self, m: Module, position: data.View) -> data.View:
        """Bytes at their place modulo a beat, and the last ones of the beat before."""
        size = self._shape.beat_bytes
        carried = Signal(8 * _MOST_CARRIED)
        beat = Signal(8 * size)
        turned = Signal(data.StructLayout({"position": position.shape(), "bytes": 8 * size, "carried": 8 * _MOST_CARRIED}), name="turned")
        with m.If(self.valid):
            m.d.sync += beat.eq(self.data)
        m.d.sync += [turned.position.eq(position), turned.bytes.eq(rotate(m, beat, position.turn, 8, "turn"))]
        with m.If(position.valid):
            m.d.sync += [carried.eq(beat[-8 * _MOST_CARRIED :]), turned.carried.eq(carried)]
        return turned

    def _window(self, m: Module, turned: data.View) -> Signal:
        """The window's bytes."""
        shape, start = self._shape, turned.position.start
        whole = [turned.bytes.word_select(index, 8) for index in range(shape.beat_bytes)]
        carried = [turned.carried.word_select(_MOST_CARRIED - 1 - back, 8) for back in range(_MOST_CARRIED)]
        count = max(filled * bits // 8 for filled, bits in zip(self._filled, shape.kinds, strict=False))
        window = []
        for index in range(count):
            byte = whole[index % shape.beat_bytes]
            for back in range(_MOST_CARRIED):
                # Only words, whose window starts anew every 4 bytes, are carried more than a byte of.
                if index + back + 1 < max(self._steps) and (back == 0 or index + back + 1 < 4):
                    byte = Mux(start == index + back + 1, carried[back], byte)
            window.append(byte)
        result = Signal(8 * count, name="window")
        m.d.comb += result.eq(Cat(*window))
        return result

    def _elements(self, m: Module, turned: data.View) -> None:
        """Lanes of the window, then what is written."""
        shape, granule = self._shape, self._shape.granule
        position, window = turned.position, self._window(m, turned)
        lanes = max(2 * shape.words, shape.lanes)
        formats = [form.element for form in shape.formats]
        raw, mask = Signal(data.ArrayLayout(16, lanes)), Signal(lanes)
        word_mask, is_mx = Signal(shape.words), Signal()
        now = Signal(position.shape(), name="now")
        overflow = Signal()
        with m.Switch(position.kind):
            for kind, bits in enumerate(shape.kinds[: 2 + len(formats)]):
                with m.Case(kind):
                    filled = self._filled[kind]
                    for lane in range(filled):
                        code = window[lane * bits : (lane + 1) * bits]
                        if kind > 1:
                            code = decode(m, code, formats[kind - 2], f"small_{kind}_{lane}").as_value()
                        if kind == 1:
                            m.d.sync += [raw[2 * lane].eq(code[:16]), raw[2 * lane + 1].eq(code[16:])]
                        else:
                            m.d.sync += raw[lane].eq(code)
                        last_byte = ((lane + 1) * bits - 1) // 8
                        inside = (position.start <= last_byte) & (position.end > last_byte)
                        target = word_mask[lane] if kind == 1 else mask[lane]
                        m.d.sync += target.eq(position.valid & inside & (1 if kind == 1 else position.room > lane))
                    if kind != 1:
                        m.d.sync += [mask[lane].eq(0) for lane in range(filled, shape.lanes)]
                        m.d.sync += word_mask.eq(0)
                        m.d.comb += overflow.eq(position.end > filled * bits // 8)
                    else:
                        m.d.sync += mask.eq(0)
            with m.Default():
                m.d.sync += [mask.eq(0), word_mask.eq(0)]
        m.d.sync += [now.eq(position), is_mx.eq(position.kind > 1)]
        scales, factors = self._scales(m, turned)
        wide = self.vector.signature.lanes
        for lane in range(wide):
            value = scaled(m, data.View(SMALL, raw[lane]), factors[lane // granule], f"scaled_{lane}") if formats else raw[lane]
            m.d.sync += self.vector.data[lane].eq(Mux(is_mx, value, raw[lane]))
        writes = now.valid & ~now.error
        address = now.sram >> ceil_log2(granule)
        m.d.sync += [
            self.vector.address.eq(address + now.unit),
            self.vector.mask.eq(Mux(writes, mask, 0)),
            self.integer.address.eq(now.sram + now.unit),
            self.integer.mask.eq(Mux(writes, word_mask, 0)),
            self.integer.data.eq(raw.as_value()),
            self.done.eq(writes & now.last),
        ]
        if shape.matrix_blocks:
            filling = Filling(m, shape, position, window)
            m.d.sync += [
                self.matrix.address.eq(now.sram + now.unit),
                self.matrix.mask.eq(Mux(writes, filling.mask, 0)),
                self.matrix.data.eq(filling.codes),
            ]
            for lane, scale in enumerate(scales):
                m.d.sync += [
                    self.matrix.scales[lane].eq(scale),
                    self.matrix.scale_mask[lane].eq(writes & filling.mask.word_select(lane, mx.BLOCK).any()),
                ]
        too_wide = Signal()
        m.d.sync += too_wide.eq(overflow)
        m.d.comb += [
            self.fault.eq(now.valid & (now.error | too_wide)),
            self.code.eq(Mux(now.error, Fault.MEMORY, Fault.ALIGNMENT)),
            self.fault_tag.eq(now.tag),
            self.busy.eq(position.valid | turned.position.valid | now.valid | self.done),
        ]

    def _scales(self, m: Module, turned: data.View) -> tuple[list[Value], list[Value]]:
        """One scale per block and one per granule of the window, a cycle after `turned`."""
        shape, granule, position = self._shape, self._shape.granule, turned.position
        kept = Signal(data.ArrayLayout(8, CHUNK))
        for index in range(CHUNK):
            here = (position.unit <= index) & (position.unit + position.end > index)
            with m.If(position.valid & (position.kind == shape.scales) & here):
                m.d.sync += kept[index].eq(turned.bytes.word_select(index % shape.beat_bytes, 8))
        per_block = mx.BLOCK // granule
        phase_bits, granules = ceil_log2(per_block), -(-shape.lanes // granule)
        count = (granules + per_block - 2) // per_block + 1
        columns = min(CHUNK, 1 << ceil_log2(count))
        by_block = Cat(position.kind == kind for kind in shape.matrix_kinds).any() if shape.matrix_blocks else Const(0, 1)
        first, phase = wire(m, Mux(by_block, position.unit, position.unit >> phase_bits)), position.unit[:phase_bits]
        column = first[: ceil_log2(columns)]
        picked = []
        for index in range(columns):
            row = (first >> ceil_log2(columns)) + (column > index)
            rows = Array(kept[place] for place in range(index, CHUNK, columns))
            picked.append(rows[row[: ceil_log2(CHUNK // columns)]])
        straight = rotate(m, Cat(*picked), (-column)[: len(column)], 8, "scales")
        factors = []
        for index in range(granules):
            factor = Signal(8, name=f"factor_{index}")
            base, rest = divmod(index, per_block)
            low, high = straight.word_select(base, 8), straight.word_select(min(base + 1, columns - 1), 8)
            m.d.sync += factor.eq(Mux(phase + rest >= per_block, high, low) if per_block > 1 else low)
            factors.append(factor)
        blocks = []
        for index in range(shape.matrix_lanes if shape.matrix_blocks else 0):
            scale = Signal(8, name=f"scale_{index}")
            m.d.sync += scale.eq(straight.word_select(min(index, columns - 1), 8))
            blocks.append(scale)
        return blocks, factors

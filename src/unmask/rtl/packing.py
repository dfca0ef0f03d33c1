"""From beats that are asked for to beats of data: elements of the SRAMs, as they are or packed to MX."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from unmask.isa.table import BF16_BYTES, INT32_BYTES
from unmask.numerics import mx
from unmask.rtl.dma import CHUNK, Shape
from unmask.rtl.mx import ALIGNED, SPREAD, Coding, aligned, coded, largest_exponent, scale_of, spread
from unmask.rtl.position import Position
from unmask.rtl.sram import SramRead, rotate


class Packing(wiring.Component):
    """A beat of data, seven cycles after it is asked for; the SRAM's data one cycle after its address, which is two cycles after that.

    A window of the SRAM is read for each beat, from the granule, of MX from the block, in which the beat begins. Scales are kept until
    the elements of their chunk have gone.

    Ports:
        valid, beat, kind, sram, sram_end, tag: a beat that is asked for, as `Walker` has it, and its burst.
        vector, integer: read ports of the SRAMs.
        ready, data, strobes, last: a beat of data.
        fault, fault_tag: a beat cannot be made of `lanes` elements; it is sent without strobes.
        busy: a beat is under way.
    """

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        super().__init__(
            {
                "valid": In(1),
                "beat": In(shape.beat),
                "kind": In(range(len(shape.kinds))),
                "sram": In(shape.address_bits),
                "sram_end": In(shape.address_bits),
                "tag": In(shape.tag_bits),
                "vector": Out(SramRead(ceil_log2(shape.vector_elements // shape.granule), 16, shape.lanes)),
                "integer": Out(SramRead(ceil_log2(shape.integer_words), 32, shape.words)),
                "ready": Out(1),
                "data": Out(8 * shape.beat_bytes),
                "strobes": Out(shape.beat_bytes),
                "last": Out(1),
                "fault": Out(1),
                "fault_tag": Out(shape.tag_bits),
                "busy": Out(1),
            }
        )
        self._blocks = shape.lanes // mx.BLOCK if shape.formats else 0
        beat_bits = 8 * shape.beat_bytes
        # Of each kind of data: bytes that the window moves by, lanes that it fills.
        self._steps = [shape.granule * BF16_BYTES, INT32_BYTES] + [mx.BLOCK * form.element.bits // 8 for form in shape.formats] + [1]
        self._filled = [min(shape.lanes, shape.granule + beat_bits // 16), shape.words] + [self._blocks * mx.BLOCK] * len(shape.formats)

    def elaborate(self, platform: Any) -> Module:
        """Position, read, scales, codes, bytes, rotation."""
        m, shape = Module(), self._shape
        m.submodules.position = position = Position(shape, self._steps)
        m.d.comb += [
            position.valid.eq(self.valid),
            position.first.eq(self.beat.first),
            position.low.eq(self.beat.low),
            position.high.eq(self.beat.high),
            position.kind.eq(self.kind),
        ]
        is_mx = (self.kind > 1) & (self.kind != shape.scales)
        elements = Mux(is_mx, position.unit << ceil_log2(mx.BLOCK), position.unit << ceil_log2(shape.granule))
        layout = data.StructLayout(
            {
                "valid": 1,
                "last": 1,
                "low": shape.beat_bits,
                "high": shape.beat_bits + 1,
                "kind": range(len(shape.kinds)),
                "start": len(position.start),
                "end": len(position.end),
                "unit": shape.address_bits,
                "address": shape.address_bits,
                "room": shape.address_bits,
                "tag": shape.tag_bits,
            }
        )
        asked = Signal(layout, name="asked")
        m.d.sync += [
            asked.valid.eq(self.valid),
            asked.last.eq(self.beat.last),
            asked.low.eq(self.beat.low),
            asked.high.eq(self.beat.high),
            asked.kind.eq(self.kind),
            asked.start.eq(position.start),
            asked.end.eq(position.end),
            asked.unit.eq(position.unit),
            asked.address.eq(Mux(self.kind == 1, self.sram + position.unit, (self.sram + elements) >> ceil_log2(shape.granule))),
            asked.room.eq(Mux(is_mx, self.sram_end - self.sram - elements, -1)),
            asked.tag.eq(self.tag),
        ]
        m.d.comb += [
            self.vector.address.eq(asked.address),
            self.vector.enable.eq(asked.valid & (asked.kind != 1) & (asked.kind != shape.scales)),
            self.integer.address.eq(asked.address),
            self.integer.enable.eq(asked.valid & (asked.kind == 1)),
        ]

        # One set of controls per stage: of the data out of the SRAM, in `raw`, with their scales, on the grid of their format, as bytes.
        stages = [asked]
        for name in ("read", "taken", "measured", "placed", "folded"):
            stage = Signal(layout, name=name)
            m.d.sync += stage.eq(stages[-1])
            stages.append(stage)
        _, read, taken, measured, placed, folded = stages
        too_wide = Signal()
        with m.Switch(read.kind):
            for kind, filled in enumerate(self._filled):
                with m.Case(kind):
                    m.d.comb += too_wide.eq(read.end > filled * shape.kinds[kind] // 8)
        m.d.comb += [self.fault.eq(read.valid & too_wide), self.fault_tag.eq(read.tag)]
        with m.If(self.fault):
            m.d.sync += taken.high.eq(0)
        m.d.comb += self.busy.eq(Cat(stage.valid for stage in stages).any() | self.ready)

        raw = Signal(data.ArrayLayout(16, max(shape.lanes, 2 * shape.words)), name="raw")
        for lane in range(shape.lanes):
            m.d.sync += raw[lane].eq(Mux(read.room > lane, self.vector.data[lane], 0))
        with m.If(read.kind == 1):
            m.d.sync += raw.as_value()[: 32 * shape.words].eq(self.integer.data.as_value())
        elements, coding, kept = self._elements(m, raw, taken, measured)
        bytes_ = self._folded(m, elements, coding, kept, placed)
        turn = Signal(shape.beat_bits)
        m.d.comb += turn.eq(folded.low - Mux(folded.kind == shape.scales, folded.unit, folded.start))
        m.d.sync += [
            self.data.eq(rotate(m, bytes_, turn, 8, "turn")),
            self.ready.eq(folded.valid),
            self.last.eq(folded.last),
            self.strobes.eq(Cat((folded.low <= index) & (folded.high > index) for index in range(shape.beat_bytes))),
        ]
        return m

    def _elements(self, m: Module, raw: data.View, taken: data.View, measured: data.View) -> tuple[data.View, Coding | None, list[Value]]:
        """Elements a cycle after `measured`, 16 bits each: as they are, of MX as `ALIGNED`; their coding; the chunk's scales."""
        shape, blocks = self._shape, self._blocks
        elements = Signal(raw.shape(), name="elements")
        if not blocks:
            later = Signal(raw.shape(), name="later")
            m.d.sync += [later.eq(raw), elements.eq(later)]
            return elements, None, []
        formats = [form.element for form in shape.formats]
        scales = Signal(data.ArrayLayout(8, blocks))
        coding = Coding.choose(m, formats, (taken.kind - 2)[:2], "coding")
        packs = Signal()
        m.d.comb += packs.eq((taken.kind > 1) & (taken.kind != shape.scales))
        # What an element is before it has a scale is found beside the block's largest exponent.
        later = Signal(data.ArrayLayout(SPREAD.size, raw.shape().length), name="later")
        for block in range(blocks):
            lanes = [raw[block * mx.BLOCK + index] for index in range(mx.BLOCK)]
            m.d.sync += scales[block].eq(scale_of(largest_exponent(m, lanes), coding))
        for lane in range(raw.shape().length):
            m.d.sync += later[lane].eq(raw[lane])
        for lane in range(blocks * mx.BLOCK):
            with m.If(packs):
                m.d.sync += later[lane].eq(spread(m, raw[lane], coding, f"code_{lane}").as_value())
        coding = coding.held(m, "coding_later")
        m.d.sync += elements.eq(Cat(lane[:16] for lane in later))
        with m.If((measured.kind > 1) & (measured.kind != shape.scales)):
            for lane in range(blocks * mx.BLOCK):
                element, scale = data.View(SPREAD, later[lane]), scales[lane // mx.BLOCK]
                m.d.sync += elements[lane].eq(aligned(m, element, scale, coding, f"code_{lane}").as_value())

        kept = [Signal(8, name=f"scale_{index}") for index in range(CHUNK)]
        columns = 1 << ceil_log2(blocks)
        column, row = measured.unit[: ceil_log2(columns)], measured.unit[ceil_log2(columns) :]
        padded = Signal(8 * columns)
        m.d.comb += padded.eq(scales.as_value())
        turned = rotate(m, padded, column, 8, "kept")
        with m.If(measured.valid & (measured.kind > 1) & (measured.kind != shape.scales)):
            for index, scale in enumerate(kept):
                place = index % columns
                with m.If(row + (column > place) == index // columns):
                    m.d.sync += scale.eq(turned.word_select(place, 8))
        return elements, coding.held(m, "coding_last"), kept

    def _folded(self, m: Module, elements: data.View, coding: Coding | None, kept: list[Value], placed: data.View) -> Value:
        """The beat's bytes at their place in the window, modulo a beat; a cycle after `placed`."""
        shape, size = self._shape, self._shape.beat_bytes
        folded = Signal(8 * size, name="bytes")
        choices: dict[int, Value] = {16: elements.as_value(), 32: elements.as_value()}
        codes = []
        if coding is not None:
            # Rounded here: finding the grid is a cycle's work of its own.
            codes = [coded(m, data.View(ALIGNED, elements[lane]), coding, f"code_{lane}") for lane in range(self._blocks * mx.BLOCK)]
        for bits in {form.element.bits for form in shape.formats}:
            choices[bits] = Signal(bits * self._blocks * mx.BLOCK, name=f"packed_{bits}")
            m.d.comb += choices[bits].eq(Cat(code[:bits] for code in codes))
        scales = Signal(8 * max(len(kept), 1), name="scales")
        m.d.comb += scales.eq(Cat(*kept))
        with m.Switch(placed.kind):
            for kind, bits in enumerate(shape.kinds[:-1]):
                with m.Case(kind):
                    self._fold(m, folded, choices[bits][: self._filled[kind] * bits], placed.start)
            with m.Default():
                self._fold(m, folded, scales, placed.unit)
        return folded

    def _fold(self, m: Module, folded: Signal, window: Value, start: Value) -> None:
        """Of the window's bytes from `start` on, as many as a beat has, each at its place modulo a beat."""
        size, count = self._shape.beat_bytes, len(window) // 8
        bits = self._shape.beat_bits
        for place in range(size):
            choices = [window.word_select(index, 8) for index in range(place, count, size)]
            if not choices:
                continue
            number = Signal(range(max(len(choices), 2)))
            m.d.comb += number.eq((start >> bits) + (start[:bits] > place))
            m.d.sync += folded.word_select(place, 8).eq(Array(choices)[number])

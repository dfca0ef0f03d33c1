"""The load engine: tiles from memory to the vector SRAM, MX decoded to BF16 on the way, and words to the integer SRAM."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from unmask.numerics import mx
from unmask.rtl.bits import table
from unmask.rtl.bus import ADDRESS_BITS, ReadBus
from unmask.rtl.dma import CHUNK, Kind, Shape, Walker
from unmask.rtl.faults import BITS as FAULT_BITS
from unmask.rtl.faults import Fault
from unmask.rtl.mx import SMALL, decode, scaled
from unmask.rtl.queue import Queue
from unmask.rtl.retire import Retirement
from unmask.rtl.sram import SramWrite, rotate

LOAD_OVERHEAD = 7
"""Cycles of a load that are not the memory's: two from the start of an instruction to its first request, five from a beat to its words in
the SRAM. A machine of latency L has a memory whose first beat comes L - 7 cycles after its request."""
_MOST_CARRIED = 3
"""Bytes of an element that a beat may end with without its last."""


class Load(wiring.Component):
    """In order, a burst's request in the first cycle of as many as it has beats, and never a wait for anything but the memory.

    A request that starts in cycle s with n beats in all has taken its cycles at s + n, and the next may start. Its bursts are asked for from
    s + 2 on, as `Walker` paces them; a beat that is accepted in cycle t is written in cycle t + 5. An instruction retires in the cycle of its
    last write, or, a SYNC, as soon as all before it have.

    After a fault nothing more is asked for, written from the faulty beat on, or retired; beats under way are taken and dropped.

    Ports:
        request: see `unmask.rtl.dma.request_layout`; taken is started.
        bus: the memory.
        vector, integer: write ports of the SRAMs.
        memory_bytes: size of the memory.
        retire, retired: strobe in the last cycle before an instruction's end, and its tag.
        fault, code, tag: an instruction cannot go on; stays until `clear`.
        clear: forget everything; only while `quiet`.
        quiet: no burst and no beat is under way.
        idle: quiet, and every instruction has retired.
    """

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        super().__init__(
            {
                "request": In(stream.Signature(shape.request)),
                "bus": Out(ReadBus(shape.beat_bytes)),
                "vector": Out(SramWrite(ceil_log2(shape.vector_elements // shape.granule), 16, shape.lanes)),
                "integer": Out(SramWrite(ceil_log2(shape.integer_words), 32, shape.words)),
                "memory_bytes": In(ADDRESS_BITS),
                "retire": Out(1),
                "retired": Out(shape.tag_bits),
                "fault": Out(1),
                "code": Out(FAULT_BITS),
                "tag": Out(shape.tag_bits),
                "clear": In(1),
                "quiet": Out(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Walker and retirement around a pipeline of beats."""
        m, shape, bus = Module(), self._shape, self.bus
        m.submodules.walker = walker = Walker(shape, scales_first=True)
        m.submodules.retirement = retirement = Retirement(shape.tag_bits, shape.bursts)
        m.submodules.bursts = bursts = Queue(shape.burst, shape.bursts)
        m.submodules.beats = beats = _Beats(shape)
        stopped, code, tag = Signal(), Signal(FAULT_BITS), Signal(shape.tag_bits)
        may_start, started = Signal(), Signal()
        m.d.comb += [
            may_start.eq(retirement.room & ~stopped),
            walker.request.payload.eq(self.request.payload),
            walker.request.valid.eq(self.request.valid & may_start),
            self.request.ready.eq(walker.request.ready & may_start),
            started.eq(self.request.valid & self.request.ready),
            walker.memory_bytes.eq(self.memory_bytes),
            walker.beat.ready.eq(1),
            walker.clear.eq(self.clear),
            retirement.start.eq(started),
            retirement.sync.eq(self.request.payload.kind == Kind.SYNC),
            retirement.tag.eq(self.request.payload.tag),
            retirement.clear.eq(self.clear),
        ]

        # A burst goes to the bus and, for its data, to the queue.
        free = ~bus.arvalid | bus.arready
        taken = walker.burst.valid & walker.burst.ready
        m.d.comb += [
            walker.burst.ready.eq(free & bursts.room & ~stopped),
            bursts.push.eq(taken),
            bursts.item.eq(walker.burst.payload),
            bursts.clear.eq(self.clear),
        ]
        with m.If(free):
            m.d.sync += [bus.arvalid.eq(taken), bus.araddr.eq(walker.burst.payload.address), bus.arlen.eq(walker.burst.payload.len)]

        # A beat and what its burst says of it.
        index, burst, accepted = Signal(8), bursts.head, Signal()
        starts, ends = index == 0, index == burst.len
        m.d.comb += [bus.rready.eq(bursts.valid), accepted.eq(bus.rvalid & bus.rready), bursts.pop.eq(accepted & ends)]
        with m.If(accepted):
            m.d.sync += index.eq(Mux(ends, 0, index + 1))
        m.d.sync += beats.valid.eq(accepted)
        with m.If(accepted):
            m.d.sync += [
                beats.data.eq(bus.rdata),
                beats.low.eq(Mux(starts, burst.low, 0)),
                beats.high.eq(Mux(ends, burst.high, shape.beat_bytes)),
                beats.first.eq(starts & burst.first),
                beats.last.eq(ends & burst.last),
                beats.error.eq(bus.rresp[1] | (bus.rlast != ends)),
                beats.kind.eq(burst.kind),
                beats.sram.eq(burst.sram),
                beats.sram_end.eq(burst.sram_end),
                beats.tag.eq(burst.tag),
            ]

        m.d.comb += [
            self.vector.address.eq(beats.vector.address),
            self.vector.data.eq(beats.vector.data),
            self.vector.mask.eq(Mux(stopped, 0, beats.vector.mask)),
            self.integer.address.eq(beats.integer.address),
            self.integer.data.eq(beats.integer.data),
            self.integer.mask.eq(Mux(stopped, 0, beats.integer.mask)),
            retirement.done.eq(beats.done & ~stopped),
            self.retire.eq(retirement.retire & ~stopped),
            self.retired.eq(retirement.retired),
            self.fault.eq(stopped | walker.fault),
            self.code.eq(Mux(stopped, code, walker.code)),
            self.tag.eq(Mux(stopped, tag, walker.tag)),
            self.quiet.eq(~bus.arvalid & ~bursts.valid & ~beats.valid & ~beats.busy & (~walker.busy | self.fault)),
            self.idle.eq(self.quiet & retirement.empty),
        ]
        with m.If(beats.fault & ~stopped):
            m.d.sync += [stopped.eq(1), code.eq(beats.code), tag.eq(beats.fault_tag)]
        with m.If(self.clear):
            m.d.sync += stopped.eq(0)
        return m


class _Beats(wiring.Component):
    """From beats to words of the SRAMs, four cycles later.

    The elements of a beat are brought to a window that starts at a granule of the SRAM; the bytes of an element that the beat before ended
    with come first. Scales are kept until the elements of their chunk have come.

    Ports:
        valid, data, low, high, first, last, error, kind, sram, sram_end, tag: a beat, as `Shape.burst` has them of bursts; `error` is what
            the memory said of it.
        vector, integer, done: what is written now, and whether it ends an instruction.
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
                "done": Out(1),
                "busy": Out(1),
                "fault": Out(1),
                "code": Out(FAULT_BITS),
                "fault_tag": Out(shape.tag_bits),
            }
        )
        granule = shape.granule
        # Of each kind of data: bytes that the window moves by, lanes that a window fills.
        self._steps = [4 if bits == 32 else granule * bits // 8 for bits in shape.kinds[:-1]] + [1]
        self._filled = [
            shape.words if bits == 32 else min(shape.lanes, 8 * shape.beat_bytes // bits + granule) for bits in shape.kinds[:-1]
        ]

    def elaborate(self, platform: Any) -> Module:
        """Position; rotation; elements; rounding."""
        m = Module()
        position = self._position(m)
        turned = self._rotation(m, position)
        self._elements(m, turned)
        return m

    def _position(self, m: Module) -> data.View:
        """Where a beat's bytes lie in the window, and where the window lies in the SRAM."""
        shape, size = self._shape, self._shape.beat_bytes
        start_bits, total_bits = ceil_log2(max(self._steps)), (max(self._steps) - 1 + size).bit_length()
        start, unit, next_start, next_unit = (
            Signal(start_bits),
            Signal(shape.address_bits),
            Signal(start_bits),
            Signal(shape.address_bits),
        )
        here, at, total = Signal(start_bits), Signal(shape.address_bits), Signal(total_bits)
        m.d.comb += [
            here.eq(Mux(self.first, 0, start)),
            at.eq(Mux(self.first, 0, unit)),
            total.eq(here + self.high - self.low),
        ]
        with m.Switch(self.kind):
            for kind, step in enumerate(self._steps):
                with m.Case(kind):
                    if step & (step - 1):
                        values = range(1 << total_bits)
                        quotient = table([value // step for value in values], total, total_bits)
                        rest = table([value % step for value in values], total, start_bits)
                    else:
                        quotient, rest = total >> ceil_log2(step), total[: ceil_log2(step)]
                    m.d.comb += [next_unit.eq(at + quotient), next_start.eq(rest)]
        with m.If(self.valid):
            m.d.sync += [start.eq(next_start), unit.eq(next_unit)]

        layout = data.StructLayout(
            {
                "valid": 1,
                "last": 1,
                "error": 1,
                "kind": range(len(shape.kinds)),
                "start": start_bits,
                "end": total_bits,
                "unit": shape.address_bits,
                "sram": shape.address_bits,
                "room": shape.address_bits,
                "turn": shape.beat_bits,
                "tag": shape.tag_bits,
            }
        )
        position = Signal(layout, name="position")
        offset = Mux(self.kind == shape.scales, at, here)
        reached = self.sram + (at << ceil_log2(shape.granule))
        m.d.sync += [
            position.valid.eq(self.valid),
            position.last.eq(self.last),
            position.error.eq(self.error),
            position.kind.eq(self.kind),
            position.start.eq(here),
            position.end.eq(total),
            position.unit.eq(at),
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
        turned = Signal(
            data.StructLayout({"position": position.shape(), "bytes": 8 * size, "carried": 8 * _MOST_CARRIED}), name="turned"
        )
        with m.If(self.valid):
            m.d.sync += beat.eq(self.data)
        m.d.sync += [turned.position.eq(position), turned.bytes.eq(rotate(m, beat, position.turn, 8, "turn"))]
        with m.If(position.valid):
            m.d.sync += [carried.eq(beat[-8 * _MOST_CARRIED :]), turned.carried.eq(carried)]
        return turned

    def _window(self, turned: data.View) -> list[Value]:
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
        return window

    def _elements(self, m: Module, turned: data.View) -> None:
        """Lanes of the window, then what is written."""
        shape, granule = self._shape, self._shape.granule
        position, window = turned.position, Cat(*self._window(turned))
        lanes = max(2 * shape.words, shape.lanes)
        formats = [form.element for form in shape.formats]
        raw, mask = Signal(data.ArrayLayout(16, lanes)), Signal(lanes)
        word_mask, is_mx = Signal(shape.words), Signal()
        now = Signal(position.shape(), name="now")
        overflow = Signal()
        with m.Switch(position.kind):
            for kind, bits in enumerate(shape.kinds[:-1]):
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

        factors = self._scales(m, turned)
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
        too_wide = Signal()
        m.d.sync += too_wide.eq(overflow)
        m.d.comb += [
            self.fault.eq(now.valid & (now.error | too_wide)),
            self.code.eq(Mux(now.error, Fault.MEMORY, Fault.ALIGNMENT)),
            self.fault_tag.eq(now.tag),
            self.busy.eq(position.valid | turned.position.valid | now.valid | self.done),
        ]

    def _scales(self, m: Module, turned: data.View) -> list[Value]:
        """One scale per granule of the window, a cycle after `turned`."""
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
        first, phase = position.unit >> phase_bits, position.unit[:phase_bits]
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
        return factors

"""The load engine: tiles from memory to the vector SRAM, decoded if they are MX, MX to the matrix SRAM, words to the integer SRAM."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from unmask.rtl.bus import ADDRESS_BITS, ReadBus
from unmask.rtl.dma import Shape
from unmask.rtl.faults import BITS as FAULT_BITS
from unmask.rtl.gather import Gather
from unmask.rtl.matrix.sram import MatrixWrite
from unmask.rtl.queue import Queue
from unmask.rtl.request import PreparedRequest
from unmask.rtl.retire import Retirement
from unmask.rtl.sram import SramRead, SramWrite
from unmask.rtl.under_way import UnderWay
from unmask.rtl.unpacking import Unpacking
from unmask.rtl.walker import ASKING, Walker

WRITING = 6
"""Cycles from the one in which a beat is accepted to the first in which its words can be read."""
LOAD_OVERHEAD = ASKING + WRITING - 1
"""Cycles of a load that are not the memory's, 7: two from the start of an instruction to its first request, five from a beat to its words
in the SRAM. A machine of latency L has a memory whose first beat comes L - 7 cycles after its request."""


class Load(wiring.Component):
    """In order, a burst's request in the first cycle of as many as it has beats, and never a wait for anything but the memory.

    A request that starts in cycle s with n beats in all has taken its cycles at s + n, and the next may start. Its bursts are asked for
    from s + 2 on, as `Walker` paces them, while fewer than `shape.bursts` are on their way to the SRAM; a beat that is accepted in cycle t
    is written in cycle t + 5. An instruction retires in the cycle of its last write, or, a SYNC, as soon as all before it have.

    After a fault nothing more is asked for, written from the faulty beat on, or retired; beats under way are taken and dropped.

    Ports:
        request: see `unmask.rtl.request.PreparedRequest`; taken is started.
        bus: the memory.
        vector, integer: write ports of the SRAMs; matrix: if the shape has one.
        ids: with `gathers`, a read port of the integer SRAM.
        memory_bytes: size of the memory.
        retire, retired: strobe in the last cycle before an instruction's end, and its tag.
        fault, code, tag: an instruction cannot go on; stays until `clear`.
        clear: forget everything; only while `quiet`.
        quiet: no burst and no beat is under way.
        idle: quiet, and every instruction has retired.
    """

    def __init__(self, shape: Shape, *, gathers: bool = False) -> None:
        """Size it. gathers: whether it is built for `Kind.GATHER`."""
        self._shape, self._gathers = shape, gathers
        ids = {"ids": Out(SramRead(ceil_log2(shape.integer_words), 32, 1))} if gathers else {}
        super().__init__(
            {
                **ids,
                "request": In(stream.Signature(PreparedRequest(shape).layout)),
                "bus": Out(ReadBus(shape.beat_bytes)),
                "vector": Out(SramWrite(ceil_log2(shape.vector_elements // shape.granule), 16, shape.lanes)),
                "integer": Out(SramWrite(ceil_log2(shape.integer_words), 32, shape.words)),
                **({"matrix": Out(MatrixWrite.of(shape))} if shape.matrix_blocks else {}),
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
        m.submodules.retirement = retirement = Retirement(shape.tag_bits, shape.instructions)
        m.submodules.bursts = bursts = Queue(shape.burst, shape.bursts)
        m.submodules.under_way = under_way = UnderWay(shape.bursts, WRITING)
        m.submodules.beats = beats = Unpacking(shape)
        stopped, code, tag = Signal(), Signal(FAULT_BITS), Signal(shape.tag_bits)
        may_start, started, gathering = Signal(), Signal(), Signal()
        requests = walker.request
        if self._gathers:
            m.submodules.gather = gather = Gather(shape)
            wiring.connect(m, gather.row, walker.request)
            wiring.connect(m, wiring.flipped(self.ids), gather.ids)
            m.d.comb += [gather.clear.eq(self.clear), gathering.eq(gather.busy)]
            requests = gather.request
        m.d.comb += [
            may_start.eq(retirement.room & ~stopped),
            requests.payload.eq(self.request.payload),
            requests.valid.eq(self.request.valid & may_start),
            self.request.ready.eq(requests.ready & may_start),
            started.eq(self.request.valid & self.request.ready),
            walker.memory_bytes.eq(self.memory_bytes),
            walker.beat.ready.eq(1),
            walker.clear.eq(self.clear),
            retirement.start.eq(started),
            retirement.sync.eq(self.request.payload.sync),
            retirement.tag.eq(self.request.payload.tag),
            retirement.clear.eq(self.clear),
        ]

        # A burst goes to the bus and, for its data, to the queue.
        free = ~bus.arvalid | bus.arready
        taken = walker.burst.valid & walker.burst.ready
        m.d.comb += [
            walker.burst.ready.eq(free & under_way.room & ~stopped),
            bursts.push.eq(taken),
            bursts.item.eq(walker.burst.payload),
            bursts.clear.eq(self.clear),
            under_way.take.eq(taken),
            under_way.done.eq(bursts.pop),
            under_way.clear.eq(self.clear),
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

        if shape.matrix_blocks:
            m.d.comb += [
                self.matrix.address.eq(beats.matrix.address),
                self.matrix.data.eq(beats.matrix.data),
                self.matrix.mask.eq(Mux(stopped, 0, beats.matrix.mask)),
                self.matrix.scales.eq(beats.matrix.scales),
                self.matrix.scale_mask.eq(Mux(stopped, 0, beats.matrix.scale_mask)),
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
            self.quiet.eq(~bus.arvalid & ~bursts.valid & ~beats.valid & ~beats.busy & (~(walker.busy | gathering) | self.fault)),
            self.idle.eq(self.quiet & retirement.empty),
        ]
        with m.If(beats.fault & ~stopped):
            m.d.sync += [stopped.eq(1), code.eq(beats.code), tag.eq(beats.fault_tag)]
        with m.If(self.clear):
            m.d.sync += stopped.eq(0)
        return m

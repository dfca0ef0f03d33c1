"""The store engine: tiles of the vector SRAM to memory, as BF16 or packed to MX on the way, and words of the integer SRAM."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import EnableInserter, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from unmask.rtl.bus import ADDRESS_BITS, WriteBus
from unmask.rtl.dma import Shape
from unmask.rtl.faults import BITS as FAULT_BITS
from unmask.rtl.faults import Fault
from unmask.rtl.packing import Packing
from unmask.rtl.queue import Queue
from unmask.rtl.request import PreparedRequest
from unmask.rtl.retire import Retirement
from unmask.rtl.sram import SramRead
from unmask.rtl.under_way import UnderWay
from unmask.rtl.walker import Walker

ENDING = 2
"""Cycles from the one in which a response is accepted to the end of the instruction that waits for it."""
STORE_OVERHEAD = 7 + ENDING
"""Cycles of a store that are not the memory's, 9: eight from the start of an instruction to its first beat on the bus, and one from a
response to the retirement. A machine of latency L has a memory that accepts at once and responds L - 9 cycles after the last beat of a
burst, a response in the next cycle being one."""


class Store(wiring.Component):
    """In order, a burst's request in the first cycle of as many as it has beats, and never a wait for anything but the memory.

    A request that starts in cycle s with n beats in all has taken its cycles at s + n, and the next may start. Its addresses are on the bus
    from s + 2 on and its beats from s + 8 on, one per cycle, while fewer than `shape.writes` bursts are under way; an instruction retires
    the cycle after its last response, or, a SYNC, as soon as all before it have. While a beat is not accepted the engine stands still, but
    for responses.

    After a fault nothing more is asked for or retired; beats of bursts that have been asked for are still sent.

    Ports:
        request: see `unmask.rtl.request.PreparedRequest`; taken is started.
        bus: the memory.
        vector, integer: read ports of the SRAMs.
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
                "request": In(stream.Signature(PreparedRequest(shape).layout)),
                "bus": Out(WriteBus(shape.beat_bytes)),
                "vector": Out(SramRead(ceil_log2(shape.vector_elements // shape.granule), 16, shape.lanes)),
                "integer": Out(SramRead(ceil_log2(shape.integer_words), 32, shape.words)),
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
        """Walker, a pipeline of beats that may be stopped, and retirement."""
        m, shape, bus = Module(), self._shape, self.bus
        go = Signal()
        m.submodules.walker = walker = Walker(shape, scales_first=False)
        m.submodules.retirement = retirement = Retirement(shape.tag_bits, shape.instructions)
        m.submodules.responses = responses = Queue(data.StructLayout({"last": 1, "tag": shape.tag_bits}), shape.writes)
        m.submodules.under_way = under_way = UnderWay(shape.writes, ENDING)
        packing = Packing(shape)
        m.submodules.packing = EnableInserter(go)(packing)
        stopped, spoiled, code, tag = Signal(), Signal(), Signal(FAULT_BITS), Signal(shape.tag_bits)
        may_start, started = Signal(), Signal()
        m.d.comb += [
            go.eq(~bus.wvalid | bus.wready),
            may_start.eq(retirement.room & ~stopped & ~spoiled),
            walker.request.payload.eq(self.request.payload),
            walker.request.valid.eq(self.request.valid & may_start),
            self.request.ready.eq(walker.request.ready & may_start),
            started.eq(self.request.valid & self.request.ready),
            walker.memory_bytes.eq(self.memory_bytes),
            walker.clear.eq(self.clear),
            retirement.start.eq(started),
            retirement.sync.eq(self.request.payload.sync),
            retirement.tag.eq(self.request.payload.tag),
            retirement.clear.eq(self.clear),
        ]

        # A burst goes to the bus and to the queue of responses that are waited for; its beats follow through the pipeline. A burst that has
        # begun is finished, whatever happens.
        free, burst = ~bus.awvalid | bus.awready, walker.burst.payload
        taken = walker.burst.valid & walker.burst.ready
        m.d.comb += [
            walker.burst.ready.eq(free & under_way.room & ~stopped & ~spoiled),
            walker.beat.ready.eq(go),
            responses.push.eq(taken),
            responses.item.last.eq(burst.last),
            responses.item.tag.eq(burst.tag),
            responses.clear.eq(self.clear),
            under_way.take.eq(taken),
            under_way.done.eq(responses.pop),
            under_way.clear.eq(self.clear),
            packing.beat.eq(walker.beat.payload),
            packing.valid.eq(walker.beat.valid),
            packing.kind.eq(burst.kind),
            packing.sram.eq(burst.sram),
            packing.sram_end.eq(burst.sram_end),
            packing.tag.eq(burst.tag),
        ]
        with m.If(free):
            m.d.sync += [bus.awvalid.eq(taken), bus.awaddr.eq(burst.address), bus.awlen.eq(burst.len)]
        m.d.comb += [
            self.vector.address.eq(packing.vector.address),
            self.vector.enable.eq(packing.vector.enable & go),
            packing.vector.data.eq(self.vector.data),
            self.integer.address.eq(packing.integer.address),
            self.integer.enable.eq(packing.integer.enable & go),
            packing.integer.data.eq(self.integer.data),
            bus.wvalid.eq(packing.ready),
            bus.wdata.eq(packing.data),
            bus.wstrb.eq(packing.strobes),
            bus.wlast.eq(packing.last),
        ]

        # Responses.
        accepted, done, error, of = Signal(), Signal(), Signal(), Signal(shape.tag_bits)
        m.d.comb += [bus.bready.eq(responses.valid), accepted.eq(bus.bvalid & bus.bready), responses.pop.eq(accepted)]
        m.d.sync += [
            done.eq(accepted & responses.head.last & ~bus.bresp[1]),
            error.eq(accepted & bus.bresp[1]),
            of.eq(responses.head.tag),
        ]
        # What the bytes of a beat cannot be made of is found before older instructions have their responses: they still retire.
        m.d.comb += [
            retirement.done.eq(done & ~stopped),
            self.retire.eq(retirement.retire & ~stopped),
            self.retired.eq(retirement.retired),
            self.fault.eq(stopped | spoiled | walker.fault),
            self.code.eq(Mux(stopped | spoiled, code, walker.code)),
            self.tag.eq(Mux(stopped | spoiled, tag, walker.tag)),
            self.quiet.eq(~bus.awvalid & ~responses.valid & ~packing.busy & ~done & ~error & ~walker.midway & (~walker.busy | self.fault)),
            self.idle.eq(self.quiet & retirement.empty),
        ]
        with m.If(packing.fault & go & ~spoiled & ~stopped):
            m.d.sync += [spoiled.eq(1), code.eq(Fault.ALIGNMENT), tag.eq(packing.fault_tag)]
        with m.If(error & ~stopped):
            m.d.sync += [stopped.eq(1), code.eq(Fault.MEMORY), tag.eq(of)]
        with m.Elif(spoiled & accepted & (responses.head.tag == tag)):
            m.d.sync += stopped.eq(1)
        with m.If(self.clear):
            m.d.sync += [stopped.eq(0), spoiled.eq(0)]
        return m

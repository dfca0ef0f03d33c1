"""L_GATHER: a request per row, of the rows that numbers in the integer SRAM choose."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from unmask.rtl.bus import ADDRESS_BITS
from unmask.rtl.dma import LIMIT_BITS, Shape
from unmask.rtl.request import PreparedRequest
from unmask.rtl.sram import SramRead

_NOWHERE = (1 << ADDRESS_BITS) - 1
"""An address beyond every memory: what the row of a bad number has, so that the walk finds the fault."""
_ROW_BITS = 14


class Gather(wiring.Component):
    """Passes prepared requests on at once, but for a `Kind.GATHER`, which becomes one of vector data per row.

    A gather that is taken in cycle s is offered to the walk, its first row, in cycle s + `unmask.machine.dma.GATHER_LEAD`: the row's number
    is addressed in s + 1, there in s + 2, kept in s + 3, times the stride in s + 4. The next rows follow a cycle after each other.

    Ports:
        request: taken when the walk may begin, of gathers too.
        row: to the walk.
        ids: of the integer SRAM.
        busy: rows of a gather are yet to be walked.
        clear: forget everything.
    """

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._layout = PreparedRequest(shape).layout
        super().__init__(
            {
                "request": In(stream.Signature(self._layout)),
                "row": Out(stream.Signature(self._layout)),
                "ids": Out(SramRead(ceil_log2(shape.integer_words), 32, 1)),
                "busy": Out(1),
                "clear": In(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        words = self._shape.integer_words
        held, request, row = Signal(self._layout), self.request.payload, self.row.payload
        gathers = request.gather
        taken = self.request.valid & self.request.ready & gathers
        # Row numbers yet to be read, rows yet to be walked, and the valid flags of those between.
        unread, left, sram, sram_end = Signal(_ROW_BITS), Signal(_ROW_BITS), Signal(ADDRESS_BITS), Signal(ADDRESS_BITS + 1)
        stages = [Signal(name=f"stage_{index}") for index in range(4)]
        advance = self.row.ready | ~stages[-1]
        m.d.comb += [
            self.busy.eq(left != 0),
            self.request.ready.eq(self.row.ready & ~self.busy),
            self.row.valid.eq(Mux(self.busy, stages[-1], self.request.valid & ~gathers)),
        ]
        with m.If(advance):
            m.d.sync += [later.eq(now) for later, now in zip(stages, [unread != 0, *stages], strict=False)]
            m.d.sync += unread.eq(unread - (unread != 0))
        address = self._address(m, held, advance, taken, words)
        own = {
            "gather": Const(0, 1),
            "one_row": Const(1, 1),
            "sram": sram,
            "sram_end": sram_end,
            "beyond": sram_end > self._shape.vector_elements,
            "memory": address,
            "more": left != 1,
        }
        # Field by field: simulators take a signal of which some bits are overridden for a combinational loop.
        m.d.comb += [row[name].eq(Mux(self.busy, own.get(name, held[name]), request[name])) for name, _ in row.shape()]
        with m.If(self.busy & stages[-1] & self.row.ready):
            m.d.sync += [left.eq(left - 1), sram.eq(sram + held.sram_stride), sram_end.eq(sram_end + held.sram_stride)]
        with m.If(taken):
            # A gather without rows is one request without rows, which is a fault.
            rows = Mux(request.rows == 0, 1, request.rows)
            m.d.sync += [held.eq(request), unread.eq(rows), left.eq(rows), sram.eq(request.sram), sram_end.eq(request.sram_end)]
        with m.If(self.clear):
            m.d.sync += [unread.eq(0), left.eq(0), *(stage.eq(0) for stage in stages)]
        return m

    def _address(self, m: Module, held: Any, advance: Value, taken: Value, words: int) -> Value:
        """Where the row begins that is offered to the walk: a number is read, kept, multiplied and added, a cycle each."""
        pointer, far = Signal(max(words.bit_length(), _ROW_BITS) + 1), Signal()
        outside = [Signal(name=f"outside_{index}") for index in range(3)]
        number, product, result = Signal(LIMIT_BITS), Signal(LIMIT_BITS + len(held.memory_stride)), Signal(ADDRESS_BITS)
        data, start = self.ids.data[0], Signal(ADDRESS_BITS + 1)
        m.d.comb += [self.ids.enable.eq(advance), self.ids.address.eq(pointer), start.eq(held.memory + product)]
        with m.If(advance):
            m.d.sync += [
                pointer.eq(pointer + 1),
                outside[0].eq(far | (pointer >= words)),
                number.eq(data),
                outside[1].eq(outside[0] | (data >= held.limit)),
                product.eq(number * held.memory_stride),
                outside[2].eq(outside[1]),
                result.eq(Mux(outside[2] | start[-1], _NOWHERE, start)),
            ]
        with m.If(taken):
            ids = self.request.payload.scales
            m.d.sync += [pointer.eq(ids), far.eq(ids >= words)]
        return result

"""The maximum down columns, V_COL_ABSMAX: a lane compares what comes with what it has."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.utils import ceil_log2

from unmask.isa.row import Cost
from unmask.rtl.control import COLUMNS, Control
from unmask.rtl.reduce import column_absmax


class Columns:
    """A maximum per lane, built into the vector engine's module.

    The engine walks down the rows of a vector of columns, then of the next, so that a vector of maxima is all there is to keep. An operand
    is read so late that its maximum is written in the last cycle of the reductions' latency: nothing else needs to be kept.
    """

    def __init__(self, m: Module, control: Control, ports: Any) -> None:
        """Take over the ports of the vector SRAM while the instruction is under way.

        Args:
            ports: the engine: has the ports of the memories.
        """
        vector = control.machine.vector
        granule = ceil_log2(vector.granule)
        last = control.latency[Cost.REDUCE] - 1
        _, asked = control.at(last - 2)
        arrived, now = control.at(last - 1)
        valid, then = control.at(last)
        own = control.is_(COLUMNS)
        largest = Signal(16 * vector.vlen, name="column_maxima")
        before = Mux(now.first, Mux(control.held["running"], Cat(Value.cast(ports.b.data)), 0), largest)
        before = before[: len(largest)]
        result = Cat(column_absmax(m, Value.cast(ports.a.data[lane]), before.word_select(lane, 16)) for lane in range(vector.vlen))
        with m.If(own & arrived):
            m.d.sync += largest.eq(result)
        with m.If(own):
            m.d.comb += [
                ports.a.address.eq(asked.a >> granule),
                ports.b.address.eq(asked.dst >> granule),
                ports.dst.address.eq(then.dst >> granule),
                ports.dst.mask.eq(Mux(valid & then.last_of_row, (Const(1, vector.vlen + 1) << then.count) - 1, 0)),
                Cat(ports.dst.data).eq(largest),
            ]

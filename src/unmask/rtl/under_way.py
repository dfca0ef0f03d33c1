"""How many bursts of an engine are under way."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class UnderWay(wiring.Component):
    """Counts bursts from their request to the end of their last bytes' way, which is a fixed time after the memory is done with them.

    Ports:
        take: a burst is asked for, only while `room`.
        done: the memory is done with the oldest one; `delay` cycles later it is no longer under way.
        room: another one may be asked for.
        clear: forget everything.
    """

    def __init__(self, limit: int, delay: int) -> None:
        self._limit, self._delay = limit, delay
        super().__init__({"take": In(1), "done": In(1), "room": Out(1), "clear": In(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        count, way = Signal(range(self._limit + 1)), Signal(self._delay)
        m.d.comb += self.room.eq(count != self._limit)
        m.d.sync += [way.eq(Cat(self.done, way)), count.eq(count + self.take - way[-1])]
        with m.If(self.clear):
            m.d.sync += [count.eq(0), way.eq(0)]
        return m

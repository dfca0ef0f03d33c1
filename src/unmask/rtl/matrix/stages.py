"""Which instructions the matrix engine has under way: when it may take the next, and when their left rows and their results begin."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from unmask.numerics.mx import BLOCK
from unmask.rtl.pipeline import strobe


class Stages(wiring.Component):
    """What is known of an instruction when it starts, until its left rows and its results begin.

    The right operand is read from the cycle after the start on. When its first beat is there but for its end, and the 32 rows that its
    columns wait for if it is transposed, the left rows begin, and `results` cycles later the results. Another instruction may start when
    the right operand has been read, `BLOCK` cycles later if that was transposed and the other's is not
    (`unmask.machine.costs.Cycles.gap`).

    Ports:
        start, transposed, item: an instruction starts, only while `ready`. ready: one that is `transposed`, or is not, may start.
        reading, first_ending, last: the right operand is read; the last cycle but one of its first beat, the last of all.
        left_start, left: the left rows begin in the next cycle, and of which instruction. result_start, result: the results.
        stop: forget everything.
    """

    def __init__(self, layout: data.StructLayout, depth: int, results: int) -> None:
        """Size it.

        Args:
            layout: of `item`.
            depth: instructions whose results have not begun, at most.
            results: from the first left row to the first result.
        """
        self._layout, self._depth, self._results = layout, depth, results
        super().__init__(
            {
                "start": In(1),
                "transposed": In(1),
                "item": In(layout),
                "ready": Out(1),
                "reading": In(1),
                "first_ending": In(1),
                "last": In(1),
                "left_start": Out(1),
                "left": Out(layout),
                "result_start": Out(1),
                "result": Out(layout),
                "stop": In(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        held = Signal()
        gap, wait = Signal(range(BLOCK)), Signal(range(BLOCK + 1))
        with m.If(self.start):
            m.d.sync += held.eq(self.transposed)
        with m.If(self.last):
            m.d.sync += gap.eq(Mux(held, BLOCK - 1, 0))
        with m.Elif(gap != 0):
            m.d.sync += gap.eq(gap - 1)
        m.d.comb += self.ready.eq(Mux(self.reading, self.last & (self.transposed | ~held), self.transposed | (gap == 0)))

        with m.If(self.first_ending & held):
            m.d.sync += wait.eq(BLOCK)
        with m.Elif(wait != 0):
            m.d.sync += wait.eq(wait - 1)
        m.d.comb += [
            self.left_start.eq((self.first_ending & ~held) | (wait == 1)),
            self.result_start.eq(strobe(m, self.left_start, self._results, self.stop, "result_start")),
        ]

        m.submodules.items = items = Memory(shape=self._layout, depth=self._depth, init=[])
        write = items.write_port()
        places = {name: Signal(range(self._depth), name=f"{name}_place") for name in ("start", "left", "result")}
        m.d.comb += [write.addr.eq(places["start"]), write.data.eq(self.item), write.en.eq(self.start)]
        for name in ("left", "result"):
            read = items.read_port(domain="comb")
            m.d.comb += [read.addr.eq(places[name]), getattr(self, name).eq(read.data)]
        for name, moves in (("start", self.start), ("left", self.left_start), ("result", self.result_start)):
            with m.If(moves):
                m.d.sync += places[name].eq(Mux(places[name] == self._depth - 1, 0, places[name] + 1))
        with m.If(self.stop):
            m.d.sync += [gap.eq(0), wait.eq(0), *(place.eq(0) for place in places.values())]
        return m

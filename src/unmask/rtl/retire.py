"""In what order, and when, the instructions of a pipelined engine end."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from unmask.rtl.queue import Queue


class Retirement(wiring.Component):
    """One instruction a cycle, in the order in which they started: one that moves data when its data are in place, a SYNC at once.

    Ports:
        start, sync, tag: an instruction starts, only while `room`.
        done: the data of the oldest instruction that moves data and is not done are in place from the next cycle on.
        retire, retired: strobe in the last cycle before the instruction's end, which for a SYNC may be the one in which it starts, and its
            tag.
        waits: the oldest instruction moves data that are not in place; `retired` is its tag.
        empty: nothing is under way.
        clear: forget everything.
    """

    def __init__(self, tag_bits: int, depth: int) -> None:
        self._tag_bits, self._depth = tag_bits, depth
        super().__init__(
            {
                "start": In(1),
                "sync": In(1),
                "tag": In(tag_bits),
                "room": Out(1),
                "done": In(1),
                "retire": Out(1),
                "retired": Out(tag_bits),
                "waits": Out(1),
                "empty": Out(1),
                "clear": In(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """A queue, and a count of what was done while a SYNC stood before it."""
        m = Module()
        layout = data.StructLayout({"tag": self._tag_bits, "sync": 1})
        m.submodules.order = order = Queue(layout, self._depth)
        waiting, oldest, at_once = Signal(range(self._depth + 1)), Signal(), Signal()
        m.d.comb += [
            at_once.eq(self.start & self.sync & ~order.valid),
            oldest.eq(order.valid & (order.head.sync | self.done | (waiting != 0))),
            self.retire.eq(at_once | oldest),
            self.retired.eq(Mux(order.valid, order.head.tag, self.tag)),
            order.push.eq(self.start & ~at_once),
            order.item.tag.eq(self.tag),
            order.item.sync.eq(self.sync),
            order.pop.eq(oldest),
            order.clear.eq(self.clear),
            self.room.eq(order.level != self._depth),
            self.waits.eq(order.valid & ~order.head.sync & (waiting == 0)),
            self.empty.eq(~order.valid),
        ]
        m.d.sync += waiting.eq(waiting + self.done - (oldest & ~order.head.sync))
        with m.If(self.clear):
            m.d.sync += waiting.eq(0)
        return m

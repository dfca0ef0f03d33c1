"""The queue of instructions before an engine."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out


class Queue(wiring.Component):
    """First in, first out; what is pushed in a cycle is at the head in the next, and a full queue that is popped may be pushed.

    Ports:
        push, item: put `item` at the end; only while `room`.
        room: there is a place, or one becomes free in this cycle.
        pop: take the head away; only while `valid`.
        head, valid: the oldest item, and whether there is one.
        clear: forget everything.
        level: items in the queue.
    """

    def __init__(self, layout: data.StructLayout, depth: int) -> None:
        self.depth = depth
        super().__init__(
            {
                "push": In(1),
                "item": In(layout),
                "room": Out(1),
                "pop": In(1),
                "head": Out(layout),
                "valid": Out(1),
                "clear": In(1),
                "level": Out(range(depth + 1)),
            }
        )
        self._layout = layout

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.items = items = Memory(shape=self._layout, depth=self.depth, init=[])
        write, read = items.write_port(), items.read_port(domain="comb")
        first, last = Signal(range(self.depth)), Signal(range(self.depth))

        def after(pointer: Signal) -> Any:
            return Mux(pointer == self.depth - 1, 0, pointer + 1)

        m.d.comb += [
            self.valid.eq(self.level != 0),
            self.room.eq((self.level != self.depth) | self.pop),
            write.addr.eq(last),
            write.data.eq(self.item),
            write.en.eq(self.push),
            read.addr.eq(first),
            self.head.eq(read.data),
        ]
        m.d.sync += self.level.eq(self.level + self.push - self.pop)
        with m.If(self.push):
            m.d.sync += last.eq(after(last))
        with m.If(self.pop):
            m.d.sync += first.eq(after(first))
        with m.If(self.clear):
            m.d.sync += [self.level.eq(0), first.eq(0), last.eq(0)]
        return m

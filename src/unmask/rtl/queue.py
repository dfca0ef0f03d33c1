"""The queue of instructions before an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out


@dataclass(frozen=True)
class Step:
    """Work on an item on its way to the head, a cycle's at 1 GHz in ASAP7.

    Attributes:
        layout: of its result.
        work: builds it: of a module and the item before, the item after.
    """

    layout: data.StructLayout
    work: Callable[[Module, data.View[data.StructLayout]], Value]


class Queue(wiring.Component):
    """First in, first out; what is pushed in a cycle is at the head `latency` cycles later, and a full queue that is popped may be pushed.

    Ports:
        push, item: put `item` at the end; only while `room`.
        room: there is a place, or one becomes free in this cycle.
        pop: take the head away; only while `valid`.
        head, valid: the oldest item, all steps of work done, and whether there is one.
        coming: with `ahead`, those fields of the item that is the head in the next cycle, if there is one and none stays at the head.
        clear: forget everything.
        level: items in the queue.
    """

    def __init__(
        self, layout: data.StructLayout, depth: int, *, latency: int = 1, steps: Sequence[Step] = (), ahead: data.StructLayout | None = None
    ) -> None:
        """Size it.

        Args:
            layout: of an item.
            depth: items.
            latency: at least 1; at 1 + len(steps) there is a register behind each step.
            steps: of work on an item between its place in the queue and the head.
            ahead: fields of an item's `word`, before and after each step, that its user is to see a cycle early.
        """
        self.depth, self._latency, self._steps, self._ahead = depth, latency, tuple(steps), ahead
        super().__init__(
            {
                "push": In(1),
                "item": In(layout),
                "room": Out(1),
                "pop": In(1),
                "head": Out(steps[-1].layout if steps else layout),
                "valid": Out(1),
                "clear": In(1),
                "level": Out(range(depth + 1)),
            }
            | ({"coming": Out(ahead)} if ahead else {})
        )
        self._layout = layout

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.items = items = Memory(shape=self._layout, depth=self.depth, init=[])
        write, read = items.write_port(), items.read_port(domain="comb")
        first, last = Signal(range(self.depth)), Signal(range(self.depth))

        def after(pointer: Signal) -> Any:
            return Mux(pointer == self.depth - 1, 0, pointer + 1)

        # Items in the memory that may leave it; a latency that no step needs is waited for there.
        kept = min(self._latency - 1, len(self._steps))
        wait = self._latency - 1 - kept
        ready, leave = Signal(range(self.depth + 1)) if kept or wait else self.level, Signal()
        seen: Value = self.push
        for index in range(wait):
            later = Signal(name=f"push_{index + 1}")
            m.d.sync += later.eq(seen & ~self.clear)
            seen = later
        m.d.sync += self.level.eq(self.level + self.push - self.pop)
        if kept or wait:
            m.d.sync += ready.eq(ready + seen - leave)
        m.d.comb += [
            self.room.eq((self.level != self.depth) | self.pop),
            write.addr.eq(last),
            write.data.eq(self.item),
            write.en.eq(self.push),
            read.addr.eq(first),
        ]
        with m.If(self.push):
            m.d.sync += last.eq(after(last))
        with m.If(leave):
            m.d.sync += first.eq(after(first))

        stored = ready != 0
        if self._ahead and not kept:
            # What is pushed comes to the head at once where nothing stands before it.
            behind, at_once = items.read_port(domain="comb"), Const(0, 1) if wait else self.level <= 1
            m.d.comb += [
                behind.addr.eq(Mux(stored, after(first), first)),
                self.coming.eq(Mux(at_once, self._seen(self.item), self._seen(behind.data))),
            ]
        item, valid = read.data, stored
        stages: list[tuple[Signal, Signal]] = []
        for index, step in enumerate(self._steps):
            result = Signal(step.layout, name=f"worked_{index}")
            m.d.comb += Value.cast(result).eq(step.work(m, item))
            item = result
            if kept * (index + 1) // len(self._steps) > kept * index // len(self._steps):
                there, held = Signal(name=f"valid_{index}"), Signal(step.layout, name=f"stage_{index}")
                taken = Signal(name=f"free_{index}")
                with m.If(taken):
                    m.d.sync += [held.eq(item), there.eq(valid)]
                stages.append((taken, there))
                if self._ahead and index == len(self._steps) - 1:
                    m.d.comb += self.coming.eq(self._seen(item))
                item, valid = held, there
        m.d.comb += [self.head.eq(item), self.valid.eq(valid)]
        # A stage takes an item where it holds none, or hands its own on.
        on: Value = self.pop
        for taken, there in reversed(stages):
            m.d.comb += taken.eq(~there | on)
            on = taken
        m.d.comb += leave.eq(stored & on)
        with m.If(self.clear):
            m.d.sync += [self.level.eq(0), ready.eq(0), first.eq(0), last.eq(0), *(there.eq(0) for _, there in stages)]
        return m

    def _seen(self, item: Any) -> Value:
        """What its user sees early of an item."""
        return Cat(item.word[name] for name, _ in self._ahead or ())

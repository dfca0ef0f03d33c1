"""Semaphores for a program under construction, so that it gives the same values whatever time its instructions take.

Straight-line code: an instruction that must come after one of another engine, or reads what its own pipelined engine has yet to write,
waits for a token that this one, a later one of its engine, or a SYNC gives; what is known to have ended is tracked per engine, as
`unmask.machine.hazards` does. A token goes from one engine to one within one sequence of instructions, so tokens are taken in the order in
which they are given.

Loops: the iterations of a body either meet at a barrier, or each engine waits for what the other engines did in the iteration before, by
credits that SEM_SET gives. A loop as a whole comes after a barrier if it touches what unfinished instructions touch.
"""

from __future__ import annotations

from random import Random

from unmask.isa.table import NO_SEMAPHORE, Engine
from unmask.machine.cycle import PIPELINED
from unmask.rtl.lockstep.nodes import ENGINES, Item, Loop, Node, Touch, conflict


class TooFewSemaphores(Exception):
    """The program needs more names than there are: make another one."""


class Semaphores:
    """Names that are still free, and counts to start with."""

    def __init__(self, rng: Random) -> None:
        self._free = list(range(NO_SEMAPHORE))
        rng.shuffle(self._free)
        self.credits: dict[int, int] = {}
        self._barriers: dict[Engine, int] = {}

    def fresh(self, credit: int = 0) -> int:
        """A semaphore that nobody has, with `credit` tokens from the start.

        Raises:
            TooFewSemaphores: there is none left.
        """
        if not self._free:
            raise TooFewSemaphores
        name = self._free.pop()
        if credit:
            self.credits[name] = credit
        return name

    def barrier(self, engine: Engine) -> int:
        """The name by which an engine tells the sequencer that it has come to a barrier."""
        if engine not in self._barriers:
            self._barriers[engine] = self.fresh()
        return self._barriers[engine]


def sync(engine: Engine, wait: list[int] | None = None, signal: list[int] | None = None) -> Node:
    """An instruction of an engine that only waits and signals."""
    return Node("SYNC", {"engine": int(engine)}, wait=wait or [], signal=signal or [])


class _Entry:
    """An instruction, or an engine's part of a loop, as those after it see it."""

    def __init__(self, engine: Engine, number: int, touches: list[Touch], node: Node | None) -> None:
        self.engine, self.number, self.touches, self.node = engine, number, touches, node
        self.ended: dict[Engine, int] = {}


class Ordering:
    """Orders sequences of items."""

    def __init__(self, rng: Random, semaphores: Semaphores) -> None:
        self._rng, self._semaphores = rng, semaphores
        self.pairs: dict[str, int] = {}

    def order(self, items: list[Item], top: bool = True) -> list[Item]:
        """The items with semaphores, SYNCs and barriers among them; counts conflicts by engines in `pairs`."""
        return _Sequence(self._rng, self._semaphores, self.pairs, self).order(items, top)


class _Sequence:
    """One body of instructions: the whole program, or a loop's."""

    def __init__(self, rng: Random, semaphores: Semaphores, pairs: dict[str, int], outer: Ordering) -> None:
        self._rng, self._semaphores, self._pairs, self._outer = rng, semaphores, pairs, outer
        self._names: dict[tuple[Engine, Engine], list[int]] = {}
        self._out: list[Item] = []
        self._entries: dict[Engine, list[_Entry]] = {engine: [] for engine in ENGINES}
        self._clocks: dict[Engine, dict[Engine, int]] = {engine: {} for engine in (*ENGINES, Engine.SEQUENCER)}

    def order(self, items: list[Item], top: bool) -> list[Item]:
        for item in items:
            if isinstance(item, Loop):
                self._loop(item)
            else:
                self._instruction(item)
        if not top:
            self._carry()
        return self._out

    def _known(self, engine: Engine) -> dict[Engine, int]:
        mine, all_ = self._clocks[engine], self._clocks[Engine.SEQUENCER]
        return {other: max(mine.get(other, 0), all_.get(other, 0)) for other in ENGINES}

    def _append(self, node: Node, before: dict[Engine, int]) -> None:
        self._out.append(node)
        if node.engine is Engine.SEQUENCER:
            self._clocks[node.engine] = before
            return
        entry = _Entry(node.engine, len(self._entries[node.engine]) + 1, node.touches, node)
        entry.ended = {**before, node.engine: entry.number}
        self._entries[node.engine].append(entry)
        # What starts next on a pipelined engine knows only what this one waited for.
        self._clocks[node.engine] = before if node.engine in PIPELINED else entry.ended

    def _instruction(self, node: Node) -> None:
        before = self._known(node.engine)
        for other in ENGINES:
            touches = self._waits_for(other, node.engine, node.touches)
            late = next((e for e in reversed(self._entries[other]) if e.number > before[other] and conflict(e.touches, touches)), None)
            if late is not None:
                giver = self._giver(late)
                pair = (other, node.engine)
                names = self._names.setdefault(pair, [])
                if not names or (len(names) < 2 and self._rng.random() < 0.2):
                    names.append(self._semaphores.fresh())
                name = self._rng.choice(names)
                assert giver.node is not None
                giver.node.signal.append(name)
                waiting = node
                if len(node.wait) == 2:
                    waiting = sync(node.engine)
                waiting.wait.append(name)
                before = {engine: max(before[engine], giver.ended.get(engine, 0)) for engine in ENGINES}
                label = f"{other.name.lower()} -> {node.engine.name.lower()}"
                self._pairs[label] = self._pairs.get(label, 0) + 1
                if waiting is not node:
                    self._append(waiting, before)
        self._append(node, before)

    @staticmethod
    def _waits_for(first: Engine, second: Engine, touches: list[Touch]) -> list[Touch]:
        """Of what an instruction of the second engine touches, that for which it may have to wait until one of the first has ended.

        Of its own engine's results it waits only for what it reads, and only where the engine does not drain.
        """
        return touches if first is not second else [touch for touch in touches if not touch.write and first in PIPELINED]

    def _giver(self, late: _Entry) -> _Entry:
        """The entry itself or a later one of its engine that can signal, else a SYNC at the end."""
        candidates = [e for e in self._entries[late.engine][late.number - 1 :] if e.node is not None and len(e.node.signal) < 2]
        if not candidates or self._rng.random() < 0.1:
            self._append(sync(late.engine), self._known(late.engine))
            return self._entries[late.engine][-1]
        return candidates[0] if self._rng.random() < 0.7 else candidates[-1]

    def _barrier(self) -> None:
        names = []
        for engine in ENGINES:
            entries = self._entries[engine]
            if entries and entries[-1].number > self._known(Engine.SEQUENCER)[engine]:
                name = self._semaphores.barrier(engine)
                last = entries[-1].node
                if last is not None and len(last.signal) < 2 and self._rng.random() < 0.5:
                    last.signal.append(name)
                else:
                    self._append(sync(engine, signal=[name]), self._known(engine))
                names.append(name)
        before = {engine: len(self._entries[engine]) for engine in ENGINES}
        while names:
            taken, names = names[:2], names[2:]
            self._append(sync(Engine.SEQUENCER, wait=taken), before if not names else self._known(Engine.SEQUENCER))

    def _loop(self, loop: Loop) -> None:
        touches = [touch for node in loop.nodes() for touch in node.touches]
        known = self._known(Engine.SEQUENCER)
        if any(e.number > known[e.engine] and conflict(e.touches, touches) for entries in self._entries.values() for e in entries):
            self._barrier()
        engines = {node.engine: [t for n in loop.nodes() if n.engine is node.engine for t in n.touches] for node in loop.nodes()}
        if loop.sealed:
            self._name(loop)
        else:
            loop.body = self._outer.order(loop.body, top=False)
        self._out.append(loop)
        for engine, part in engines.items():
            if engine in ENGINES:
                entry = _Entry(engine, len(self._entries[engine]) + 1, part, None)
                entry.ended = {**self._known(engine), engine: entry.number}
                self._entries[engine].append(entry)

    def _name(self, loop: Loop) -> None:
        """Names for the semaphores of a sealed loop."""
        numbers = dict.fromkeys(number for node in loop.nodes() for number in (*node.wait, *node.signal))
        names = {number: self._semaphores.fresh(loop.credits.get(number, 0)) for number in numbers}
        for node in loop.nodes():
            node.wait, node.signal = [names[n] for n in node.wait], [names[n] for n in node.signal]

    def _carry(self) -> None:
        """Let iterations follow each other."""
        pairs = [
            (a, b)
            for a in ENGINES
            for b in ENGINES
            if any(conflict(x.touches, self._waits_for(a, b, y.touches)) for x in self._entries[a] for y in self._entries[b])
        ]
        if not pairs:
            return
        if self._rng.random() < 0.35:
            self._barrier()
            return
        for a, b in pairs:
            name = self._semaphores.fresh(credit=1)
            label = f"{a.name.lower()} -> {b.name.lower()} of the next iteration"
            self._pairs[label] = self._pairs.get(label, 0) + 1
            first = next((item for item in self._out if isinstance(item, Loop) or item.engine is b), None)
            if isinstance(first, Node) and len(first.wait) < 2:
                first.wait.append(name)
            else:
                self._out.insert(0, sync(b, wait=[name]))
            last = next((item for item in reversed(self._out) if isinstance(item, Loop) or item.engine is a), None)
            if isinstance(last, Node) and len(last.signal) < 2:
                last.signal.append(name)
            else:
                self._out.append(sync(a, signal=[name]))

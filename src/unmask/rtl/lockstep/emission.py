"""From instructions with addresses to instructions with registers: constants, loop strides, register arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from unmask.isa.encoding import Op
from unmask.isa.table import BY_NAME, Kind
from unmask.machine.sequencer import REGISTER_BITS, wrap
from unmask.rtl.lockstep.nodes import Item, Loop, Node

SCRATCH = range(0, 11)
NEST = range(11, 26)
RING = range(26, 30)
LOADED, JUNK = 30, 31
"""Who uses which registers: constants, what moves with loops, rings of buffers, S_LD, arithmetic for its own sake."""

_EXTREMES = (0, 1, -1, (1 << (REGISTER_BITS - 1)) - 1, -(1 << (REGISTER_BITS - 1)), 0x5555_5555_5555, 1 << 31, -(1 << 31))
_MULTIPLIER = 1 << 31


class TooFewRegisters(Exception):
    """The loops move more addresses than there are registers: make another program."""


class Emitter:
    """Writes a program's instructions."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self.ops: list[Op] = []
        self._known: dict[int, int] = {}
        self._turn = 0
        self._nest: dict[tuple[object, ...], int] = {}
        self._free: list[int] = []

    def program(self, items: Sequence[Item], credits: dict[int, int]) -> list[Op]:
        """The whole program: credits, the items, HALT."""
        for name, count in credits.items():
            self.ops.append(Op("SEM_SET", {"semaphore": name, "value": count}))
        self.ops.append(Op("S_LI", {"rd": JUNK, "value": self._rng.choice(_EXTREMES)}))
        for item in items:
            self._item(item, [])
        self.ops.append(Op("HALT"))
        return self.ops

    def _item(self, item: Item, path: list[Loop]) -> None:
        if isinstance(item, Loop):
            self._loop(item, path)
            return
        self._node(item, path)
        if self._rng.random() < 0.04:
            self._junk()

    def _node(self, node: Node, path: list[Loop]) -> None:
        operands = dict(node.constants)
        pinned: list[int] = []
        for spec in BY_NAME[node.name].fields:
            if spec.kind is not Kind.REGISTER:
                continue
            if spec.name in node.registers:
                number = node.registers[spec.name]
            else:
                base, steps = node.addresses[spec.name]
                key = self._key(path, base, steps)
                number = self._nest[key] if key in self._nest else self._constant(base, pinned)
            pinned.append(number)
            operands[spec.name] = number
        self.ops.append(Op(node.name, operands, tuple(node.wait), tuple(node.signal)))

    @staticmethod
    def _key(path: Sequence[Loop], base: int, steps: tuple[int, ...]) -> tuple[object, ...]:
        return (id(path[-1]), base, steps) if any(steps) else (base,)

    def _constant(self, value: int, pinned: Sequence[int]) -> int:
        """A scratch register that holds a value."""
        value = wrap(value)
        for register, held in self._known.items():
            if held == value and self._rng.random() < 0.6:
                return register
        while self._turn in pinned:
            self._turn = (self._turn + 1) % len(SCRATCH)
        target = SCRATCH[self._turn]
        self._turn = (self._turn + 1) % len(SCRATCH)
        self.ops.append(self._route(target, value))
        self._known[target] = value
        return target

    def _route(self, rd: int, value: int) -> Op:
        """One of the instructions that bring a value about, from what registers are known to hold."""
        kind = self._rng.choice(("S_LI", "S_LI", "S_ADDI", "S_XORI", "S_MULI", "S_ADD"))
        held = list(self._known.items())
        if held and kind == "S_ADDI":
            register, start = self._rng.choice(held)
            return Op("S_ADDI", {"rd": rd, "rs": register, "value": wrap(value - start)})
        if held and kind == "S_XORI":
            register, start = self._rng.choice(held)
            return Op("S_XORI", {"rd": rd, "rs": register, "value": (value ^ start) & ((1 << REGISTER_BITS) - 1)})
        if kind == "S_MULI":
            factors = [(register, value // start) for register, start in held if start and value % start == 0]
            if factors := [f for f in factors if -_MULTIPLIER <= f[1] < _MULTIPLIER]:
                register, factor = self._rng.choice(factors)
                return Op("S_MULI", {"rd": rd, "rs": register, "value": factor})
        if kind == "S_ADD":
            sums = [(a, b) for a, x in held for b, y in held if wrap(x + y) == value]
            if sums:
                a, b = self._rng.choice(sums)
                return Op("S_ADD", {"rd": rd, "rs": a, "rt": b})
        return Op("S_LI", {"rd": rd, "value": value})

    def _junk(self) -> None:
        """Register arithmetic with extreme values."""
        name = self._rng.choice(("S_ADDI", "S_ADD", "S_MULI", "S_XORI", "S_LI"))
        operands = {"rd": JUNK, "rs": JUNK, "rt": JUNK, "value": self._rng.choice(_EXTREMES)}
        if name == "S_XORI":
            operands["value"] &= (1 << REGISTER_BITS) - 1
        if name == "S_MULI":
            operands["value"] = self._rng.choice((-1, 3, -_MULTIPLIER, _MULTIPLIER - 1, self._rng.randrange(-1000, 1000)))
        names = {spec.name for spec in BY_NAME[name].fields}
        self.ops.append(Op(name, {key: value for key, value in operands.items() if key in names}))

    def _loop(self, loop: Loop, path: list[Loop]) -> None:
        if not path:
            self._free = list(NEST)
            self._prepare(loop, [])
        self._known.clear()
        self.ops.append(Op("LOOP", {"count": loop.count}))
        inner = [*path, loop]
        for item in loop.body:
            self._item(item, inner)
        for register, step in self._steps(loop, inner):
            self.ops.append(Op("S_ADDI", {"rd": register, "rs": register, "value": step}))
        self.ops.append(Op("END"))
        self._known.clear()
        if not path:
            self._nest.clear()

    def _prepare(self, loop: Loop, path: list[Loop]) -> None:
        """Registers for what moves in a nest, and for some of what does not."""
        inner = [*path, loop]
        for item in loop.body:
            if isinstance(item, Loop):
                self._prepare(item, inner)
                continue
            for name, (base, steps) in item.addresses.items():
                key = self._key(inner, base, steps)
                if name in item.registers or key in self._nest:
                    continue
                if not any(steps) and (len(self._free) < 6 or self._rng.random() < 0.4):
                    continue
                if not self._free:
                    raise TooFewRegisters
                self._nest[key] = self._free.pop()
                self.ops.append(Op("S_LI", {"rd": self._nest[key], "value": wrap(base)}))

    def _steps(self, loop: Loop, path: list[Loop]) -> list[tuple[int, int]]:
        """What the registers of a nest move by at the end of an iteration of `loop`, the last of `path`."""
        found: list[tuple[int, int]] = []
        self._collect(loop, path, len(path) - 1, found)
        return found

    def _collect(self, loop: Loop, path: list[Loop], level: int, found: list[tuple[int, int]]) -> None:
        for key, register in self._nest.items():
            if len(key) == 1 or key[0] != id(loop):
                continue
            steps = key[2]
            assert isinstance(steps, tuple)
            step = steps[level]
            if len(path) > level + 1:
                step -= steps[level + 1] * path[level + 1].count
            if step:
                found.append((register, step))
        for item in loop.body:
            if isinstance(item, Loop):
                self._collect(item, [*path[: path.index(loop) + 1], item], level, found)

"""Builds a program: registers, loops, ordering between engines, phases."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from unmask.errors import UnmaskError
from unmask.isa.encoding import Op, Operand
from unmask.isa.table import BY_NAME, INSTRUCTIONS, REGISTER_COUNT, Engine, Kind

_PAIR_SEMAPHORES = len(Engine) ** 2
_SCRATCH_REGISTERS = 12
_OPERANDS = {row.name: tuple((spec.name, spec.kind is Kind.REGISTER) for spec in row.fields) for row in INSTRUCTIONS}
"""Names of operands, and whether each is a register, by instruction."""


@dataclass(frozen=True, eq=False)
class Var:
    """A register that the program changes: a loop variable, a parameter, a ring's slot."""

    register: int


@dataclass(frozen=True)
class Address:
    """A register's value plus a constant."""

    var: Var | None
    offset: int

    def __add__(self, offset: int) -> Address:
        return Address(self.var, self.offset + offset)


Value = int | Var | Address
"""What a register operand may be given as; the emitter finds or fills a register for it."""


def address(value: Value) -> Address:
    """`value` as an Address."""
    if isinstance(value, Address):
        return value
    return Address(value, 0) if isinstance(value, Var) else Address(None, value)


class Emitter:
    """Collects instructions.

    Two engines run independently until `order` says otherwise: `order(before, after)` makes everything that `after` is given from now on
    wait for everything that `before` has been given so far. A signal is carried by the last instruction of `before`, a wait by the next one
    of `after`, or by a SYNC where no such instruction stands in the same straight line of code.
    """

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.phases: list[str] = []
        self._phase = "setup"
        self._free = list(range(REGISTER_COUNT - 1, _SCRATCH_REGISTERS - 1, -1))
        self._scratch: OrderedDict[int, int | None] = OrderedDict((number, None) for number in range(_SCRATCH_REGISTERS))
        self._last: dict[Engine, int] = {}
        self._pending: dict[Engine, list[int]] = {engine: [] for engine in Engine}
        self._semaphores = _PAIR_SEMAPHORES
        self._idle: dict[tuple[Engine, Engine, tuple[int, ...]], list[tuple[int, ...]]] = {}
        self._idle_handoffs: dict[tuple[Engine, Engine], list[int]] = {}

    # Instructions

    def emit(self, name: str, *, wait: tuple[int, ...] = (), signal: tuple[int, ...] = (), **operands: Value | float) -> None:
        """Append an instruction; register operands may be constants, variables or addresses."""
        ready: dict[str, Operand] = {}
        for operand, register in _OPERANDS[name]:
            value = operands.pop(operand)
            ready[operand] = self._register(value) if register else value  # type: ignore[assignment, arg-type]
        if operands:
            raise UnmaskError(f"{name} has no operands {list(operands)}")
        self._append(Op(name, ready, wait, signal), BY_NAME[name].engine)

    def _append(self, op: Op, engine: Engine) -> None:
        pending = self._pending[engine]
        if not pending:
            self._place(op, engine)
            return
        room = 2 - len(op.wait)
        taken, self._pending[engine] = pending[:room], []
        for start in range(room, len(pending), 2):
            self._place(Op("SYNC", {"engine": int(engine)}, tuple(pending[start : start + 2])), engine)
        self._place(Op(op.name, op.operands, (*op.wait, *taken), op.signal), engine)

    def _place(self, op: Op, engine: Engine) -> None:
        self._last[engine] = len(self.ops)
        self.ops.append(op)
        self.phases.append(self._phase)

    def sync(self, engine: Engine, *, wait: tuple[int, ...] = (), signal: tuple[int, ...] = ()) -> None:
        """Let an engine wait and signal between two of its instructions."""
        self._append(Op("SYNC", {"engine": int(engine)}, wait, signal), engine)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Instructions inside belong to phase `name`."""
        outer, self._phase = self._phase, name
        yield
        self._phase = outer

    # Registers

    def var(self, value: Value = 0) -> Var:
        """A register of its own, set to `value`.

        Raises:
            UnmaskError: no register is left.
        """
        if not self._free:
            raise UnmaskError("the program needs more registers than the machine has")
        var = Var(self._free.pop())
        self.set(var, value)
        return var

    def release(self, *variables: Var) -> None:
        """Give registers back."""
        self._free.extend(var.register for var in variables)

    def set(self, var: Var, value: Value) -> None:
        """var = value."""
        place = address(value)
        if place.var is None:
            self._sequence("S_LI", rd=var.register, value=place.offset)
        else:
            self._sequence("S_ADDI", rd=var.register, rs=place.var.register, value=place.offset)

    def advance(self, var: Var, stride: int) -> None:
        """var += stride."""
        self._sequence("S_ADDI", rd=var.register, rs=var.register, value=stride)

    def add(self, var: Var, other: Var) -> None:
        """var += other."""
        self._sequence("S_ADD", rd=var.register, rs=var.register, rt=other.register)

    def multiply_add(self, var: Var, factor: int, offset: int) -> Var:
        """A new register: var * factor + offset."""
        result = self.var()
        self._sequence("S_MULI", rd=result.register, rs=var.register, value=factor)
        self.advance(result, offset)
        return result

    def _sequence(self, name: str, **operands: int) -> None:
        self._append(Op(name, operands), Engine.SEQUENCER)

    def _register(self, value: Value) -> int:
        place = address(value)
        if place.var is not None and place.offset == 0:
            return place.var.register
        if place.var is None:
            for number, content in self._scratch.items():
                if content == place.offset:
                    self._scratch.move_to_end(number)
                    return number
        number = next(iter(self._scratch))
        self._scratch.move_to_end(number)
        self._scratch[number] = place.offset if place.var is None else None
        self.set(Var(number), place)
        return number

    # Control

    @contextmanager
    def loop(self, count: int, strides: Mapping[Var, int]) -> Iterator[None]:
        """Instructions inside run `count` times; each variable advances by its stride after each time and is restored at the end."""
        if count == 1:
            yield
            return
        self._cut()
        self._scratch = OrderedDict((number, None) for number in self._scratch)
        self._append(Op("LOOP", {"count": count}), Engine.SEQUENCER)
        yield
        for var, stride in strides.items():
            self.advance(var, stride)
        self._cut()
        self._append(Op("END"), Engine.SEQUENCER)
        self._last.clear()
        for var, stride in strides.items():
            self.advance(var, -count * stride)

    def tiles(self, total: int, width: int, strides: Mapping[Var, int], body: Callable[[int], None]) -> None:
        """`body(width)` for every whole tile of `total`, in a loop, then `body` of what is left, if anything.

        The variables advance by their strides from tile to tile and are restored at the end.
        """
        whole, rest = divmod(total, width)
        if whole:
            with self.loop(whole, strides):
                body(width)
        if not rest:
            return
        if whole:
            for var, stride in strides.items():
                self.advance(var, whole * stride)
        body(rest)
        if whole:
            for var, stride in strides.items():
                self.advance(var, -whole * stride)

    def _cut(self) -> None:
        for engine in Engine:
            self._flush(engine)
        self._last.clear()

    def _flush(self, engine: Engine, signal: tuple[int, ...] = ()) -> None:
        pending, self._pending[engine] = self._pending[engine], []
        for start in range(0, len(pending), 2):
            last = start + 2 >= len(pending)
            self._place(Op("SYNC", {"engine": int(engine)}, tuple(pending[start : start + 2]), signal if last else ()), engine)

    def order(self, before: Engine, after: Engine) -> None:
        """What `after` is given from now on waits for what `before` has been given so far."""
        semaphore = int(before) * len(Engine) + int(after)
        last = self._last.get(before)
        if self._pending[before]:
            self._flush(before, (semaphore,))
        elif last is not None and len(self.ops[last].signal) < 2 and semaphore not in self.ops[last].signal:
            op = self.ops[last]
            self.ops[last] = Op(op.name, op.operands, op.wait, (*op.signal, semaphore))
        else:
            self._place(Op("SYNC", {"engine": int(before)}, (), (semaphore,)), before)
        self._pending[after].append(semaphore)

    def _semaphore(self, credits: int) -> int:
        self._semaphores += 1
        self.emit("SEM_SET", semaphore=self._semaphores - 1, value=credits)
        return self._semaphores - 1

    def take_semaphores(self, producer: Engine, consumer: Engine, credits: tuple[int, ...]) -> tuple[int, ...]:
        """Semaphores between two engines, each with its credits at the start.

        Who gives them back has all the credits back, so that they serve the next who takes such ones as they are.
        """
        idle = self._idle.get((producer, consumer, credits))
        return idle.pop() if idle else tuple(self._semaphore(count) for count in credits)

    def return_semaphores(self, producer: Engine, consumer: Engine, credits: tuple[int, ...], semaphores: tuple[int, ...]) -> None:
        """Give semaphores back."""
        self._idle.setdefault((producer, consumer, credits), []).append(semaphores)

    @contextmanager
    def handoff(self, before: Engine, after: Engine) -> Iterator[Handoff]:
        """A count of its own from one engine to another; inside, it must be taken as often as it is given."""
        idle = self._idle_handoffs.setdefault((before, after), [])
        self._semaphores += not idle
        semaphore = idle.pop() if idle else self._semaphores - 1
        yield Handoff(self, before, after, semaphore)
        idle.append(semaphore)

    def halt(self) -> None:
        """End the program."""
        self._cut()
        self._append(Op("HALT"), Engine.SEQUENCER)


@dataclass(frozen=True)
class Handoff:
    """What one engine is done with, counted; unlike with `Emitter.order`, where it gives may be far from where another one takes."""

    emitter: Emitter
    before: Engine
    after: Engine
    semaphore: int

    def give(self) -> None:
        """Once `before` has ended what it was given so far."""
        self.emitter.sync(self.before, signal=(self.semaphore,))

    def take(self) -> None:
        """What `after` is given from now on waits for one that was given."""
        self.emitter.sync(self.after, wait=(self.semaphore,))


class Ring:
    """Two buffers between a producing and a consuming engine: the producer runs ahead by up to two tiles."""

    _CREDITS = (2, 0)

    def __init__(self, emitter: Emitter, producer: Engine, consumer: Engine, base: int, size: int) -> None:
        self._emitter, self._engines = emitter, (producer, consumer)
        self._toggle = base ^ (base + size)
        self.size = size
        self._free, self._full = emitter.take_semaphores(producer, consumer, self._CREDITS)
        self._head, self._tail = emitter.var(base), emitter.var(base)

    @contextmanager
    def produce(self) -> Iterator[tuple[Var, tuple[int, ...], tuple[int, ...]]]:
        """The slot to fill, what the instruction that fills it waits for and what it signals."""
        yield self._head, (self._free,), (self._full,)
        self._flip(self._head)

    @contextmanager
    def consume(self) -> Iterator[tuple[Var, tuple[int, ...], tuple[int, ...]]]:
        """The slot to read, what the first instruction that reads it waits for and what the last one signals."""
        yield self._tail, (self._full,), (self._free,)
        self._flip(self._tail)

    def release(self) -> None:
        """Give the ring's registers and semaphores back; as many tiles must have been consumed as produced."""
        self._emitter.release(self._head, self._tail)
        self._emitter.return_semaphores(*self._engines, self._CREDITS, (self._free, self._full))

    def _flip(self, var: Var) -> None:
        self._emitter.emit("S_XORI", rd=var, rs=var, value=self._toggle)

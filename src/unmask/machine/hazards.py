"""Proof that a program gives the same values whatever time its instructions take.

The program is walked with its real addresses. Every executed instruction knows which instructions of each engine have surely ended before
it starts: those before it on an engine that drains, and everything known at the end of an instruction whose token was taken by it, by an
earlier instruction of its engine, or by the sequencer before dispatching it. Engines end their instructions in order, so this is one number
per engine. Two accesses to the same location, one of them a write, race unless the earlier is among those that have surely ended. Within
load, store and matrix engine, which are pipelined, a write follows earlier instructions' reads and writes in order, but a read may overtake
an earlier write.

The depth of the queues is not relied upon: a program without races has none on any machine with its formats and sizes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from unmask.errors import UnmaskError
from unmask.isa.encoding import Op, check_loops
from unmask.isa.program import Program
from unmask.isa.table import REGISTER_COUNT, Engine
from unmask.machine.access import Access, Space, accesses
from unmask.machine.config import Machine
from unmask.machine.cycle import PIPELINED, check_depth, check_semaphores, engine_of
from unmask.machine.sequencer import REGISTER_INSTRUCTIONS, execute

_ENGINES = len(Engine)
_Clock = tuple[int, ...]
_START: _Clock = (0,) * _ENGINES


class Race(NamedTuple):
    """Two instructions whose order the program leaves open, although it matters.

    Attributes:
        first, second: indices in the program, in program order; equal for two executions of one instruction, or for an instruction that
            overwrites what it has yet to read.
        space: the memory, or "semaphore" for a SEM_SET that may come before the last wait.
        location: the lowest address in conflict, in the memory's units, at the first conflict of this pair; the number of a semaphore.
        kind: "read after write", "write after read", "write after write" or "set after wait".
    """

    first: int
    second: int
    space: Space | str
    location: int
    kind: str


@dataclass(frozen=True, slots=True)
class _Step:
    """One executed instruction.

    `number` counts its engine's instructions from 1; `before` holds per engine how many have surely ended when it starts.
    """

    pc: int
    engine: Engine
    number: int
    before: _Clock
    touches: Sequence[Access]


def _join(a: _Clock, b: _Clock) -> _Clock:
    return a if a == b else tuple(map(max, a, b))


def _dynamic(ops: Sequence[Op]) -> Iterator[int]:
    """Indices of the instructions in the order of execution, up to HALT."""
    ends = check_loops(ops)
    left: list[tuple[int, int]] = []
    pc = 0
    while True:
        yield pc
        name = ops[pc].name
        if name == "HALT":
            return
        if name == "LOOP":
            left.append((pc, int(ops[pc].operands["count"])))
        elif name == "END":
            start, count = left.pop()
            if count > 1:
                left.append((start, count - 1))
                pc = start
            else:
                pc = ends[start]
        pc += 1


def _steps(ops: Sequence[Op], machine: Machine, parameters: Mapping[int, int], races: list[Race]) -> Iterator[_Step]:
    """Executed instructions with what they touch and what they come after; reports premature SEM_SETs to `races`."""
    engines = [engine_of(op) for op in ops]
    regs = [0] * REGISTER_COUNT
    clocks = [_START] * _ENGINES
    counts = [0] * _ENGINES
    tokens: dict[int, deque[_Clock]] = {}
    last_wait: dict[int, tuple[int, Engine, int]] = {}
    dispatched = _START

    def load_word(address: int) -> int:
        if address not in parameters:
            raise UnmaskError(f"S_LD reads integer SRAM word {address}, whose value is not among the integer parameters")
        return parameters[address]

    for pc in _dynamic(ops):
        op, engine = ops[pc], engines[pc]
        before = _join(clocks[engine], dispatched)
        counts[engine] += 1
        number = counts[engine]
        for name in op.wait:
            if not tokens.get(name):
                raise UnmaskError(f"instruction {pc}: waits for semaphore {name}, which no earlier instruction signals: deadlock")
            before = _join(before, tokens[name].popleft())
            last_wait[name] = (pc, engine, number)
        ended = (*before[:engine], number, *before[engine + 1 :])
        clocks[engine] = before if engine in PIPELINED else ended
        if engine is Engine.SEQUENCER:
            dispatched = ended
        if op.name == "SEM_SET":
            name = int(op.operands["semaphore"])
            if tokens.get(name):
                raise UnmaskError(f"instruction {pc}: sets semaphore {name} while {len(tokens[name])} tokens are outstanding")
            if name in last_wait and last_wait[name][2] > before[last_wait[name][1]]:
                races.append(Race(last_wait[name][0], pc, "semaphore", name, "set after wait"))
            tokens[name] = deque([ended] * int(op.operands["value"]))
        for name in op.signal:
            tokens.setdefault(name, deque()).append(ended)
        try:
            touches = accesses(op, regs, machine)
            if op.name in REGISTER_INSTRUCTIONS:
                execute(op, regs, load_word)
        except UnmaskError as error:
            raise UnmaskError(f"instruction {pc}: {error}") from None
        if touches:
            yield _Step(pc, engine, number, before, touches)


def _span(access: Access) -> tuple[int, int]:
    """Lowest location and the one after the highest."""
    return access.start, access.start + (access.rows - 1) * access.row_stride + access.cols


def _separate_rows(access: Access) -> bool:
    return access.rows == 1 or access.row_stride >= access.cols


def _as_read(access: Access) -> Access:
    """The access as a read; of a single row, whose stride does not matter, with none."""
    return access._replace(write=False, row_stride=0 if access.rows == 1 else access.row_stride)


class _Memory:
    """Who last read and wrote each location of one memory.

    Locations that are only read are not tracked. The rest are tracked in granules, the greatest that no access splits.
    """

    def __init__(self, space: Space, touches: Sequence[Access]) -> None:
        written = [_span(access) for access in touches if access.write]
        self._space = space
        self._low, self._high = min((low for low, _ in written), default=0), max((high for _, high in written), default=0)
        kept = [access for access in touches if self.tracks(access)]
        self._base = min((access.start for access in kept), default=0)
        self._granule = gcd(*(n for a in kept for n in (a.start - self._base, a.cols, a.row_stride if a.rows > 1 else 0))) or 1
        self._size = (max((_span(access)[1] for access in kept), default=0) - self._base) // self._granule
        self._last: dict[tuple[bool, Engine], NDArray[np.int32]] = {}
        self._latest: dict[tuple[bool, Engine], int] = {}

    def tracks(self, access: Access) -> bool:
        low, high = _span(access)
        return low < self._high and self._low < high

    def _view(self, array: NDArray[np.int32], access: Access) -> NDArray[np.int32]:
        start, cols, stride = (access.start - self._base) // self._granule, access.cols // self._granule, access.row_stride // self._granule
        if access.rows == 1 or stride == 0:
            return array[start : start + cols]
        if stride == cols:
            return array[start : start + access.rows * cols]
        return as_strided(array[start:], shape=(access.rows, cols), strides=(stride * array.itemsize, array.itemsize))

    def mark(self, step: _Step, access: Access) -> None:
        """Note that the instruction touches the access's locations."""
        key = (access.write, step.engine)
        if key not in self._last:
            # Pages that no instruction touches are never allocated.
            self._last[key] = np.zeros(self._size, np.int32)
        self._view(self._last[key], access)[...] = step.number
        self._latest[key] = step.number

    def conflicts(self, access: Access, write: bool, engine: Engine, before: int) -> tuple[int, int] | None:
        """Location and number of an engine's latest read or write of the access's locations, if it is after its `before`-th instruction."""
        if self._latest.get((write, engine), 0) <= before:
            return None
        view = self._view(self._last[write, engine], access)
        if (number := int(view.max())) <= before:
            return None
        where = np.argwhere(view == number)[0]
        offset = int(where[-1]) * self._granule + (int(where[0]) * access.row_stride if view.ndim == 2 else 0)
        return access.start + offset, number


class _Checker:
    """Compares every access with the latest ones before it."""

    def __init__(self, steps: Sequence[_Step]) -> None:
        by_space: dict[Space, list[Access]] = {}
        self._pcs: list[list[int]] = [[0] for _ in Engine]
        for step in steps:
            pcs = self._pcs[step.engine]
            pcs.extend([step.pc] * (step.number + 1 - len(pcs)))
            for access in step.touches:
                by_space.setdefault(access.space, []).append(access)
        self._memories = {space: _Memory(space, touches) for space, touches in by_space.items()}
        self.races: dict[tuple[int, int, str, str], Race] = {}

    def _compare(self, step: _Step, access: Access, earlier_write: bool) -> None:
        kind = f"{'write' if access.write else 'read'} after {'write' if earlier_write else 'read'}"
        for engine in Engine:
            before = step.number - 1 if access.write and engine is step.engine and engine in PIPELINED else step.before[engine]
            found = self._memories[access.space].conflicts(access, earlier_write, engine, before)
            if found:
                location, number = found
                first = self._pcs[engine][number]
                self.races.setdefault((first, step.pc, access.space, kind), Race(first, step.pc, access.space, location, kind))

    def check(self, step: _Step) -> None:
        """Report the races of an instruction with those before it and with itself, and note what it touches."""
        touches = [access for access in step.touches if self._memories[access.space].tracks(access)]
        reads, writes = [a for a in touches if not a.write], [a for a in touches if a.write]
        # The lanes read each element before they write it, so a result may replace an operand; the array reads its operands repeatedly.
        replaced = [_as_read(a) for a in writes] if step.engine is Engine.VECTOR else []
        late = [a for a in reads if _as_read(a) in replaced and _separate_rows(a)]
        for access in reads:
            self._compare(step, access, earlier_write=True)
        for access in reads:
            if access not in late:
                self._memories[access.space].mark(step, access)
        for access in writes:
            self._compare(step, access, earlier_write=False)
            self._compare(step, access, earlier_write=True)
            self._memories[access.space].mark(step, access)
        for access in late:
            self._memories[access.space].mark(step, access)


def find_races(program: Program, machine: Machine, integer_parameters: Mapping[int, int] | None = None) -> list[Race]:
    """The pairs of instructions whose order matters and is not assured; empty if every timing gives the same values.

    Args:
        program: walked with its real addresses, every iteration of every loop.
        machine: gives formats and loop depth.
        integer_parameters: what S_LD finds in the integer SRAM, by address.

    Returns:
        One race per pair of instructions, memory and kind, in program order. Of several earlier accesses to a location by one engine, the
        latest is reported.

    Raises:
        UnmaskError: a deadlock, a semaphore with two signallers or waiters or set while tokens are outstanding, an S_LD of an unknown word.
    """
    ops = program.ops
    check_semaphores(ops)
    check_depth(ops, machine)
    resets: list[Race] = []
    steps = list(_steps(ops, machine, integer_parameters or {}, resets))
    checker = _Checker(steps)
    for step in steps:
        checker.check(step)
    return [*dict.fromkeys(resets), *checker.races.values()]

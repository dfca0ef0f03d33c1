"""The smallest program that still fails: instructions are taken out, loops run fewer times, tiles lose rows and columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from unmask.errors import UnmaskError
from unmask.isa.encoding import Op, check_loops, encode
from unmask.machine.config import Machine
from unmask.machine.cycle import engine_of
from unmask.machine.hazards import find_races
from unmask.rtl.lockstep.generator import Case

Fails = Callable[[Sequence[Case]], list[bool]]
"""Which of some cases fail; one call runs them all."""
_AT_ONCE = 48


def with_ops(case: Case, ops: Sequence[Op]) -> Case:
    """The case with other instructions."""
    program = replace(case.program, words=encode(ops), phases=["fuzz"] * len(ops), entries={})
    return replace(case, program=program)


def _legal(case: Case, machine: Machine) -> bool:
    try:
        return not find_races(case.program, machine, case.parameters)
    except (UnmaskError, MemoryError):
        # Without what brings it back a register grows and grows, and races are looked for wherever it leads.
        return False


def _cuts(ops: Sequence[Op]) -> Iterator[list[Op]]:
    """The program without some of its instructions, large parts first; what others wait for becomes a SYNC."""
    size = len(ops) // 2
    while size:
        for start in range(0, len(ops) - 1, size):
            part = ops[start : min(start + size, len(ops) - 1)]
            yield [*ops[:start], *ops[start + len(part) :]]
            stubs = [Op("SYNC", {"engine": int(engine_of(op))}, op.wait, op.signal) for op in part if op.wait or op.signal]
            flow = any(op.name in ("LOOP", "END", "SEM_SET") for op in part)
            if stubs and not flow and not (len(part) == 1 and part[0].name == "SYNC"):
                yield [*ops[:start], *stubs, *ops[start + len(part) :]]
        size //= 2


def _unrolled(ops: Sequence[Op]) -> Iterator[list[Op]]:
    """Loops that run once, or are not there."""
    for start, end in check_loops(ops).items():
        yield [*ops[:start], *ops[start + 1 : end], *ops[end + 1 :]]
        count = int(ops[start].operands["count"])
        for fewer in {1, count // 2, count - 1} - {0, count}:
            yield [*ops[:start], Op("LOOP", {"count": fewer}), *ops[start + 1 :]]


def _smaller(ops: Sequence[Op]) -> Iterator[list[Op]]:
    """Instructions with fewer rows, columns or entries, and without semaphores."""
    for index, op in enumerate(ops):
        for name in ("rows", "cols", "count"):
            if name in op.operands and op.name != "LOOP":
                size = int(op.operands[name])
                for fewer in sorted({1, size // 2, size - 1} - {0, size}):
                    changed = Op(op.name, {**op.operands, name: fewer}, op.wait, op.signal)
                    yield [*ops[:index], changed, *ops[index + 1 :]]
    for semaphore in {number for op in ops for number in (*op.wait, *op.signal)}:
        yield [
            Op(op.name, op.operands, tuple(n for n in op.wait if n != semaphore), tuple(n for n in op.signal if n != semaphore))
            for op in ops
            if not (op.name == "SEM_SET" and op.operands["semaphore"] == semaphore)
        ]


def shrink(case: Case, machine: Machine, fails: Fails, progress: Callable[[int], None] = lambda size: None) -> Case:
    """A smaller case that fails too.

    Args:
        fails: tried on smaller cases, each on its own.
        progress: called with the number of instructions left.
    """
    while True:
        smaller = _step(case, machine, fails)
        if smaller is None:
            return case
        case = smaller
        progress(len(case.program.words))


def _step(case: Case, machine: Machine, fails: Fails) -> Case | None:
    ops = case.program.ops
    for variants in (_cuts, _unrolled, _smaller):
        batch: list[Case] = []
        for changed in variants(ops):
            try:
                candidate = with_ops(case, changed)
            except UnmaskError:
                continue
            if not _legal(candidate, machine):
                continue
            batch.append(candidate)
            if len(batch) == _AT_ONCE:
                if (found := _first(batch, fails)) is not None:
                    return found
                batch = []
        if batch and (found := _first(batch, fails)) is not None:
            return found
    return None


def _first(batch: list[Case], fails: Fails) -> Case | None:
    return next((case for case, failing in zip(batch, fails(batch), strict=True) if failing), None)

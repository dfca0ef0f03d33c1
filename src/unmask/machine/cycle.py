"""The cycle reading: when every instruction of a program starts and ends, in one pass over the program and without any value.

The sequencer walks the program, one instruction per cycle (END takes none). A sequencer instruction waits for its semaphores; an engine
instruction is dispatched when its engine's queue has room, that is, when fewer than `queue_depth` dispatched instructions have not
started. An engine starts its instructions in order, the cycle after dispatch at the earliest, when it is ready and has a token of every
semaphore that the instruction waits for. Load and store are pipelined: ready again after the occupancy of the previous instruction. Matrix
and vector drain: ready again when the previous instruction has ended. An instruction ends after its occupancy and latency and never before
its predecessor on the engine; it gives its tokens when it ends.

Each semaphore has one engine that signals it and one that waits for it, both in order, so the j-th wait takes the j-th token; and a wait is
served by an earlier instruction in program order. That makes a single pass exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from unmask.errors import UnmaskError
from unmask.isa.encoding import Op, check_loops
from unmask.isa.program import Program
from unmask.isa.table import NO_SEMAPHORE, Engine
from unmask.machine.config import Machine
from unmask.machine.costs import cost_of

I64 = NDArray[np.int64]

PIPELINED = (Engine.LOAD, Engine.STORE)
MAX_TOKENS = 2**16 - 1
"""A semaphore is a 16-bit counter."""

_PLAIN, _LOOP, _END, _SEM_SET, _HALT = range(5)
_FLOW = {"LOOP": _LOOP, "END": _END, "SEM_SET": _SEM_SET, "HALT": _HALT}
# Columns of the static program that the kernel reads.
_KIND, _ENGINE, _OCCUPANCY, _LATENCY, _WAIT0, _WAIT1, _SIGNAL0, _SIGNAL1, _TARGET, _VALUE, _PHASE, _BYTES = range(12)
_OK, _DEADLOCK, _RESET, _OVERFLOW = range(4)
_ERRORS = {
    _DEADLOCK: "waits for semaphore {}, which no earlier instruction signals: deadlock",
    _RESET: "sets semaphore {} while tokens or waits of it are outstanding",
    _OVERFLOW: f"semaphore {{}} may exceed {MAX_TOKENS} tokens",
}


@dataclass(frozen=True)
class Trace:
    """One entry per executed instruction, in program order, int64: its index in the program, engine, start and end cycle.

    `start` of an engine instruction is when the engine starts it, not when the sequencer dispatches it.
    """

    pc: I64
    engine: I64
    start: I64
    end: I64


@dataclass(frozen=True)
class Timing:
    """Times of a program, in cycles of the machine's clock. Engines are named in lower case.

    Attributes:
        cycles: from the first instruction to the end of the last.
        busy: per engine; occupancy of the load and store engines, occupancy and latency of those that drain, cycles in which the
            sequencer executes or dispatches.
        phases: per phase of the program: by how much its instructions move the latest end so far. Sums to `cycles`.
        instructions: executed, per engine.
        hbm_bytes: moved by "load" and by "store".
        trace: when asked for.
    """

    cycles: int
    busy: dict[str, int]
    phases: dict[str, int]
    instructions: dict[str, int]
    hbm_bytes: dict[str, int]
    trace: Trace | None = None


def engine_of(op: Op) -> Engine:
    """The engine that runs an instruction.

    Raises:
        UnmaskError: a SYNC of an engine that there is not.
    """
    if op.name != "SYNC":
        return op.row.engine
    number = int(op.operands["engine"])
    if number >= len(Engine):
        raise UnmaskError(f"SYNC: engine {number}: expected one of {', '.join(f'{e.value} ({e.name.lower()})' for e in Engine)}")
    return Engine(number)


def check_semaphores(ops: Sequence[Op]) -> None:
    """Check that each semaphore is signalled by one engine and waited for by one; SEM_SET counts as neither.

    Raises:
        UnmaskError: names the instruction, the semaphore and the two engines.
    """
    users: dict[tuple[str, int], Engine] = {}
    for index, op in enumerate(ops):
        for what, names in (("signalled", op.signal), ("waited for", op.wait)):
            for name in names:
                engine = engine_of(op)
                first = users.setdefault((what, name), engine)
                if first is not engine:
                    both = f"{first.name.lower()} and {engine.name.lower()}"
                    raise UnmaskError(f"instruction {index}: semaphore {name} is {what} by two engines, {both}: expected one")


def check_depth(ops: Sequence[Op], machine: Machine) -> None:
    """Check that loops nest no deeper than the machine's sequencer allows.

    Raises:
        UnmaskError: names the instruction.
    """
    depth = 0
    for index, op in enumerate(ops):
        depth += (op.name == "LOOP") - (op.name == "END")
        if depth > machine.sequencer.loop_depth:
            allowed = machine.sequencer.loop_depth
            raise UnmaskError(f"instruction {index}: {depth} nested loops; machine {machine.name} allows {allowed} (sequencer.loop_depth)")


def _static(ops: list[Op], phases: list[int], machine: Machine) -> I64:
    """The kernel's view of a program, int64 [instructions, 12]."""
    ends = check_loops(ops)
    starts = {end: start for start, end in ends.items()}
    table = np.empty((len(ops), 12), np.int64)
    for index, op in enumerate(ops):
        try:
            cycles, engine = cost_of(op, machine), engine_of(op)
        except UnmaskError as error:
            raise UnmaskError(f"instruction {index}: {error}") from None
        semaphores = [*(*op.wait, NO_SEMAPHORE, NO_SEMAPHORE)[:2], *(*op.signal, NO_SEMAPHORE, NO_SEMAPHORE)[:2]]
        target, value = starts.get(index, 0), 0
        if op.name == "LOOP":
            value = int(op.operands["count"])
        elif op.name == "SEM_SET":
            target, value = int(op.operands["semaphore"]), int(op.operands["value"])
        flow = _FLOW.get(op.name, _PLAIN)
        table[index] = (flow, engine, cycles.occupancy, cycles.latency, *semaphores, target, value, phases[index], cycles.hbm_bytes)
    return table


@njit(cache=True)
def _grow(rings: I64, taken: I64, given: I64) -> I64:
    """Twice the room for tokens; every token keeps its number."""
    room = rings.shape[1]
    larger = np.empty((rings.shape[0], 2 * room), np.int64)
    for semaphore in range(rings.shape[0]):
        for token in range(taken[semaphore], given[semaphore]):
            larger[semaphore, token & (2 * room - 1)] = rings[semaphore, token & (room - 1)]
    return larger


@njit(cache=True)
def _walk(
    program: I64, depth: int, loop_depth: int, pipelined: NDArray[np.bool_], phases: I64, totals: I64, trace: I64
) -> tuple[int, int, int]:
    """Time a program.

    Args:
        program: `_static`'s table.
        phases: out, cycles by phase.
        totals: out, [4, engines]: busy cycles, instructions, HBM bytes; [3, 0] is the time.
        trace: out, [n, 4]; only the first n instructions are traced.

    Returns:
        Status, instruction, semaphore.
    """
    engines = pipelined.shape[0]
    now = 0  # the sequencer's next free cycle
    frontier = 0
    ready = np.zeros(engines, np.int64)
    last_end = np.zeros(engines, np.int64)
    queue = np.zeros((engines, depth), np.int64)  # start times of the latest `depth` instructions
    oldest = np.zeros(engines, np.int64)
    count = np.zeros(engines, np.int64)
    rings = np.zeros((NO_SEMAPHORE + 1, 64), np.int64)  # times at which tokens were given; the room is a power of two
    given = np.zeros(NO_SEMAPHORE + 1, np.int64)
    taken = np.zeros(NO_SEMAPHORE + 1, np.int64)
    last_take = np.zeros(NO_SEMAPHORE + 1, np.int64)
    left = np.zeros(loop_depth + 1, np.int64)
    level = 0
    executed = 0
    pc = 0
    while True:
        engine = program[pc, _ENGINE]
        kind = program[pc, _KIND]
        if engine == 0:
            start = now
        else:
            dispatch = max(now, queue[engine, oldest[engine]])
            now = dispatch + 1
            start = max(now, ready[engine])
        for slot in (_WAIT0, _WAIT1):
            semaphore = program[pc, slot]
            if semaphore != NO_SEMAPHORE:
                if taken[semaphore] == given[semaphore]:
                    return _DEADLOCK, pc, semaphore
                start = max(start, rings[semaphore, taken[semaphore] & (rings.shape[1] - 1)])
                taken[semaphore] += 1
        for slot in (_WAIT0, _WAIT1):
            if program[pc, slot] != NO_SEMAPHORE:
                last_take[program[pc, slot]] = start
        if engine == 0:
            end = start + program[pc, _OCCUPANCY]
            now = end
            totals[0, 0] += program[pc, _OCCUPANCY]
        else:
            end = max(last_end[engine], start + program[pc, _OCCUPANCY] + program[pc, _LATENCY])
            last_end[engine] = end
            ready[engine] = start + program[pc, _OCCUPANCY] if pipelined[engine] else end
            queue[engine, oldest[engine]] = start
            oldest[engine] = (oldest[engine] + 1) if oldest[engine] + 1 < depth else 0
            totals[0, engine] += program[pc, _OCCUPANCY] if pipelined[engine] else end - start
            totals[0, 0] += 1
            totals[2, engine] += program[pc, _BYTES]
        count[engine] += 1
        if kind == _SEM_SET:
            semaphore = program[pc, _TARGET]
            if taken[semaphore] != given[semaphore] or last_take[semaphore] > start:
                return _RESET, pc, semaphore
            while program[pc, _VALUE] > rings.shape[1]:
                rings = _grow(rings, taken, given)
            for _ in range(program[pc, _VALUE]):
                rings[semaphore, given[semaphore] & (rings.shape[1] - 1)] = end
                given[semaphore] += 1
        for slot in (_SIGNAL0, _SIGNAL1):
            semaphore = program[pc, slot]
            if semaphore != NO_SEMAPHORE:
                if given[semaphore] - taken[semaphore] == MAX_TOKENS:
                    return _OVERFLOW, pc, semaphore
                if given[semaphore] - taken[semaphore] == rings.shape[1]:
                    rings = _grow(rings, taken, given)
                rings[semaphore, given[semaphore] & (rings.shape[1] - 1)] = end
                given[semaphore] += 1
        if end > frontier:
            phases[program[pc, _PHASE]] += end - frontier
            frontier = end
        if executed < trace.shape[0]:
            trace[executed, 0] = pc
            trace[executed, 1] = engine
            trace[executed, 2] = start
            trace[executed, 3] = end
        executed += 1
        if kind == _HALT:
            break
        if kind == _LOOP:
            left[level] = program[pc, _VALUE]
            level += 1
        elif kind == _END:
            left[level - 1] -= 1
            if left[level - 1] > 0:
                pc = program[pc, _TARGET]
            else:
                level -= 1
        pc += 1
    totals[1] = count
    totals[3, 0] = frontier
    return _OK, 0, 0


def _run(static: I64, machine: Machine, names: list[str], traced: int) -> tuple[I64, I64, I64]:
    """Cycles by phase, totals and trace of `_walk`; its errors as exceptions."""
    phases, totals, trace = np.zeros(len(names), np.int64), np.zeros((4, len(Engine)), np.int64), np.zeros((traced, 4), np.int64)
    pipelined = np.array([engine in PIPELINED for engine in Engine])
    sequencer = machine.sequencer
    status, pc, semaphore = _walk(static, sequencer.queue_depth, sequencer.loop_depth, pipelined, phases, totals, trace)
    if status != _OK:
        raise UnmaskError(f"instruction {pc}: {_ERRORS[status].format(semaphore)}")
    return phases, totals, trace


def time_program(program: Program, machine: Machine, *, trace: bool = False) -> Timing:
    """When a program's instructions start and end on a machine.

    Args:
        program: its data is not read: time does not depend on values.
        machine: need not be the one the program was compiled for, if its formats are the same.
        trace: also return every executed instruction's start and end; 32 bytes each.

    Raises:
        UnmaskError: a deadlock, a semaphore with two signallers or waiters, loops nested too deeply, an instruction without a cost; names
            the instruction.
    """
    ops = program.ops
    check_semaphores(ops)
    check_depth(ops, machine)
    names = list(dict.fromkeys(program.phases))
    number = {name: index for index, name in enumerate(names)}
    static = _static(ops, [number[phase] for phase in program.phases], machine)
    phases, totals, entries = _run(static, machine, names, 0)
    if trace:
        entries = _run(static, machine, names, int(totals[1].sum()))[2]
    busy, instructions, moved, (cycles, *_) = totals.tolist()
    labels = [engine.name.lower() for engine in Engine]
    return Timing(
        cycles=cycles,
        busy=dict(zip(labels, busy, strict=True)),
        phases={name: int(phases[number[name]]) for name in names},
        instructions=dict(zip(labels, instructions, strict=True)),
        hbm_bytes={label: moved[engine] for engine, label in enumerate(labels) if engine in PIPELINED},
        trace=Trace(*np.ascontiguousarray(entries.T)) if trace else None,
    )

"""The cycle reading: when every instruction of a program starts and ends, without any value but the addresses.

The sequencer walks the program, one instruction per cycle. A sequencer instruction waits for its semaphores; an engine
instruction is dispatched when its engine's queue has room, that is, when fewer than `queue_depth` dispatched instructions have not started.
An engine starts its instructions in order, `dispatch_latency` cycles after dispatch at the earliest, when it is ready and has a token of
every semaphore that the instruction waits for. Load, store and matrix are pipelined: ready again after the occupancy of the previous
instruction, and after a transposed product a gap later for anything but another one (`unmask.machine.costs.Cycles`). The vector engine
drains: ready again when the previous instruction has ended. An instruction ends after its occupancy and latency and never before its
predecessor on the engine, on a pipelined one a cycle later at least; it gives its tokens when it ends.

Each semaphore has one engine that signals it and one that waits for it, both in order, so the j-th wait takes the j-th token; and a wait is
served by an earlier instruction in program order. What an instruction waits for is therefore known when it is dispatched, and engines may
be advanced in any order; only DMA instructions meet in the memory (`unmask.machine.dram`) and are taken in the order in which they start.
`unmask.machine.dma` says which ranges of bytes they ask for. Where an on-chip memory has fewer ports than engines (`unmask.machine.ports`),
all engines are taken in the order in which they start.

The sequencer's arithmetic is executed, for addresses. L_GATHER reads rows that values choose: unless they are given, it is timed with rows
spread over the table by a hash of the position in the integer SRAM. It matters before DRAM, and to rows that do not begin at whole beats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unmask.errors import UnmaskError
from unmask.isa.encoding import Op, check_loops
from unmask.isa.program import Program
from unmask.isa.table import NO_SEMAPHORE, Engine
from unmask.machine import _kernels as kernels
from unmask.machine.config import Machine
from unmask.machine.costs import cost_of
from unmask.machine.dma import is_dma, transfer_of
from unmask.machine.dram import parameters_of
from unmask.machine.loops import skippable
from unmask.machine.ports import touches

I64 = NDArray[np.int64]

PIPELINED = (Engine.LOAD, Engine.STORE, Engine.MATRIX)
"""Engines that start an instruction before the one before it has ended."""
MOVERS = (Engine.LOAD, Engine.STORE)
"""Engines that move bytes from or to HBM."""
_FLOW = {name: getattr(kernels, name) for name in ("LOOP", "END", "SEM_SET", "HALT", "S_LI", "S_ADDI", "S_ADD", "S_MULI", "S_XORI", "S_LD")}
_REGISTERS = {"rd": kernels.RD, "rs": kernels.RS, "rt": kernels.RT, "a": kernels.RS}
_ROOM = 256
"""Tokens that a semaphore may have outstanding before the walk starts again with more room."""
_ERRORS = {
    kernels.DEADLOCK: "waits for semaphore {}, which no earlier instruction signals: deadlock",
    kernels.RESET: "sets semaphore {} while tokens or waits of it are outstanding",
    kernels.UNGATHERED: "chooses rows that are not among those given",
    kernels.OVERFLOW: f"semaphore {{}} may exceed {kernels.MAX_TOKENS} tokens",
}


@dataclass(frozen=True)
class Trace:
    """One entry per executed instruction, in program order, int64: its index in the program, engine, start and end cycle.

    `start` of an engine instruction is when the engine starts it, not when the sequencer dispatches it. `ready` is the cycle from which its
    engine takes the next one, but for a gap: before `end` on pipelined engines. `hbm_bytes` are those it moves.
    """

    pc: I64
    engine: I64
    start: I64
    end: I64
    ready: I64
    hbm_bytes: I64


@dataclass(frozen=True)
class Timing:
    """Times of a program, in cycles of the machine's clock. Engines are named in lower case.

    Attributes:
        cycles: from the first instruction to the end of the last.
        busy: per engine; occupancy of the load and store engines, occupancy and latency of those that drain, cycles in which the
            sequencer executes or dispatches.
        phases: per phase of the program: by how much its instructions move the latest end so far. Sums to `cycles`.
        instructions: executed, per engine.
        hbm_bytes: moved by "load" and by "store": whole beats, or whole bursts of DRAM.
        skipped: instructions that were counted, but not walked.
        trace: when asked for.
    """

    cycles: int
    busy: dict[str, int]
    phases: dict[str, int]
    instructions: dict[str, int]
    hbm_bytes: dict[str, int]
    skipped: int = 0
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


def check_length(ops: Sequence[Op], machine: Machine) -> None:
    """Check that the machine's instruction memory holds an entry of a program.

    Raises:
        UnmaskError: names both sizes.
    """
    words = machine.sequencer.program_words
    if len(ops) > words:
        raise UnmaskError(f"the program has {len(ops)} instructions; machine {machine.name} holds {words} (sequencer.program_words)")


def _static(ops: list[Op], phases: list[int], machine: Machine, skip: bool) -> I64:
    """The kernel's view of a program, int64 [instructions, COLUMNS]."""
    ends = check_loops(ops)
    starts = {end: start for start, end in ends.items()}
    table = np.zeros((len(ops), kernels.COLUMNS), np.int64)
    for index, (op, row) in enumerate(zip(ops, table, strict=True)):
        row[kernels.KIND] = _FLOW.get(op.name, kernels.PLAIN)
        row[kernels.PHASE] = phases[index]
        try:
            row[kernels.ENGINE] = engine_of(op)
            row[kernels.TOUCHES] = 0 if op.row.engine is Engine.SEQUENCER else touches(op, machine)
            if is_dma(op):
                row[kernels.ADDRESS0 : kernels.LEAD + 1] = transfer_of(op, machine)
            else:
                row[[kernels.OCCUPANCY, kernels.LATENT, kernels.GAP]] = cost_of(op, machine)
        except UnmaskError as error:
            raise UnmaskError(f"instruction {index}: {error}") from None
        for column, semaphores in ((kernels.WAIT0, op.wait), (kernels.SIGNAL0, op.signal)):
            row[column : column + 2] = (*semaphores, NO_SEMAPHORE, NO_SEMAPHORE)[:2]
        if op.name == "LOOP":
            row[kernels.VALUE] = op.operands["count"]
        elif op.name == "END":
            row[kernels.TARGET] = starts[index]
        elif op.name == "SEM_SET":
            row[kernels.TARGET], row[kernels.VALUE] = op.operands["semaphore"], op.operands["value"]
        elif op.row.engine is Engine.SEQUENCER and row[kernels.KIND] != kernels.PLAIN:
            row[kernels.VALUE] = op.operands.get("value", 0)
            for name, column in _REGISTERS.items():
                if name in op.operands:
                    row[column] = op.operands[name]
    if skip:
        for end, registers in skippable(ops, ends, machine).items():
            table[end, kernels.SKIPS], table[end, kernels.NEEDS] = 1, registers
    return table


def _run(static: I64, machine: Machine, words: I64, gathered: I64, names: list[str], traced: int) -> tuple[I64, I64, I64, int]:
    """Cycles by phase, totals, trace and the number of skipped instructions of `walk`; its errors as exceptions."""
    pipelined = np.array([engine in PIPELINED for engine in Engine])
    sequencer, memory = machine.sequencer, parameters_of(machine)
    ports = np.array(list(machine.sram.scarce_ports.values()), np.int64)
    status, room = kernels.NO_ROOM, _ROOM
    while status == kernels.NO_ROOM:
        phases, totals, trace = np.zeros(len(names), np.int64), np.zeros((4, len(Engine)), np.int64), np.zeros((traced, 6), np.int64)
        skipped = np.zeros(1, np.int64)
        status, pc, semaphore = kernels.walk(
            static,
            sequencer.queue_depth,
            sequencer.dispatch_latency,
            sequencer.loop_depth,
            pipelined,
            memory,
            ports,
            words,
            gathered,
            room,
            phases,
            totals,
            trace,
            skipped,
        )
        room *= 4
    if status != kernels.OK:
        raise UnmaskError(f"instruction {pc}: {_ERRORS[status].format(semaphore)}")
    return phases, totals, trace, int(skipped[0])


def _words(parameters: Mapping[int, int]) -> I64:
    """The integer SRAM up to the last word that is given, int64."""
    words = np.zeros(max(parameters, default=-1) + 1, np.int64)
    for address, value in parameters.items():
        words[address] = value
    return words


def time_program(
    program: Program,
    machine: Machine,
    *,
    parameters: Mapping[int, int] | None = None,
    gathered: I64 | None = None,
    trace: bool | int = False,
    skip: bool = True,
) -> Timing:
    """When a program's instructions start and end on a machine.

    Args:
        program: its data is not read: time does not depend on values, but for the addresses made of `parameters`.
        machine: need not be the one the program was compiled for, if its formats are the same.
        parameters: what S_LD finds in the integer SRAM, signed words by address; 0 where nothing is given.
        gathered: the rows that L_GATHERs choose, int64, in the order of execution, as `State.gathered` has them; nothing is skipped then.
        trace: also return when every executed instruction, or the first so many of them, starts and ends; 48 bytes each.
        skip: add up the iterations of a loop that repeat (`unmask.machine.loops`) instead of walking them, which changes no figure; what is
            traced is walked.

    Raises:
        UnmaskError: a deadlock, a semaphore with two signallers or waiters, loops nested too deeply, an instruction without a cost; names
            the instruction.
    """
    ops = program.ops
    check_semaphores(ops)
    check_depth(ops, machine)
    check_length(ops, machine)
    names = list(dict.fromkeys(program.phases))
    number = {name: index for index, name in enumerate(names)}
    rows = np.zeros(0, np.int64) if gathered is None else np.ascontiguousarray(gathered, np.int64)
    static = _static(ops, [number[phase] for phase in program.phases], machine, skip and not rows.size)
    words = _words(parameters or {})
    phases, totals, entries, skipped = _run(static, machine, words, rows, names, 0 if trace is True else int(trace))
    executed = int(totals[1].sum())
    if trace is True:
        entries, skipped = _run(static, machine, words, rows, names, executed)[2:]
    busy, instructions, moved, (cycles, *_) = totals.tolist()
    labels = [engine.name.lower() for engine in Engine]
    return Timing(
        cycles=cycles,
        busy=dict(zip(labels, busy, strict=True)),
        phases={name: int(phases[number[name]]) for name in names},
        instructions=dict(zip(labels, instructions, strict=True)),
        hbm_bytes={label: moved[engine] for engine, label in enumerate(labels) if engine in MOVERS},
        skipped=skipped,
        trace=Trace(*np.ascontiguousarray(entries[:executed].T)) if trace else None,
    )

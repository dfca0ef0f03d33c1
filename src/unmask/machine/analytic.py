"""The analytic reading: how long a program takes, in closed form, without walking its iterations or serving its bursts.

A loop takes its first iterations, as many as the engines need to fall into step, and then a period for each of the others: without
addresses nothing else changes, so that this is exact. DRAM is a server that loads and stores share; how long a transfer holds it, and how
much later it ends, a sample on the memory's model says (`unmask.machine.analytic_memory`).

Counts of instructions, bytes asked for and, of the engines that drain, busy cycles are exact: they follow from operands and trip counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from unmask.errors import UnmaskError
from unmask.isa.encoding import Op
from unmask.isa.program import Program
from unmask.isa.table import INSTRUCTIONS, NO_SEMAPHORE, Cost, Engine
from unmask.machine import _analytic as kernels
from unmask.machine.analytic_memory import Pins, Place
from unmask.machine.config import Machine
from unmask.machine.costs import cost_of, operations_of
from unmask.machine.cycle import PIPELINED, Timing, check_depth, check_semaphores, engine_of
from unmask.machine.ports import require_all_ports

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

_FLOW: dict[str, int] = {
    name: getattr(kernels, name) for name in ("LOOP", "END", "SEM_SET", "HALT", "S_LI", "S_ADDI", "S_ADD", "S_MULI", "S_XORI", "S_LD")
}
_TRANSFERS = frozenset(row.name for row in INSTRUCTIONS if row.cost in (Cost.DMA, Cost.GATHER))
_NONE = (NO_SEMAPHORE, NO_SEMAPHORE)
_ROOM = 64
"""Tokens that a semaphore may have outstanding before the walk starts again with more room."""
_ERRORS = {
    kernels.DEADLOCK: "waits for semaphore {}, which no earlier instruction signals: deadlock",
    kernels.RESET: "sets semaphore {} while tokens or waits of it are outstanding",
    kernels.OVERFLOW: f"semaphore {{}} may exceed {kernels.MAX_TOKENS} tokens",
}


@dataclass(frozen=True)
class Listing:
    """A program in numbers, one entry per instruction.

    Attributes:
        table: int64 [instructions, COLUMNS], what the walk reads.
        repeats: int64, how often it runs: the product of the trip counts around it.
        moved: float64, bytes of HBM that it moves each time, on average over its addresses.
        asked: int64, bytes of HBM that it names each time.
        classes: int64, number of its cost class.
        operations: int64, each time: of the matrix engine a multiplication and an addition for every product; of the vector engine one for
            every element.
        phases: names, by their number in the table.
    """

    table: I64
    repeats: I64
    moved: F64
    asked: I64
    classes: I64
    operations: I64
    phases: tuple[str, ...]

    @property
    def phase_numbers(self) -> I64:
        """Place in `phases` of each instruction's phase."""
        return self.table[:, kernels.PHASE]

    @property
    def engines(self) -> I64:
        """Number of the engine that runs each instruction."""
        return self.table[:, kernels.ENGINE]

    @property
    def busy(self) -> I64:
        """Cycles for which each instruction keeps its engine each time; 0 of load and store, whose time the memory decides."""
        whole = self.table[:, kernels.OCCUPANCY] + self.table[:, kernels.LATENT]
        return np.where((self.engines == Engine.LOAD) | (self.engines == Engine.STORE), 0, whole)


def _rows(ops: Sequence[Op], numbers: Sequence[int], machine: Machine) -> tuple[list[int], list[int], list[int]]:
    """The table, row after row, but for what transfers take; cost classes; operations."""
    table: list[int] = []
    classes: list[int] = []
    operations: list[int] = []
    starts: list[int] = []
    known: dict[str, tuple[int, int]] = {}
    for index, (op, phase) in enumerate(zip(ops, numbers, strict=True)):
        name, operands = op.name, cast(Mapping[str, int], op.operands)  # those read here are integers
        kind, engine = _FLOW.get(name, kernels.PLAIN), 0
        target = value = rd = rs = rt = done = 0
        address, scales, cost, cycles = -1, 0, Cost.SEQUENCER, (0, 0)
        try:
            if kind != kernels.PLAIN:
                if name not in known:
                    known[name] = cost_of(op, machine)
                cycles = known[name]
            elif name in _TRANSFERS:
                engine, cost = op.row.engine, op.row.cost
                address = operands["table"] if name == "L_GATHER" else operands["dst" if engine is Engine.STORE else "src"]
                scales = operands["ids"] if name == "L_GATHER" else operands.get("scales", 0)
            else:
                engine, cost, done = engine_of(op), op.row.cost, operations_of(op)
                cycles = cost_of(op, machine)
        except UnmaskError as error:
            raise UnmaskError(f"instruction {index}: {error}") from None
        if kind >= kernels.S_LI:
            rd, rs, rt, value = operands["rd"], operands.get("rs", operands.get("a", 0)), operands.get("rt", 0), operands.get("value", 0)
        elif kind == kernels.LOOP:
            value = operands["count"]
            starts.append(index)
        elif kind == kernels.END:
            target = starts.pop()
        elif kind == kernels.SEM_SET:
            target, value = operands["semaphore"], operands["value"]
        wait = (*op.wait, *_NONE)[:2] if op.wait else _NONE
        signal = (*op.signal, *_NONE)[:2] if op.signal else _NONE
        table += (kind, engine, phase, *wait, *signal, target, value, rd, rs, rt, address, scales, *cycles, 0, 0, 0)
        classes.append(cost)
        operations.append(done)
    return table, classes, operations


def _set_transfers(table: I64, ops: Sequence[Op], machine: Machine, words: I64) -> tuple[F64, I64]:
    """Put what transfers take into the table; bytes that they move and name."""
    pins, found = Pins(machine), np.zeros((len(ops), 4), np.int64)
    kernels.places(table, machine.sequencer.loop_depth, words, found)
    moved, asked = np.zeros(len(ops)), np.zeros(len(ops), np.int64)
    for index in np.flatnonzero(table[:, kernels.ADDRESS0] >= 0).tolist():
        try:
            t = pins.times(ops[index], Place(*found[index].tolist()))
        except UnmaskError as error:
            raise UnmaskError(f"instruction {index}: {error}") from None
        table[index, kernels.OCCUPANCY :] = t.asking, t.latency, t.service, t.window, t.density
        moved[index], asked[index] = t.moved, t.asked
    return moved, asked


def _repeats(table: I64) -> I64:
    """How often each instruction runs."""
    kinds, counts = table[:, kernels.KIND].tolist(), table[:, kernels.VALUE].tolist()
    repeats, stack = [], [1]
    for kind, count in zip(kinds, counts, strict=True):
        repeats.append(stack[-1])
        if kind == kernels.LOOP:
            stack.append(stack[-1] * count)
        elif kind == kernels.END:
            stack.pop()
    return np.array(repeats, np.int64)


def list_ops(ops: Sequence[Op], phases: Sequence[str], machine: Machine, parameters: Mapping[int, int] | None = None) -> Listing:
    """Instructions of one entry, with the phase of each, in numbers; `parameters` as of `analytic_time`.

    Raises:
        UnmaskError: an instruction without a cost; names it. An on-chip memory with fewer ports than engines; names the field.
    """
    require_all_ports(machine, "the analytic reading knows of no engine that waits for a port; the cycle reading does")
    names = tuple(dict.fromkeys(phases))
    number = {name: index for index, name in enumerate(names)}
    rows, classes, operations = _rows(ops, [number[phase] for phase in phases], machine)
    table = np.array(rows, np.int64).reshape(-1, kernels.COLUMNS)
    words = np.zeros(max(parameters or {}, default=-1) + 1, np.int64)
    for address, value in (parameters or {}).items():
        words[address] = value
    moved, asked = _set_transfers(table, ops, machine, words)
    return Listing(table, _repeats(table), moved, asked, np.array(classes), np.array(operations), names)


def time_listing(listing: Listing, machine: Machine) -> Timing:
    """When a listed program ends on the machine that it was listed for.

    Raises:
        UnmaskError: a deadlock; names the instruction.
    """
    pipelined = np.array([engine in PIPELINED for engine in Engine])
    table, sequencer = listing.table, machine.sequencer
    used = np.setdiff1d(table[:, kernels.WAIT0 : kernels.SIGNAL1 + 1], [NO_SEMAPHORE])
    status, room = kernels.NO_ROOM, _ROOM
    while status == kernels.NO_ROOM:
        phases, totals = np.zeros(len(listing.phases), np.int64), np.zeros((2, len(Engine)), np.int64)
        status, pc, semaphore = kernels.walk(table, sequencer.queue_depth, sequencer.loop_depth, pipelined, used, room, phases, totals)
        room *= 4
    if status != kernels.OK:
        raise UnmaskError(f"instruction {pc}: {_ERRORS[status].format(semaphore)}")
    labels = [engine.name.lower() for engine in Engine]
    engines = table[:, kernels.ENGINE]
    instructions = np.bincount(engines, listing.repeats, len(Engine))
    moved = np.bincount(engines, listing.repeats * listing.moved, len(Engine))
    return Timing(
        cycles=int(totals[1, 0]),
        busy=dict(zip(labels, totals[0].tolist(), strict=True)),
        phases=dict(zip(listing.phases, phases.tolist(), strict=True)),
        instructions=dict(zip(labels, map(int, instructions), strict=True)),
        hbm_bytes={label: round(moved[engine]) for engine, label in enumerate(labels) if engine in PIPELINED},
    )


def analytic_time(program: Program, machine: Machine, *, parameters: Mapping[int, int] | None = None) -> Timing:
    """How long a program takes on a machine, in closed form; within some percent of `time_program`.

    Args:
        program: of one entry; its data is not read.
        machine: need not be the one the program was compiled for, if its formats are the same.

    Raises:
        UnmaskError: a deadlock, a semaphore with two signallers or waiters, loops nested too deeply, an instruction without a cost; names
            the instruction.
    """
    ops = program.ops
    check_semaphores(ops)
    check_depth(ops, machine)
    return time_listing(list_ops(ops, program.phases, machine, parameters), machine)

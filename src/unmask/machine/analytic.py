"""The analytic reading: how long a program takes, in closed form, without walking its iterations or serving its bursts.

A loop takes its first iterations, as many as the engines need to fall into step, and then a period for each of the others: without
addresses nothing else changes, so that this is exact. DRAM is a server that loads and stores share; how long a transfer holds it, and how
much later it ends, a sample on the memory's model says (`unmask.machine.analytic_memory`).

Counts of instructions, bytes asked for and, of the engines that drain, busy cycles are exact: they follow from operands and trip counts.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from unmask.errors import UnmaskError
from unmask.isa.program import Program
from unmask.isa.table import Engine
from unmask.machine import _analytic as kernels
from unmask.machine.analytic_listing import Listing, list_skeleton, skeleton_of
from unmask.machine.config import Machine
from unmask.machine.cycle import MOVERS, PIPELINED, Timing, check_depth, check_semaphores
from unmask.machine.ports import require_all_ports

I64 = NDArray[np.int64]

_ROOM = 64
"""Tokens that a semaphore may have outstanding before the walk starts again with more room."""
_ERRORS = {
    kernels.DEADLOCK: "waits for semaphore {}, which no earlier instruction signals: deadlock",
    kernels.RESET: "sets semaphore {} while tokens or waits of it are outstanding",
    kernels.OVERFLOW: f"semaphore {{}} may exceed {kernels.MAX_TOKENS} tokens",
}
_PIPELINED = np.array([engine in PIPELINED for engine in Engine])
_LABELS = tuple(engine.name.lower() for engine in Engine)


def time_listing(listing: Listing, machine: Machine) -> Timing:
    """When a listed program ends on the machine that it was listed for.

    Raises:
        UnmaskError: a deadlock; names the instruction. An on-chip memory with fewer ports than engines; names the field.
    """
    require_all_ports(machine, "the analytic reading knows of no engine that waits for a port; the cycle reading does")
    skeleton, sequencer = listing.skeleton, machine.sequencer
    status, room = kernels.NO_ROOM, _ROOM
    while status == kernels.NO_ROOM:
        phases, totals = np.zeros(len(skeleton.phases), np.int64), np.zeros((2, len(Engine)), np.int64)
        status, pc, semaphore = kernels.walk(
            listing.table,
            sequencer.queue_depth,
            sequencer.dispatch_latency,
            sequencer.loop_depth,
            _PIPELINED,
            skeleton.semaphores,
            room,
            phases,
            totals,
        )
        room *= 4
    if status != kernels.OK:
        raise UnmaskError(f"instruction {pc}: {_ERRORS[status].format(semaphore)}")
    instructions = np.bincount(skeleton.engines, skeleton.repeats, len(Engine))
    moved = np.bincount(skeleton.engines, skeleton.repeats * listing.moved, len(Engine))
    return Timing(
        cycles=int(totals[1, 0]),
        busy=dict(zip(_LABELS, totals[0].tolist(), strict=True)),
        phases=dict(zip(skeleton.phases, phases.tolist(), strict=True)),
        instructions=dict(zip(_LABELS, map(int, instructions), strict=True)),
        hbm_bytes={_LABELS[engine]: round(moved[engine]) for engine in MOVERS},
    )


def analytic_time(program: Program, machine: Machine, *, parameters: Mapping[int, int] | None = None) -> Timing:
    """How long a program takes on a machine, in closed form; within some percent of `time_program`.

    Args:
        program: of one entry; its data is not read.
        machine: need not be the one the program was compiled for, if its formats are the same.
        parameters: as of `time_program`.

    Raises:
        UnmaskError: a deadlock, a semaphore with two signallers or waiters, loops nested too deeply, an instruction without a cost; names
            the instruction. An on-chip memory with fewer ports than engines; names the field.
    """
    ops = program.ops
    check_semaphores(ops)
    check_depth(ops, machine)
    return time_listing(list_skeleton(skeleton_of(ops, program.phases, machine), machine, parameters), machine)

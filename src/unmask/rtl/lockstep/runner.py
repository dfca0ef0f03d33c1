"""Programs on a built engine, one after the other, and what they log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.errors import UnmaskError
from unmask.isa.program import Program
from unmask.isa.table import Engine
from unmask.machine.config import Machine
from unmask.machine.memory import Dram
from unmask.rtl.lockstep.bench import STATUS, STRAY, Bench, Delays, Outcome
from unmask.rtl.lockstep.build import harness
from unmask.rtl.lockstep.dram import DramServer
from unmask.rtl.lockstep.reference import Space


@dataclass(frozen=True)
class Job:
    """A program for the harness.

    Attributes:
        words: uint64 [instructions, 2].
        memory: what HBM holds, uint8; its size is that of the memory.
        timeout: cycles after which the engine is given up.
        errors: a range of bytes whose beats have an error response.
        fresh: start from a reset engine with empty memories, not from where the last program left it.
        stalls: a memory of random latency that is not always ready.
    """

    words: NDArray[np.uint64]
    memory: NDArray[np.uint8]
    timeout: int
    errors: tuple[int, int] = (0, 0)
    fresh: bool = False
    stalls: bool = False


def delays_of(machine: Machine) -> Delays:
    """Of a machine's memory, as the test bench needs them; of DRAM they are the least.

    Raises:
        UnmaskError: the memory is faster than the engines' own pipelines.
    """
    from unmask.rtl.load import LOAD_OVERHEAD
    from unmask.rtl.store import STORE_OVERHEAD

    found = Delays(machine.hbm.latency - LOAD_OVERHEAD, machine.hbm.latency - STORE_OVERHEAD)
    if min(found) < 1:
        least = max(LOAD_OVERHEAD, STORE_OVERHEAD) + 1
        raise UnmaskError(f"machine {machine.name}: hbm.latency {machine.hbm.latency}: expected at least {least}")
    return found


def execute(library: Path, jobs: Sequence[Job], machine: Machine, seed: int = 0) -> NDArray[Any]:
    """Run jobs one after the other on one engine.

    Args:
        library: of `unmask.rtl.lockstep.build.harness`.
        machine: what it was built for.
        seed: of stalls.

    Returns:
        The log, an array of `unmask.rtl.lockstep.bench.RECORD`, in order of program and cycle; each program's ends with its `STATUS`:
        cycles, how it ended, code and pc of the fault in the places of cycle, engine, address and value.

    Raises:
        UnmaskError: the engine cannot be loaded, or asks for a burst of DRAM that, or when, it should not.
    """
    memory = DramServer(machine) if isinstance(machine.hbm, Dram) else None
    logs = []
    with Bench(library, delays_of(machine), seed, memory) as bench:
        for number, job in enumerate(jobs):
            if job.fresh:
                bench.reset()
            if memory is not None:
                memory.begin(job.words)
            bench.load(job.words)
            content = job.memory.copy()
            bench.attach(content, job.errors, job.stalls)
            outcome = bench.run(number, record=True, timeout=job.timeout)
            log = bench.take_log()
            if (log["kind"] == STRAY).any():
                first = log[log["kind"] == STRAY][0]
                what = f"{'load' if first['engine'] == Engine.LOAD else 'store'} engine asks for address {first['address']}"
                raise UnmaskError(f"program {number}: the {what} in cycle {first['cycle']}; the memory's model expects something else")
            end = np.zeros(1, log.dtype)
            end[0] = (number, STATUS, outcome.status, outcome.cycles, outcome.code, outcome.pc)
            logs += [log, end]
    return np.concatenate(logs)


def outcomes(log: NDArray[Any], count: int) -> list[Outcome]:
    """How each program of a log ended."""
    found = log[log["kind"] == STATUS]
    if len(found) != count:
        raise UnmaskError(f"the log tells of {len(found)} programs: expected {count}")
    return [Outcome(int(r["engine"]), int(r["address"]), int(r["value"]), int(r["cycle"])) for r in found]


@dataclass(frozen=True)
class Simulation:
    """What the RTL left of one program.

    Attributes:
        outcome: how it ended.
        hbm: uint8; vector: uint16 BF16 bits; floats: uint32 bits; integers: int32. SRAM locations that it did not write are 0.
        log: array of `RECORD`.
    """

    outcome: Outcome
    hbm: NDArray[np.uint8]
    vector: NDArray[np.uint16]
    floats: NDArray[np.uint32]
    integers: NDArray[np.int32]
    log: NDArray[Any]


def simulate(
    program: Program, machine: Machine, unit: str = "sampler", *, hbm: NDArray[np.uint8] | None = None, timeout: int = 1 << 28
) -> Simulation:
    """Run one program on the RTL, from reset.

    Args:
        program: of one entry; see `Program.entry`.
        machine: what the hardware is built for.
        hbm: content of the memory; by default the program's own.
        timeout: cycles.

    Raises:
        UnmaskError: the hardware cannot be built, or the test bench fails.
    """
    memory = program.image() if hbm is None else hbm
    job = Job(program.words, memory, timeout, fresh=True)
    log = execute(harness(machine, unit), [job], machine)

    def final(space: Space, start: NDArray[Any]) -> NDArray[Any]:
        writes = log[log["kind"] == space]
        # Later records come later; of equal indices numpy keeps the last.
        start[writes["address"].astype(np.int64)] = writes["value"].astype(np.uint64).astype(start.dtype)
        return start

    return Simulation(
        outcomes(log, 1)[0],
        final(Space.HBM, memory.copy()),
        final(Space.VECTOR, np.zeros(machine.vector_elements, np.uint16)),
        final(Space.FLOAT, np.zeros(machine.sram.float_words, np.uint32)),
        final(Space.INTEGER, np.zeros(machine.sram.integer_words, np.uint32)).view(np.int32),
        log,
    )

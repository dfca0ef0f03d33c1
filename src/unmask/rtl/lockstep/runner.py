"""Batches of programs through the harness, and what it logs."""

from __future__ import annotations

import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.errors import UnmaskError
from unmask.isa.program import Program
from unmask.machine.config import Machine
from unmask.machine.memory import Ideal
from unmask.rtl.lockstep.build import harness
from unmask.rtl.lockstep.reference import Space

RECORD = np.dtype(
    [("program", "<u4"), ("kind", "<u2"), ("engine", "<u2"), ("cycle", "<i8"), ("address", "<u8"), ("value", "<u8")], align=False
)
START, RETIRE, STATUS = 16, 17, 20
"""Kinds of records above those of `Space`, which are writes."""
DONE, FAULT, TIMEOUT = 1, 2, 3
_MAGIC = 0x4C4B5354
_FRESH, _STALLS = 1, 2


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


@dataclass(frozen=True)
class Outcome:
    """How a program ended: `DONE`, `FAULT` or `TIMEOUT`; what the status, fault and cycle registers say."""

    status: int
    code: int
    pc: int
    cycles: int


def image(program: Program) -> NDArray[np.uint8]:
    """What HBM holds when a program starts."""
    memory = np.zeros(program.hbm_bytes, np.uint8)
    for name, content in program.data.items():
        start = program.regions[name].address
        memory[start : start + content.size] = content.reshape(-1)
    return memory


def _batch(jobs: Sequence[Job], delays: tuple[int, int], seed: int) -> bytes:
    parts = [struct.pack("<IIiiQ", _MAGIC, len(jobs), *delays, seed)]
    for job in jobs:
        flags = _FRESH * job.fresh | _STALLS * job.stalls
        parts.append(struct.pack("<IIQQQQ", len(job.words), flags, job.memory.size, job.timeout, *job.errors))
        parts.append(np.ascontiguousarray(job.words, "<u8").tobytes())
        parts.append(np.ascontiguousarray(job.memory).tobytes())
    return b"".join(parts)


def delays_of(machine: Machine) -> tuple[int, int]:
    """Cycles from a request of the load engine to its first beat, and from the last beat of a write to its response.

    Raises:
        UnmaskError: the machine's memory is not ideal, or faster than the engines' own pipelines.
    """
    from unmask.rtl.load import LOAD_OVERHEAD
    from unmask.rtl.store import STORE_OVERHEAD

    if not isinstance(machine.hbm, Ideal):
        raise UnmaskError(f"machine {machine.name} has DRAM: the test bench knows the ideal memory only")
    found = machine.hbm.latency - LOAD_OVERHEAD, machine.hbm.latency - STORE_OVERHEAD
    if min(found) < 1:
        least = max(LOAD_OVERHEAD, STORE_OVERHEAD) + 1
        raise UnmaskError(f"machine {machine.name}: hbm.latency {machine.hbm.latency}: expected at least {least}")
    return found


def execute(program: Path, jobs: Sequence[Job], delays: tuple[int, int], seed: int = 0) -> NDArray[Any]:
    """Run jobs one after the other in one process.

    Args:
        program: of `unmask.rtl.lockstep.build.harness`.
        delays: of `delays_of`.
        seed: of stalls.

    Returns:
        The log, an array of `RECORD`, in order of program and cycle.

    Raises:
        UnmaskError: the harness fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        batch, log = Path(folder) / "batch", Path(folder) / "log"
        batch.write_bytes(_batch(jobs, delays, seed))
        done = subprocess.run([str(program), str(batch), str(log)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise UnmaskError(f"the harness ended with status {done.returncode}: {' '.join(done.stderr.split())}")
        return np.fromfile(log, RECORD)


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
    """Run one program on the RTL, from reset, with the ideal memory.

    Args:
        program: of one entry; see `Program.entry`.
        machine: what the hardware is built for.
        hbm: content of the memory; by default the program's own.
        timeout: cycles.

    Raises:
        UnmaskError: the hardware cannot be built, or the test bench fails.
    """
    memory = image(program) if hbm is None else hbm
    job = Job(program.words, memory, timeout, fresh=True)
    log = execute(harness(machine, unit), [job], delays_of(machine))

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

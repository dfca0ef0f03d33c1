"""What the sampling of a step costs on a machine, as figures with stable names."""

from __future__ import annotations

from typing import Any

from unmask.compiler.sampling.streamed import SamplingProgram, sampling_named
from unmask.compiler.sampling.workload import Workload, breakdown, head_program, sampling_program
from unmask.isa.table import BF16_BYTES, INT32_BYTES
from unmask.machine.config import Machine
from unmask.machine.cycle import time_program

_WORD_BYTES = {"vector": ("vector_elements", BF16_BYTES), "float": ("float_words", 4), "integer": ("integer_words", INT32_BYTES)}


def measure(w: Workload, machine: Machine, name: str, chunk: int | None = None, *, skip: bool = True) -> dict[str, Any]:
    """Time a sampling program.

    Args:
        name: of the program; "fused" is timed with the LM head before it.
        chunk: logits of a buffer of "four-phase".
        skip: as of `unmask.machine.cycle.time_program`; no figure depends on it.

    Returns:
        `cycles`, `ms`, `breakdown` (cycles by part, see `unmask.compiler.sampling.workload.breakdown`), `hbm_bytes` moved in all,
        `hbm_bytes_by_engine`, `bound_ms` (the logits, or for "fused" the head's weights, moved once at the memory's data-sheet bandwidth),
        `sram_bytes`, and what was timed. For "fused" also `lm_head_cycles`, the LM head alone with logits to HBM, and `added`, the fraction
        by which sampling exceeds it.

    Raises:
        UnmaskError: no such program, a chunk that does not fit, or a machine that cannot hold a tile.
    """
    sampling = sampling_named(name)
    program = sampling_program(w, machine, sampling, chunk)
    timing = time_program(program, machine, trace=True, skip=skip)
    moved = _least_bytes(w, machine, sampling)
    parts = {part: cycles for part, cycles in breakdown(program, timing).items() if cycles or part != "matrix"}
    found: dict[str, Any] = {
        "program": sampling,
        "machine": machine.name,
        "clock_ghz": machine.clock_ghz,
        "batch": w.batch,
        "block": w.block,
        "vocabulary": w.vocabulary,
        "temperature": w.temperature,
        "chunk": chunk,
        "logits": "bf16" if sampling == "fused" else machine.formats.logits,
        "cycles": timing.cycles,
        "ms": _milliseconds(timing.cycles, machine),
        "breakdown": parts,
        "cycles_by_phase": timing.phases,
        "hbm_bytes": sum(timing.hbm_bytes.values()),
        "hbm_bytes_by_engine": timing.hbm_bytes,
        "bound_ms": moved / machine.memory_gbps / 1e6,
        "sram_bytes": {memory: program.about["sram_high_water"][key] * size for memory, (key, size) in _WORD_BYTES.items()},
        "instructions": len(program.words),
    }
    if sampling == "fused":
        alone = time_program(head_program(w, machine), machine, skip=skip).cycles
        found |= {"width": w.width, "weights": machine.formats.weights, "lm_head_cycles": alone, "added": timing.cycles / alone - 1}
    return found


def _least_bytes(w: Workload, machine: Machine, sampling: SamplingProgram) -> int:
    return w.head_bytes(machine.formats.weights) if sampling == "fused" else w.logit_bytes(machine.formats.logits)


def _milliseconds(cycles: int, machine: Machine) -> float:
    return cycles / machine.clock_ghz / 1e6


def latency_ms(w: Workload, machine: Machine, name: str, chunk: int | None = None) -> float:
    """Milliseconds of a sampling program alone; arguments and errors as of `measure`."""
    program = sampling_program(w, machine, sampling_named(name), chunk)
    return _milliseconds(time_program(program, machine).cycles, machine)

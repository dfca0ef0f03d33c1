"""A generation's time as figures with stable names, as `unmask sim --json` prints them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from unmask.compiler.context import capacities
from unmask.compiler.generation import GenerationTime


def figures(done: GenerationTime) -> dict[str, Any]:
    """Everything that is known of a generation's time; cycles of the machine's clock, bytes of HBM, GB of 10^9 bytes."""
    machine, policy = done.machine, done.policy
    return {
        "machine": machine.name,
        "clock_ghz": machine.clock_ghz,
        "formats": machine.formats.model_dump(),
        "batch": done.batch,
        "prompt": done.prompt_length,
        "generate": policy.gen_length,
        "block": policy.block_length,
        "policy": asdict(policy),
        "assumptions": _assumptions(done),
        "steps": done.steps,
        "tokens": done.tokens,
        "cycles": done.cycles,
        "seconds": done.seconds,
        "tokens_per_second": done.tokens_per_second,
        "cycles_by_engine": done.cycles_by_engine,
        "utilization": done.utilization,
        "hbm_bytes": done.bytes_by_engine,
        "bandwidth_gbps": done.gbps,
        "peak_bandwidth_gbps": machine.memory_gbps,
        "peak_tops": {"matrix": machine.peak_tops, "vector": machine.vector.vlen * machine.clock_ghz / 1000},
        "by_phase": _by_phase(done),
        "by_layer": {kind: {"count": count, "cycles": cycles} for kind, (count, cycles) in done.cycles_by_layer.items()},
        "by_class": {
            f"{engine}.{kind}": work._asdict() for (engine, kind), work in done.work_by(lambda part: (part.engine, part.kind)).items()
        },
        "by_step": {
            run.entry: {
                "runs": run.count,
                "cycles": done.timings[run.entry].cycles,
                "cycles_by_phase": done.timings[run.entry].phases,
                "row_tile": done.program.about["row_tiles"][run.entry],
            }
            for run in done.runs
        },
        "sram_high_water": done.program.about["sram_high_water"],
        "sram_capacity": capacities(machine),
        "hbm_used_bytes": done.program.hbm_bytes,
        "program_bytes": done.program.words.nbytes,
        "wall_seconds": {"compile": done.compile_seconds, "timing": done.timing_seconds},
    }


def _assumptions(done: GenerationTime) -> list[str]:
    """What the figures take for granted."""
    policy = done.policy
    stated = ["every step of a kind takes as long as its first", "the host's time between two steps is not counted"]
    if policy.commit in ("threshold", "factor"):
        average = f"{done.tokens_per_step:g}" + (" token" if done.tokens_per_step == 1 else " tokens")
        stated.append(f"commit {policy.commit}: a step commits {average} of a sequence on average")
    if policy.early_stop:
        stated.append("no early stop")
    if done.shape.experts:
        stated.append("experts take rows alike, which decides addresses alone: there are as many tiles for any routing")
    return stated


def _by_phase(done: GenerationTime) -> dict[str, dict[str, Any]]:
    by_phase = done.work_by(lambda part: part.phase)
    by_engine = done.work_by(lambda part: (part.phase, part.engine))
    bounds = done.bounds
    return {
        phase: {
            "cycles": cycles,
            "share": cycles / done.cycles,
            "hbm_bytes": by_phase[phase].hbm_bytes,
            "operations": {engine: by_engine[phase, engine].operations for engine in ("matrix", "vector") if (phase, engine) in by_engine},
            "busy": {engine: work.cycles for (of, engine), work in by_engine.items() if of == phase},
            "instructions": by_phase[phase].instructions,
            "bound": bounds[phase]._asdict(),
        }
        for phase, cycles in done.cycles_by_phase.items()
    }

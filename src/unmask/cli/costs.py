"""What a generation did and cost, as the JSON of `generate` and `run` states it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unmask.compiler.host import Simulation


def of_simulation(done: Simulation) -> dict[str, Any]:
    """The tokens, steps and costs of a generation on the simulated machine; tokens and commits of several rows are lists of each row's."""
    rows = range(len(done.start))
    tokens = [done.new_tokens(row) for row in rows]
    commits = [[{"step": step.step, "positions": step.positions(row), "tokens": step.tokens(row)} for step in done.steps] for row in rows]
    by_phase = done.cycles_by_phase
    sampling = sum(cycles for phase, cycles in by_phase.items() if phase.startswith("sampling"))
    return {
        "tokens": tokens[0] if len(rows) == 1 else tokens,
        "steps": len(done.steps),
        "commits": commits[0] if len(rows) == 1 else commits,
        "machine": done.machine.name,
        "clock_ghz": done.machine.clock_ghz,
        "formats": done.machine.formats.model_dump(),
        "cycles": done.cycles,
        "seconds_at_clock": done.seconds,
        "tokens_per_second": sum(map(len, tokens)) / done.seconds,
        "cycles_by_engine": done.cycles_by_engine,
        "cycles_by_phase": by_phase,
        "sampling_share": sampling / done.cycles,
        "transformer_share": 1 - sampling / done.cycles,
        "hbm_bytes": done.hbm_bytes,
        "runs": done.runs,
    }


def without_machine() -> dict[str, None]:
    """Nulls in the place of what only a simulated machine has, so that every backend's JSON has the same keys."""
    return dict.fromkeys(
        (
            "machine",
            "clock_ghz",
            "formats",
            "cycles",
            "seconds_at_clock",
            "tokens_per_second",
            "cycles_by_engine",
            "cycles_by_phase",
            "sampling_share",
            "transformer_share",
            "hbm_bytes",
            "runs",
            "instructions",
            "temperature_bf16",
            "check",
        )
    )

"""What a generation did and cost, as the JSON of `generate` and `run` states it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unmask.compiler.host import Simulation


def of_simulation(done: Simulation) -> dict[str, Any]:
    """The tokens, steps and costs of a generation on the simulated machine."""
    timing, tokens = done.step_timing, done.new_tokens
    by_phase = done.total(timing.phases)
    sampling = sum(cycles for phase, cycles in by_phase.items() if phase.startswith("sampling"))
    return {
        "tokens": tokens,
        "steps": len(done.steps),
        "commits": [{"step": step.step, "positions": step.positions, "tokens": step.tokens} for step in done.steps],
        "machine": done.machine.name,
        "clock_ghz": done.machine.clock_ghz,
        "formats": done.machine.formats.model_dump(),
        "cycles": done.cycles,
        "seconds_at_clock": done.seconds,
        "tokens_per_second": len(tokens) / done.seconds,
        "cycles_by_engine": done.total(timing.busy),
        "cycles_by_phase": by_phase,
        "sampling_share": sampling / done.cycles,
        "transformer_share": 1 - sampling / done.cycles,
        "hbm_bytes": done.total(timing.hbm_bytes),
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
            "instructions",
            "temperature_bf16",
            "check",
        )
    )

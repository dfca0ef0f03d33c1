"""What a generation did and cost, as the JSON of `generate` and `run` states it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from unmask.compiler.host import Simulation
    from unmask.isa.program import Program
    from unmask.silicon.cost.table import Costs


def of_simulation(done: Simulation, programs: Iterable[Program], prices: Costs) -> dict[str, Any]:
    """The tokens, steps and costs of a generation on the simulated machine; tokens and commits of several rows are lists of each row's.

    Args:
        programs: that ran: the model's, and the guide's where there is one.
        prices: of energy and area.
    """
    from unmask.report import costs

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
        **costs.of_simulation(done, programs, prices),
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
            "energy",
            "power_w",
            "peak_power_w",
            "area",
            "tokens_per_joule",
            "against_gpu",
            "instructions",
            "temperature_bf16",
            "check",
            "identical",
            "cycle_difference",
            "cycles_per_second",
        )
    )

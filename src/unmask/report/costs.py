"""What a generation takes in energy: the events of its programs, each as often as it ran."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from operator import add
from typing import Any

from unmask.compiler.generation import GenerationTime
from unmask.compiler.host import Simulation
from unmask.isa.program import Program
from unmask.machine.config import Machine
from unmask.machine.cycle import Timing
from unmask.silicon.cost.events import Counts, count_events
from unmask.silicon.cost.figures import cost_figures
from unmask.silicon.cost.table import Costs


def counts_of(machine: Machine, programs: Iterable[Program], timings: Mapping[str, Timing], runs: Mapping[str, int]) -> Counts:
    """Events of all runs.

    Args:
        machine: what ran.
        programs: that have the entries.
        timings, runs: of each entry by its name.
    """
    entries = {name: program for program in programs for name in program.entries}
    counted = (
        count_events(entries[name].entry(name), machine, timings[name].cycles, timings[name].hbm_bytes) * times
        for name, times in runs.items()
    )
    return reduce(add, counted, Counts(machine, 0))


def of_generation(done: GenerationTime, costs: Costs) -> dict[str, Any]:
    """`cost_figures` of a timed generation."""
    runs = {run.entry: run.count for run in done.runs}
    return cost_figures(counts_of(done.machine, [done.program], done.timings, runs), costs, done.tokens)


def of_simulation(done: Simulation, programs: Iterable[Program], costs: Costs) -> dict[str, Any]:
    """`cost_figures` of a simulated generation; `programs` are the model's and the guide's."""
    tokens = sum(len(done.new_tokens(row)) for row in range(len(done.start)))
    return cost_figures(counts_of(done.machine, programs, done.timings, done.runs), costs, tokens)

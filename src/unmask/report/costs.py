"""What a generation takes in energy: the events of its programs, each as often as it ran."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from unmask.compiler.generation import GenerationTime
from unmask.compiler.host import Simulation
from unmask.isa.program import Program
from unmask.silicon.cost.figures import cost_figures
from unmask.silicon.cost.runs import counts_of
from unmask.silicon.cost.table import Costs


def of_generation(done: GenerationTime, costs: Costs) -> dict[str, Any]:
    """`cost_figures` of a timed generation."""
    runs = {run.entry: run.count for run in done.runs}
    return cost_figures(counts_of(done.machine, [done.program], done.timings, runs), costs, done.tokens)


def of_simulation(done: Simulation, programs: Iterable[Program], costs: Costs) -> dict[str, Any]:
    """`cost_figures` of a simulated generation; `programs` are the model's and the guide's."""
    tokens = sum(len(done.new_tokens(row)) for row in range(len(done.start)))
    return cost_figures(counts_of(done.machine, programs, done.timings, done.runs), costs, tokens)

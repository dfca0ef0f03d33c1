"""What runs of several programs do together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from operator import add

from unmask.isa.program import Program
from unmask.machine.config import Machine
from unmask.machine.cycle import Timing
from unmask.silicon.cost.events import Counts, count_events


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

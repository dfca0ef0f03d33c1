"""What a search can minimize or limit: measures of a machine, and of a generation on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

from unmask.compiler.generation import GenerationTime
from unmask.errors import UnmaskError
from unmask.machine.config import Machine
from unmask.silicon.cost.area import area_of
from unmask.silicon.cost.energy import Energy, energy_of
from unmask.silicon.cost.peak import peak_power_of
from unmask.silicon.cost.runs import counts_of
from unmask.silicon.cost.table import Costs


class Subject:
    """What is measured.

    Attributes:
        machine: of the point.
        costs: prices of energy and area.
    """

    def __init__(self, machine: Machine, costs: Costs, done: GenerationTime | None = None) -> None:
        """Set what is known; `done` once the generation is timed."""
        self.machine, self.costs, self._done = machine, costs, done

    @property
    def done(self) -> GenerationTime:
        """The timed generation."""
        assert self._done is not None
        return self._done

    @cached_property
    def energy(self) -> Energy:
        """Of the generation: each kind of step's events as often as it runs."""
        runs = {run.entry: run.count for run in self.done.runs}
        return energy_of(counts_of(self.machine, [self.done.program], self.done.timings, runs), self.costs)


@dataclass(frozen=True)
class Measure:
    """A number that is better the less it is.

    Attributes:
        name: what a user calls it.
        unit: of its values.
        summary: what it is, in a phrase.
        timed: whether a generation has to be timed for it; else the machine alone says it.
        of: the amount.
    """

    name: str
    unit: str
    summary: str
    timed: bool
    of: Callable[[Subject], float]


def _sram_kib(subject: Subject) -> float:
    sram = subject.machine.sram
    return sram.vector_kib + sram.matrix_kib + (sram.float_words + sram.integer_words) * 4 / 1024


MEASURES = {
    measure.name: measure
    for measure in (
        Measure("latency", "s", "time of the whole generation", True, lambda of: of.done.seconds),
        Measure("energy", "J", "of the whole generation", True, lambda of: of.energy.total_j),
        Measure("power", "W", "on average over the generation", True, lambda of: of.energy.power_w),
        Measure("area", "mm2", "of the die", False, lambda of: sum(area_of(of.machine, of.costs).values())),
        Measure("peak-power", "W", "the most that the machine can take", False, lambda of: peak_power_of(of.machine, of.costs)),
        Measure("multiplies", "per cycle", "element products of a busy matrix engine", False, lambda of: of.machine.peak_multiplies),
        Measure("sram", "KiB", "on-chip memories", False, _sram_kib),
        Measure("bandwidth", "GB/s", "of the memory, by its data sheet", False, lambda of: of.machine.memory_gbps),
    )
}
"""By name."""


def measures_named(names: Iterable[str]) -> tuple[Measure, ...]:
    """Measures by their names.

    Raises:
        UnmaskError: an unknown name.
    """
    found = []
    for name in names:
        if name not in MEASURES:
            raise UnmaskError(f"unknown measure {name!r}: expected some of {', '.join(MEASURES)}")
        found.append(MEASURES[name])
    return tuple(found)


def objectives_named(text: str) -> tuple[str, ...]:
    """The names of measures in a list with commas.

    Raises:
        UnmaskError: an unknown name, or one that is there twice.
    """
    names = tuple(name.strip() for name in text.split(","))
    measures_named(names)
    if len(set(names)) < len(names):
        raise UnmaskError(f"objectives {text!r}: expected each once")
    return names

"""One point of a search: a machine built, the workload compiled for it and timed, and what the search asks for measured."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from unmask.compiler.analytic import estimate_generation
from unmask.compiler.generation import GenerationTime, time_generation
from unmask.compiler.sampling.streamed import SamplingProgram
from unmask.decoding.policy import Policy
from unmask.errors import UnmaskError
from unmask.explore.fields import Value
from unmask.explore.measures import Measure, Subject, measures_named
from unmask.explore.space import Space
from unmask.machine.config import Machine
from unmask.models.layers import Architecture
from unmask.silicon.cost.table import Costs

INTERNAL = "internal error"
UNTIMED = 1e6
"""By how much a point that cannot be timed misses its limits: more than any that can."""


class Reading(StrEnum):
    """How a point is timed."""

    CYCLE = "cycle"
    ANALYTIC = "analytic"


@dataclass(frozen=True)
class Workload:
    """What every machine of a search runs; see `time_generation`."""

    shape: Architecture
    policy: Policy
    prompt: int
    batch: int
    tokens_per_step: float | None = None
    sampling: SamplingProgram = "general"


@dataclass(frozen=True)
class Task:
    """What the points of a search have in common.

    Attributes:
        space: the machines.
        workload: what they run.
        objectives: names of measures, in the order of the study's values.
        costs: prices of energy and area.
        limits: the most of a measure that a point may have.
    """

    space: Space
    workload: Workload
    objectives: tuple[str, ...]
    costs: Costs
    limits: Mapping[str, float] = field(default_factory=dict)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """All that are needed: latency, the objectives and what is limited.

        Raises:
            UnmaskError: an unknown name.
        """
        return measures_named(dict.fromkeys(("latency", *self.objectives, *self.limits)))


@dataclass(frozen=True)
class Outcome:
    """What became of a point.

    Attributes:
        reason: why it is not feasible; empty: it is.
        excess: by what share it exceeds its limits, summed; 0 if it is feasible.
        measures: amounts by name: all that the search asks for, of a point that was timed.
        figures: of a point that was timed: `cycles`, `tokens_per_second`, `hbm_bytes` and `utilization` by engine.
        cpu_seconds: that it took.
    """

    reason: str
    excess: float
    measures: Mapping[str, float]
    figures: Mapping[str, Any]
    cpu_seconds: float

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def evaluate(task: Task, values: Mapping[str, Value], reading: Reading = Reading.ANALYTIC) -> Outcome:
    """Time the workload on one machine of the space; a machine that breaks a limit by itself is not timed.

    Never raises: what does not compile is an outcome with its reason, and so is an error of unmask itself, which says so.
    """
    started = time.process_time()
    measures: dict[str, float] = {}
    figures: dict[str, Any] = {}
    excess, reason = 0.0, ""
    try:
        with _collector_off():
            machine = task.space.machine(values)
            subject = Subject(machine, task.costs)
            measures |= {measure.name: float(measure.of(subject)) for measure in task.measures if not measure.timed}
            excess, reason = _over(task, measures)
            if not reason:
                done = _timed(task.workload, machine, reading)
                subject = Subject(machine, task.costs, done)
                measures |= {measure.name: float(measure.of(subject)) for measure in task.measures if measure.timed}
                excess, reason = _over(task, measures)
                figures = {
                    "cycles": done.cycles,
                    "tokens_per_second": done.tokens_per_second,
                    "hbm_bytes": done.hbm_bytes,
                    "utilization": done.utilization,
                }
    except UnmaskError as error:
        excess, reason = UNTIMED, str(error)
    except Exception as error:
        excess, reason = UNTIMED, f"{INTERNAL}: {type(error).__name__}: {error}"
    return Outcome(reason, excess, measures, figures, time.process_time() - started)


@contextmanager
def _collector_off() -> Iterator[None]:
    """No search for garbage meanwhile: what a point makes lives until its end, and going over it takes a tenth of the time."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


def _timed(work: Workload, machine: Machine, reading: Reading) -> GenerationTime:
    timed = estimate_generation if reading is Reading.ANALYTIC else time_generation
    return timed(work.shape, work.policy, machine, work.prompt, work.batch, work.tokens_per_step, work.sampling)


def _over(task: Task, measures: Mapping[str, float]) -> tuple[float, str]:
    """By what share the limits are exceeded, summed, and which are."""
    over = [name for name, most in task.limits.items() if measures.get(name, most) > most]
    units = {measure.name: measure.unit for measure in measures_named(over)}
    reason = "; ".join(f"{name} over {task.limits[name]:g} {units[name]}" for name in over)
    return sum(measures[name] / task.limits[name] - 1 for name in over), reason

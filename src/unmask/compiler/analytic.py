"""How long a whole generation takes by the analytic reading: the same programs and the same figures as of `unmask.compiler.generation`,
in milliseconds."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import lru_cache

import numpy as np

from unmask.compiler.analytic_program import forget_steps, step_of
from unmask.compiler.generation import GenerationTime, Part, Work, shared_out
from unmask.compiler.routing import even_routing
from unmask.compiler.sampling.streamed import SamplingProgram
from unmask.compiler.schedule import runs_of
from unmask.decoding.policy import Policy
from unmask.isa.table import Cost, Engine
from unmask.machine.analytic import time_listing
from unmask.machine.analytic_listing import Listing, forget_machines, list_skeleton
from unmask.machine.analytic_memory import forget_memories
from unmask.machine.config import Machine
from unmask.machine.cycle import Timing
from unmask.models.layers import Architecture

ASSUMPTION = "analytic reading: loops by their periods, DRAM at the rates that a sample of each transfer finds"
"""What the figures of `estimate_generation` take for granted besides those of `time_generation`."""

_runs_of = lru_cache(maxsize=64)(runs_of)
"""A search tries many machines for one policy."""


def forget() -> None:
    """Drop what is kept from one generation to the next: schedules, emitted steps, what instructions take, samples of memories."""
    _runs_of.cache_clear()
    forget_steps()
    forget_machines()
    forget_memories()


def _work(listing: Listing, timing: Timing) -> dict[Part, Work]:
    """`work_of`, from what the listing has."""
    labels, skeleton = [engine.name.lower() for engine in Engine], listing.skeleton
    parts = [Part(skeleton.phases[group.phase], labels[group.engine], Cost(group.kind).name.lower()) for group in skeleton.groups]
    weights = np.bincount(skeleton.group_of, skeleton.repeats * (listing.busy + listing.asked), len(parts)).tolist()
    cycles: dict[Part, int] = {}
    moved: dict[Part, int] = {}
    for engine in labels:
        shares = {part: int(weight) for part, weight in zip(parts, weights, strict=True) if part.engine == engine}
        cycles |= shared_out(timing.busy[engine], shares)
        moved |= shared_out(timing.hbm_bytes.get(engine, 0), shares)
    done = zip(parts, skeleton.counts.tolist(), skeleton.operations.tolist(), strict=True)
    return {part: Work(count, cycles[part], moved[part], operations) for part, count, operations in done}


def estimate_generation(
    shape: Architecture,
    policy: Policy,
    machine: Machine,
    prompt_length: int,
    batch: int = 1,
    tokens_per_step: float | None = None,
    sampling: SamplingProgram = "general",
) -> GenerationTime:
    """`time_generation` by the analytic reading; arguments and errors as there."""
    runs = _runs_of(policy, shape, prompt_length, batch, tokens_per_step)
    started = time.perf_counter()
    step = step_of(shape, policy, machine, prompt_length, batch, sampling)
    chosen = step.chosen(machine)
    program = step.program(chosen, machine)
    runs = tuple(replace(run, parameters=run.parameters | even_routing(program, run.entry)) for run in runs)
    compiled = time.perf_counter()
    timings: dict[str, Timing] = {}
    work: dict[str, dict[Part, Work]] = {}
    for run in runs:
        listing = list_skeleton(step.skeleton(run.entry, chosen), machine, run.parameters)
        timings[run.entry] = time_listing(listing, machine)
        work[run.entry] = _work(listing, timings[run.entry])
    timed = time.perf_counter()
    rate = tokens_per_step or policy.gen_length / sum(run.count for run in runs)
    return GenerationTime(
        machine, policy, shape, batch, prompt_length, rate, program, runs, timings, work, compiled - started, timed - compiled
    )

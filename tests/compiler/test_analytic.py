"""A generation by the analytic reading: the program of `compile_step`, its counts, and its time within 5 % over a grid."""

from __future__ import annotations

import json

import numpy as np
import pytest

from unmask import Policy
from unmask.compiler.analytic import estimate_generation
from unmask.compiler.analytic_program import step_of
from unmask.compiler.generation import time_generation
from unmask.compiler.lower import compile_step
from unmask.decoding.cache.registry import caches
from unmask.isa.program import Program
from unmask.machine.config import Machine
from unmask.models.catalogue import architecture
from unmask.models.layers import Architecture
from unmask.report.generation import figures

SHAPE = architecture("sotu")
TOLERANCE = 0.05
MACHINES = ["small", "published-512", "published-1024", "published-2048", "a6000-class", "h100-class"]


def policy(shape: Architecture, cache: str, length: int, block: int, steps: int) -> Policy:
    schedule = "timesteps" if shape.shifted_logits else "uniform"
    return Policy(length, block, steps, cache=cache, schedule=schedule)  # type: ignore[arg-type]


def listed_step(shape: Architecture, chosen: Policy, machine: Machine, prompt: int, batch: int, sampling: str) -> Program:
    step = step_of(shape, chosen, machine, prompt, batch, sampling)  # type: ignore[arg-type]
    return step.program(step.chosen(machine), machine)


def disagreement(shape: Architecture, chosen: Policy, machine: str, prompt: int, batch: int) -> float:
    """By what share of its time the analytic reading is off, of the kind of step for which that is most."""
    target = Machine.preset(machine)
    exact = time_generation(shape, chosen, target, prompt, batch)
    found = estimate_generation(shape, chosen, target, prompt, batch)
    assert found.timings.keys() == exact.timings.keys()
    return max(abs(found.timings[entry].cycles / timing.cycles - 1) for entry, timing in exact.timings.items())


@pytest.mark.parametrize("cache", sorted(name for name, cache in caches().items() if cache.consecutive))
@pytest.mark.parametrize(("machine", "batch"), [("small", 1), ("published-512", 3), ("h100-class", 1)])
def test_the_program_is_that_of_the_compiler(machine: str, batch: int, cache: str) -> None:
    target = Machine.preset(machine)
    chosen = policy(SHAPE, cache, 16, 8, 8)
    listed = listed_step(SHAPE, chosen, target, 13, batch, "general")
    compiled = compile_step(SHAPE, chosen, target, 13, batch)
    assert np.array_equal(listed.words, compiled.words)
    assert (listed.phases, listed.entries, listed.regions) == (compiled.phases, compiled.entries, compiled.regions)
    assert (listed.about, listed.machine, listed.hbm_bytes) == (compiled.about, compiled.machine, compiled.hbm_bytes)


@pytest.mark.parametrize("sampling", ["four-phase", "single-pass", "fused"])
def test_other_sampling_programs_are_the_compiler_s_too(sampling: str) -> None:
    target, chosen = Machine.preset("published-512"), policy(SHAPE, "dual", 16, 8, 8)
    listed = listed_step(SHAPE, chosen, target, 13, 2, sampling)
    assert np.array_equal(listed.words, compile_step(SHAPE, chosen, target, 13, 2, sampling=sampling).words)  # type: ignore[arg-type]


@pytest.mark.parametrize("machine", ["small", "published-512"])
def test_counts_are_exact(machine: str) -> None:
    target, chosen = Machine.preset(machine), policy(SHAPE, "dual", 16, 8, 16)
    exact, found = (timed(SHAPE, chosen, target, 13, 2) for timed in (time_generation, estimate_generation))
    for entry, timing in exact.timings.items():
        assert found.timings[entry].instructions == timing.instructions
        assert {name: found.timings[entry].busy[name] for name in ("sequencer", "matrix", "vector")} == {
            name: timing.busy[name] for name in ("sequencer", "matrix", "vector")
        }
        assert found.work[entry].keys() == exact.work[entry].keys()
        for part, work in exact.work[entry].items():
            assert found.work[entry][part].instructions == work.instructions
            assert found.work[entry][part].operations == work.operations
    assert sum(found.bytes_by_engine.values()) == pytest.approx(sum(exact.bytes_by_engine.values()), rel=0.02)


def test_figures_are_those_of_the_cycle_reading() -> None:
    target, chosen = Machine.preset("small"), policy(SHAPE, "dual", 16, 8, 16)
    exact, found = (figures(timed(SHAPE, chosen, target, 13)) for timed in (time_generation, estimate_generation))
    assert found.keys() == exact.keys()
    assert json.loads(json.dumps(found))["program_bytes"] == exact["program_bytes"]
    assert sum(phase["cycles"] for phase in found["by_phase"].values()) == found["cycles"]


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
@pytest.mark.parametrize("machine", ["small", "published-512", "published-2048", "h100-class"])
def test_a_shipped_model_takes_about_as_long(machine: str, cache: str, batch: int) -> None:
    assert disagreement(SHAPE, policy(SHAPE, cache, 64, 32, 64), machine, 32, batch) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 4, 16])
@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
@pytest.mark.parametrize("machine", [name for name in MACHINES if name != "small"])
@pytest.mark.parametrize("model", ["llada-8b", "dream-7b"])
def test_a_full_size_model_takes_about_as_long(model: str, machine: str, cache: str, batch: int) -> None:
    shape = architecture(model)
    assert disagreement(shape, policy(shape, cache, 64, 32, 64), machine, 128, batch) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
@pytest.mark.parametrize("machine", MACHINES)
def test_other_shipped_models_take_about_as_long(machine: str, cache: str, batch: int) -> None:
    assert disagreement(SHAPE, policy(SHAPE, cache, 128, 32, 128), machine, 100, batch) <= TOLERANCE

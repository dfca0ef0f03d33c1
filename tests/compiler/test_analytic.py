"""A generation by the analytic reading: the program of `compile_step`, its counts, and its time within 5 % over a grid."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator

import numpy as np
import pytest

from unmask import Policy
from unmask.compiler.analytic import estimate_generation, forget
from unmask.compiler.analytic_program import step_of
from unmask.compiler.assembly import choose
from unmask.compiler.generation import time_generation
from unmask.compiler.lower import compile_step, plan_step
from unmask.compiler.sampling.streamed import SamplingProgram
from unmask.decoding.cache.registry import caches
from unmask.isa.program import Program
from unmask.machine.config import Machine
from unmask.models.catalogue import architecture
from unmask.models.layers import Architecture
from unmask.report.generation import figures

SHAPE = architecture("sotu")
TOLERANCE = 0.05
SMALL_MACHINES = ["nano", "small", "edge"]
"""Which hold no tile of a full-size model."""
MACHINES = [*SMALL_MACHINES, "published-512", "published-1024", "published-2048", "a6000-class", "h100-class"]


def policy(shape: Architecture, cache: str, length: int, block: int, steps: int) -> Policy:
    schedule = "timesteps" if shape.shifted_logits else "uniform"
    return Policy(length, block, steps, cache=cache, schedule=schedule)  # type: ignore[arg-type]


def listed_step(shape: Architecture, chosen: Policy, machine: Machine, prompt: int, batch: int, sampling: SamplingProgram) -> Program:
    step = step_of(shape, chosen, machine, prompt, batch, sampling)
    return step.program(step.chosen(machine), machine)


def disagreement(
    shape: Architecture, chosen: Policy, machine: str, prompt: int, batch: int, sampling: SamplingProgram = "general"
) -> float:
    """By what share of its time the analytic reading is off, of the kind of step for which that is most."""
    target = Machine.preset(machine)
    exact = time_generation(shape, chosen, target, prompt, batch, sampling=sampling)
    found = estimate_generation(shape, chosen, target, prompt, batch, sampling=sampling)
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
def test_other_sampling_programs_are_the_compiler_s_too(sampling: SamplingProgram) -> None:
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


def alike_but(machine: Machine) -> Iterator[Machine]:
    """Machines that differ from one in what instructions take, not in what there is to be compiled for."""
    yield machine.model_copy(update={"clock_ghz": 3 * machine.clock_ghz})
    yield machine.model_copy(update={"hbm": Machine.preset("edge").hbm})
    yield machine.model_copy(update={"matrix": machine.matrix.model_copy(update={"rows": 1, "latency": 99})})
    yield machine.model_copy(update={"vector": machine.vector.model_copy(update={"latency": 9, "reduce_latency": 50, "integer_lanes": 1})})


@pytest.mark.parametrize("model", ["sotu", "llada-moe-7b-a1b"])
def test_what_is_kept_for_machines_that_are_compiled_for_alike_is_their_program(model: str) -> None:
    shape, base = architecture(model), Machine.preset("h100-class")
    chosen = policy(shape, "dual", 16, 8, 8)
    listed_step(shape, chosen, base, 13, 1, "general")
    for target in alike_but(base):
        compiled = compile_step(shape, chosen, target, 13, 1) if model == "sotu" else None
        listed = listed_step(shape, chosen, target, 13, 1, "general")
        if compiled is None:
            plan = plan_step(shape, chosen, target, 13, 1, False, None, "general")
            expected = choose(plan, target, lambda name, tiling: plan.emitted(name, tiling, target))  # noqa: B023
            assert listed.ops == [op for c, _ in expected.values() for op in c.e.ops]
        else:
            assert np.array_equal(listed.words, compiled.words)
            assert listed.about == compiled.about


def test_what_is_kept_changes_no_figure() -> None:
    chosen = policy(SHAPE, "prefix", 64, 8, 64)
    for target in (Machine.preset("edge"), *alike_but(Machine.preset("edge"))):
        kept = estimate_generation(SHAPE, chosen, target, 13)
        forget()
        fresh = estimate_generation(SHAPE, chosen, target, 13)
        assert (kept.timings, kept.work) == (fresh.timings, fresh.work)


def test_a_whole_generation_takes_less_than_50_ms() -> None:
    """Nine kinds of step; of one thread's time, since others may use the machine."""
    shape, target = architecture("llada-8b"), Machine.preset("published-2048")
    chosen = policy(shape, "prefix", 256, 32, 256)
    seconds = []
    for _ in range(6):
        started = time.process_time()
        assert len(estimate_generation(shape, chosen, target, 512).timings) == 9
        seconds.append(time.process_time() - started)
    assert statistics.median(seconds[1:]) < 0.05


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
@pytest.mark.parametrize("machine", ["small", "edge", "published-512", "published-2048", "a6000-class", "h100-class"])
def test_a_shipped_model_takes_about_as_long(machine: str, cache: str, batch: int) -> None:
    assert disagreement(SHAPE, policy(SHAPE, cache, 64, 32, 64), machine, 32, batch) <= TOLERANCE


@pytest.mark.parametrize("sampling", ["four-phase", "single-pass", "fused"])
@pytest.mark.parametrize("machine", ["edge", "published-512", "h100-class"])
def test_with_every_sampling_program(machine: str, sampling: SamplingProgram) -> None:
    assert disagreement(SHAPE, policy(SHAPE, "dual", 64, 32, 64), machine, 32, 4, sampling) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 4, 16])
@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
@pytest.mark.parametrize("machine", [name for name in MACHINES if name not in SMALL_MACHINES])
@pytest.mark.parametrize("model", ["llada-8b", "dream-7b", "llada-moe-7b-a1b"])
def test_a_full_size_model_takes_about_as_long(model: str, machine: str, cache: str, batch: int) -> None:
    shape = architecture(model)
    assert disagreement(shape, policy(shape, cache, 64, 32, 64), machine, 128, batch) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("sampling", ["four-phase", "single-pass", "fused"])
@pytest.mark.parametrize("machine", [name for name in MACHINES if name not in SMALL_MACHINES])
@pytest.mark.parametrize("model", ["llada-8b", "llada-moe-7b-a1b"])
def test_a_full_size_model_with_every_sampling_program(model: str, machine: str, sampling: SamplingProgram, batch: int) -> None:
    shape = architecture(model)
    assert disagreement(shape, policy(shape, "dual", 64, 32, 64), machine, 128, batch, sampling) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 4, 16])
@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
@pytest.mark.parametrize("machine", MACHINES)
def test_other_canvases_of_a_shipped_model_take_about_as_long(machine: str, cache: str, batch: int) -> None:
    assert disagreement(SHAPE, policy(SHAPE, cache, 128, 32, 128), machine, 100, batch) <= TOLERANCE

"""A generation's time is the sum over what it runs, and what it runs is what the host would run."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from unmask import Policy, UnmaskError, simulate
from unmask.compiler.generation import GenerationTime, Part, Work, shared_out, time_generation
from unmask.compiler.lower import compile_step
from unmask.compiler.network import matrix_shapes
from unmask.compiler.schedule import runs_of
from unmask.isa.table import Engine
from unmask.machine.config import Machine
from unmask.machine.cycle import time_program
from unmask.models.layers import Architecture
from unmask.report.generation import figures

from .cases import BASE, NANO, SMALL, network, shrunk
from .test_policies import DREAM, dream

HBM = shrunk(Machine.preset("published-512"), vector={"granule": 8})
MIDDLE = Architecture(512, 2, 8, 8, 64, 1408, 16384, 16384, 1024, 1e-5, 1e4, 16383, 16382, False)
POLICIES = [
    Policy(16, 8, 8),
    Policy(16, 8, 6, cache="dual"),
    Policy(16, 4, 16, cache="prefix", temperature=0.5),
    Policy(16, 8, 8, cache="freecache", schedule="shared_timesteps"),
    Policy(16, 4, 12, cache="prompt", schedule="timesteps", cfg_scale=1.0),
]


@pytest.fixture(scope="module", params=[(SMALL, "dual"), (NANO, "none"), (HBM, "prefix")], ids=lambda param: param[0].name)
def done(request) -> GenerationTime:
    machine, cache = request.param
    return time_generation(BASE.architecture, Policy(24, 8, 24, cache=cache), machine, 13, 2)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: f"{policy.cache}-{policy.steps}")
@pytest.mark.parametrize("shifted", [False, True], ids=["llada", "dream"])
def test_the_schedule_runs_what_the_host_runs(policy: Policy, shifted: bool) -> None:
    if shifted:
        policy = replace(policy, schedule="timesteps")
    model = dream(0) if shifted else network(BASE)
    ran = simulate(compile_step(model, policy, SMALL, 5), [4, 5, 6, 7, 8])
    expected = runs_of(policy, model.config.architecture, 5, 1)
    assert {run.entry: run.count for run in expected} == ran.runs


def test_a_generation_timed_by_shape_takes_as_long_as_one_that_ran() -> None:
    policy = Policy(16, 8, 8, cache="dual")
    ran = simulate(compile_step(network(BASE), policy, SMALL, 5), [4, 5, 6, 7, 8])
    timed = time_generation(BASE.architecture, policy, SMALL, 5)
    assert (timed.cycles, timed.cycles_by_engine, timed.cycles_by_phase) == (ran.cycles, ran.cycles_by_engine, ran.cycles_by_phase)
    assert timed.bytes_by_engine == ran.hbm_bytes


@pytest.mark.parametrize(("rate", "steps"), [(None, 16), (1.0, 16), (2.5, 8), (4, 4), (8, 2)])
@pytest.mark.parametrize("commit", ["threshold", "factor"])
def test_tokens_per_step_decide_how_many_steps_a_commit_by_value_takes(commit: Any, rate: float | None, steps: int) -> None:
    policy = Policy(16, 8, 16, cache="dual", commit=commit)
    runs = runs_of(policy, BASE.architecture, 13, 1, rate)
    assert sum(run.count for run in runs) == steps
    assert {run.entry: run.count for run in runs}["rows-29"] == 2


def test_a_block_that_opens_with_one_token_takes_a_step_for_it() -> None:
    policy = Policy(16, 8, 16, cache="dual", commit="threshold")
    runs = {run.entry: run.count for run in runs_of(policy, DREAM.architecture, 13, 1, 8)}
    assert runs == {"rows-29-opening": 2, "rows-8-own": 2}


def test_parameters_are_what_the_host_writes_before_an_entry_s_first_step() -> None:
    first, second = runs_of(Policy(16, 8, 8, cache="dual", seed=7), BASE.architecture, 13, 2)
    assert list(first.parameters.values()) == [0, 13, 13, 7, 0, 2, 2]
    assert list(second.parameters.values()) == [13, 13, 0, 7, 1, 2, 2]


def test_totals_are_sums_over_entries_times_runs(done: GenerationTime) -> None:
    timed = {run.entry: time_program(done.program.entry(run.entry), done.machine, parameters=run.parameters) for run in done.runs}
    assert done.cycles == sum(timed[run.entry].cycles * run.count for run in done.runs)
    for engine, cycles in done.cycles_by_engine.items():
        assert cycles == sum(timed[run.entry].busy[engine] * run.count for run in done.runs)
    assert done.hbm_bytes == sum(sum(timed[run.entry].hbm_bytes.values()) * run.count for run in done.runs)
    assert done.steps == 24
    assert done.seconds == pytest.approx(done.cycles / done.machine.clock_ghz / 1e9)
    assert done.tokens_per_second == pytest.approx(2 * 24 / done.seconds)


def test_phases_and_layers_sum_to_the_cycles(done: GenerationTime) -> None:
    assert sum(done.cycles_by_phase.values()) == done.cycles
    assert sum(cycles for _, cycles in done.cycles_by_layer.values()) == done.cycles
    assert done.cycles_by_layer["transformer"][0] == BASE.n_layers
    assert all(cycles > 0 for cycles in done.cycles_by_phase.values())


def test_parts_sum_to_what_the_engines_did(done: GenerationTime) -> None:
    by_engine = done.work_by(lambda part: part.engine)
    assert set(by_engine) == {engine.name.lower() for engine in Engine}
    assert {engine: work.cycles for engine, work in by_engine.items()} == done.cycles_by_engine
    assert {engine: work.hbm_bytes for engine, work in by_engine.items() if work.hbm_bytes} == done.bytes_by_engine
    executed = sum(sum(done.timings[run.entry].instructions.values()) * run.count for run in done.runs)
    assert sum(work.instructions for work in by_engine.values()) == executed


def test_nothing_is_free(done: GenerationTime) -> None:
    for part, work in done.work_by(lambda part: part).items():
        assert work.instructions > 0
        assert work.cycles > 0 or part.engine in ("load", "store"), part  # which share out less than a cycle for a few bytes
        assert (work.hbm_bytes > 0) == (part.kind in ("dma", "gather")), part
    for (engine, kind), work in done.work_by(lambda part: (part.engine, part.kind)).items():
        assert work.cycles > 0 or (kind == "sync" and engine in ("load", "store"))


def test_every_product_of_the_network_is_counted(done: GenerationTime) -> None:
    """Twice the multiplications of one row through all matrices, and those of attention, for every row that is fed."""
    shape, positions, total = done.shape, done.program.about["positions"], 0
    per_row = shape.layers * (sum(rows * cols for rows, cols in matrix_shapes(shape).values()) + 2 * shape.width * positions)
    for run in done.runs:
        fed = done.batch * int(run.entry.removeprefix("rows-"))
        total += run.count * (fed * per_row + done.batch * done.policy.block_length * shape.vocab_size * shape.width)
    assert done.work_by(lambda part: part.engine)["matrix"].operations == 2 * total


def test_drained_engines_are_busy_for_what_their_instructions_cost(done: GenerationTime) -> None:
    """Their parts are exact, not shared out."""
    for run in done.runs:
        busy = done.timings[run.entry].busy
        for engine in ("matrix", "vector"):
            assert sum(work.cycles for part, work in done.work[run.entry].items() if part.engine == engine) == busy[engine]


def test_a_phase_is_bound_by_its_busiest_engine(done: GenerationTime) -> None:
    by = done.work_by(lambda part: (part.phase, part.engine))
    for phase, bound in done.bounds.items():
        engines = ("load", "store") if bound.by == "memory" else (bound.by,)
        busiest = max(by.get((phase, engine), Work(0, 0, 0, 0)).cycles for engine in engines)
        assert busiest == max(work.cycles for (of, _), work in by.items() if of == phase)
        assert bound.share == busiest / done.cycles_by_phase[phase]


def test_figures_have_stable_names(done: GenerationTime) -> None:
    found = figures(done)
    assert {"cycles", "seconds", "tokens_per_second", "cycles_by_engine", "utilization", "hbm_bytes", "bandwidth_gbps"} <= set(found)
    assert {"by_phase", "by_layer", "by_class", "by_step", "sram_high_water", "sram_capacity", "wall_seconds"} <= set(found)
    assert sum(phase["cycles"] for phase in found["by_phase"].values()) == found["cycles"]
    assert sum(step["cycles"] * step["runs"] for step in found["by_step"].values()) == found["cycles"]
    assert sum(kind["hbm_bytes"] for kind in found["by_class"].values()) == sum(found["hbm_bytes"].values())
    assert all(found["sram_high_water"][name] <= capacity for name, capacity in found["sram_capacity"].items())
    assert 0 < found["bandwidth_gbps"] < 2 * found["peak_bandwidth_gbps"]


def test_a_whole_is_shared_out_without_loss() -> None:
    parts = {name: Part(name, "load", "dma") for name in "abc"}
    shared = shared_out(100, {parts["a"]: 1, parts["b"]: 1, parts["c"]: 1})
    assert sum(shared.values()) == 100
    assert max(shared.values()) - min(shared.values()) <= 1
    assert shared_out(7, {parts["a"]: 0}) == {parts["a"]: 0}


def cycles(machine: Machine, cache: str, batch: int) -> int:
    return time_generation(MIDDLE, Policy(64, 16, 32, cache=cache), machine, 64, batch).cycles


@pytest.mark.parametrize(("cache", "batch"), [("none", 1), ("dual", 1), ("prefix", 3)])
def test_more_bandwidth_never_takes_longer(cache: str, batch: int) -> None:
    found = [cycles(shrunk(SMALL, hbm={"bytes_per_cycle": 2**power}), cache, batch) for power in range(3, 10)]
    assert found == sorted(found, reverse=True)
    assert found[0] > found[-1]
    stacks = [cycles(shrunk(HBM, hbm={"devices": devices}), cache, batch) for devices in (1, 2, 4)]
    assert stacks == sorted(stacks, reverse=True)


@pytest.mark.parametrize(("cache", "batch"), [("none", 1), ("dual", 1), ("prefix", 3)])
@pytest.mark.parametrize("machine", [SMALL, HBM], ids=lambda machine: machine.name)
def test_wider_lanes_hardly_ever_take_longer(machine: Machine, cache: str, batch: int) -> None:
    found = [cycles(shrunk(machine, vector={"vlen": 2**power}), cache, batch) for power in range(4, 12)]
    # Wider lanes turn more heads at once, which once moved the array's work by a thousandth.
    assert all(wider <= 1.002 * narrower for narrower, wider in pairwise(found))
    assert found[0] > found[-1]


@pytest.mark.parametrize(
    ("policy", "rate", "match"),
    [
        (Policy(16, 8, 16), 2.0, "tokens per step are scheduled; commit is 'schedule'"),
        (Policy(16, 8, 16, commit="threshold"), 0.5, "0.5 tokens per step: expected at least 1 and at most the block's 8"),
        (Policy(16, 8, 16, commit="factor"), 9.0, "9 tokens per step: expected at least 1 and at most the block's 8"),
        (Policy(16, 16, 16, commit="guided"), None, "commit 'guided' also runs a guide"),
        (Policy(16, 8, 16, cache="dkv"), None, "cache 'dkv' has no program"),
    ],
)
def test_what_cannot_be_timed_is_one_line(policy: Policy, rate: float | None, match: str) -> None:
    with pytest.raises(UnmaskError, match=match) as error:
        time_generation(BASE.architecture, policy, SMALL, 13, 1, rate)
    assert "\n" not in str(error.value)

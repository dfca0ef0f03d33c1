"""A generation on a GPU: the same steps as everywhere else, and sums that add up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from unmask.baselines.generation import generation_time, sampled_as
from unmask.baselines.gpu import Gpu
from unmask.baselines.kernel import seconds_of
from unmask.baselines.measured import MeasuredProfile, MeasuredStep
from unmask.baselines.published import comparisons
from unmask.baselines.sampling import sampling_kernels
from unmask.baselines.steps import steps_of
from unmask.baselines.transformer import Precision
from unmask.compiler.schedule import runs_of
from unmask.decoding.policies import named_policy
from unmask.decoding.policy import Policy
from unmask.errors import UnmaskError
from unmask.models.catalogue import architecture

LLADA, DREAM = architecture("llada-8b"), architecture("dream-7b")
DUAL = Policy(64, 32, 64, cache="dual")


@pytest.mark.parametrize(
    ("policy", "rate"),
    [
        (Policy(64, 32, 64), None),
        (Policy(64, 32, 20), None),
        (DUAL, None),
        (Policy(64, 16, 64, cache="prefix"), None),
        (Policy(64, 16, 64, cache="freecache"), None),
        (named_policy("fast-dllm", gen_length=64), 3.0),
        (named_policy("fast-dllm-factor", gen_length=64), None),
    ],
)
@pytest.mark.parametrize("shape", [LLADA, DREAM])
def test_a_gpu_takes_as_many_steps_as_the_machine(policy: Policy, rate: float | None, shape) -> None:
    if shape is DREAM and policy.commit == "schedule":
        policy = replace(policy, schedule="timesteps")
    machine = runs_of(policy, shape, 100, 2, rate)
    gpu = steps_of(policy, shape, 100, 2, rate)
    assert sum(gpu.values()) == sum(run.count for run in machine)
    assert max(kind.rows for kind in gpu) == 164


def test_a_generation_is_the_sum_of_its_steps(a6000: Gpu) -> None:
    done = generation_time(LLADA, DUAL, a6000, 100, 4)
    assert done.step_count == 64
    assert done.tokens == 256
    assert done.seconds == pytest.approx(done.transformer_seconds + done.sampling_seconds)
    assert done.seconds == pytest.approx(sum(step.seconds * step.count for step in done.steps))
    assert done.tokens_per_s == pytest.approx(256 / done.seconds)
    launches = sum(kernel.count * step.count for step in done.steps for kernel in (*step.transformer, *step.sampling))
    assert sum(kernel.count for kernel in done.kernels) == launches
    products = sum(kernel.flops * kernel.count for kernel in done.kernels if kernel.operator in ("feed-forward", "lm head"))
    rows = sum(step.count * 4 * step.kind.rows for step in done.steps)
    head = done.step_count * 4 * 32
    assert products == pytest.approx(2.0 * 4096 * (rows * 32 * 3 * 12288 + head * 126464))


def test_power_lies_between_idle_and_the_boards_limit(a6000: Gpu) -> None:
    for name in ("a6000", "h100"):
        gpu = Gpu.load(name)
        for batch in (1, 16):
            assert gpu.idle_w < generation_time(LLADA, DUAL, gpu, 100, batch).average_w < gpu.board_w


def test_a_captured_graph_saves_what_the_processor_costs(a6000: Gpu) -> None:
    host = a6000.fit.host.model_copy(update={"launch_us": 50.0})
    slow = a6000.model_copy(update={"fit": a6000.fit.model_copy(update={"host": host})})
    eager, graph = (generation_time(LLADA, DUAL, slow, 100, launch=launch) for launch in ("eager", "graph"))
    refine = eager.steps[-1]
    launches = sum(kernel.count for kernel in (*refine.transformer, *refine.sampling))
    assert refine.seconds == pytest.approx(launches * 50e-6)
    assert graph.seconds == pytest.approx(generation_time(LLADA, DUAL, a6000, 100, launch="graph").seconds)
    assert graph.seconds < eager.seconds


def test_narrower_weights_and_wider_confidences_move_time_their_way(a6000: Gpu) -> None:
    plain, narrow, wide = (
        generation_time(LLADA, DUAL, a6000, 100, precision=precision)
        for precision in (Precision(), Precision(weight_bits=4.25), Precision(confidence="fp64"))
    )
    assert narrow.transformer_seconds < 0.6 * plain.transformer_seconds
    assert wide.sampling_seconds > plain.sampling_seconds
    assert wide.transformer_seconds == pytest.approx(plain.transformer_seconds, rel=1e-3)


def test_sampling_time_is_linear_in_logits(a6000: Gpu) -> None:
    def seconds(batch: int, rows: int, vocabulary: int) -> float:
        return seconds_of(sampling_kernels(a6000, DUAL, batch, rows, vocabulary, "fp32"))

    once, fixed = seconds(8, 32, 126464), seconds(1, 1, 1)
    for twice in (seconds(16, 32, 126464), seconds(8, 64, 126464), seconds(8, 32, 252928)):
        assert (twice - fixed) / (once - fixed) == pytest.approx(2, rel=0.02)


def test_what_has_no_kernels_is_refused_by_name(a6000: Gpu) -> None:
    for policy, name in (
        (Policy(64, 32, 64, remasking="entropy"), "entropy"),
        (Policy(64, 32, 64, cache="dkv"), "dkv"),
        (Policy(64, 64, 64, commit="guided"), "guided"),
    ):
        with pytest.raises(UnmaskError, match=name):
            generation_time(LLADA, policy, a6000, 100)
    with pytest.raises(UnmaskError, match="4096"):
        generation_time(LLADA, DUAL, a6000, 4090)
    with pytest.raises(UnmaskError, match="weight_bits"):
        Precision(weight_bits=32)


def profile_of(policy: Policy, steps: tuple[MeasuredStep, ...], power: float | None = 200.0) -> MeasuredProfile:
    return MeasuredProfile(
        device="a GPU", software={}, model="llada-8b", policy=sampled_as(policy), dtype="bf16", power_w=power, steps=steps
    )


def test_measured_steps_replace_modelled_ones_and_say_so(a6000: Gpu) -> None:
    modelled = generation_time(LLADA, DUAL, a6000, 100)
    kind = modelled.steps[-1].kind
    step = MeasuredStep(**kind._asdict(), transformer_s=0.5, sampling_s=0.25, repeats=3)
    mixed = generation_time(LLADA, DUAL, a6000, 100, profile=profile_of(DUAL, (step,)))
    assert modelled.measured_share == 0
    assert mixed.steps[0] == modelled.steps[0]
    assert mixed.steps[-1].seconds == 0.75
    assert mixed.steps[-1].joules == 150
    assert mixed.measured_share == pytest.approx(1 - modelled.steps[0].seconds * modelled.steps[0].count / mixed.seconds)
    with pytest.raises(UnmaskError, match="was measured with"):
        generation_time(LLADA, Policy(64, 32, 64), a6000, 100, profile=profile_of(DUAL, (step,)))


def test_published_figures_stand_beside_the_model_with_their_error() -> None:
    found = comparisons()
    assert {one.unit for one in found} == {"ms", "%", "tokens/s", "x"}
    sampling = {one.assumed: one.error for one in found if one.unit == "ms"}
    assert abs(sampling["softmax in FP32"]) < 0.25
    assert all(one.predicted > 0 and one.error == one.predicted / one.published - 1 for one in found)

"""Measuring, on a processor: the reference is what runs, and every kind of step gets its own times."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from unmask.baselines.measure import StepTimes, measure, merged, profile_steps, random_network, time_steps
from unmask.baselines.measured import MeasuredProfile
from unmask.baselines.steps import StepKind, steps_of
from unmask.decoding.policy import Policy
from unmask.errors import UnmaskError
from unmask.models.config import LladaConfig
from unmask.models.llada import Llada

PROMPT = 5


@pytest.fixture(scope="module")
def network() -> Llada:
    torch.manual_seed(0)
    config = LladaConfig(
        d_model=16,
        n_heads=2,
        n_layers=1,
        mlp_hidden_size=32,
        vocab_size=40,
        embedding_size=40,
        max_sequence_length=64,
        mask_token_id=39,
        eos_token_id=38,
        rope_theta=1e4,
    )
    return Llada(config).eval()


class Ticks:
    """A device on which every mark comes a second after the one before, but half a second between logits and the end of a step."""

    def __init__(self) -> None:
        self.now, self.marks = 0.0, 0

    def mark(self) -> float:
        self.now += 0.5 if self.marks % 3 == 2 else 1.0
        self.marks += 1
        return self.now

    def seconds(self, start: float, end: float) -> float:
        return end - start


@pytest.mark.parametrize(
    "policy",
    [
        Policy(16, 8, 16),
        Policy(16, 8, 16, cache="dual"),
        Policy(16, 8, 8, cache="prefix", exclude_mask=True),
        Policy(16, 8, 16, cfg_scale=1.0),
        Policy(16, 8, 16, cache="dual", commit="threshold", threshold=1.0),
    ],
)
def test_the_kinds_that_are_measured_are_those_that_are_modelled(network: Llada, policy: Policy) -> None:
    prompt = torch.randint(0, 38, (2, PROMPT), generator=torch.Generator().manual_seed(0))
    times = time_steps(network, prompt, policy, Ticks(), warm_up=0)
    assert {kind: len(found.transformer) for kind, found in times.items()} == steps_of(policy, network.config.architecture, PROMPT, 2)


def test_transformer_and_sampling_are_timed_apart_and_warm_up_is_left_out(network: Llada) -> None:
    times = time_steps(network, torch.zeros((1, PROMPT), dtype=torch.int64), Policy(16, 8, 16, cache="dual"), Ticks(), warm_up=3)
    first, refine = times.values()
    assert len(first.transformer) == 1
    assert len(refine.transformer) == 14 - 3
    assert set(first.transformer + refine.transformer) == {1.0}
    assert set(first.sampling + refine.sampling) == {0.5}


def test_a_profile_keeps_medians_and_survives_its_file(tmp_path: Path) -> None:
    kind = StepKind(1, 32, 768, 32)
    runs = [{kind: StepTimes([1.0, 9.0], [0.1, 0.1])}, {kind: StepTimes([2.0], [0.3])}]
    profile = MeasuredProfile(
        device="a GPU", software={}, model="llada-8b", policy={}, dtype="bf16", power_w=None, steps=profile_steps(merged(runs))
    )
    step = profile.step(kind)
    assert step is not None
    assert (step.transformer_s, step.sampling_s, step.repeats) == (2.0, 0.1, 3)
    assert profile.step(kind._replace(rows=33)) is None
    profile.write(tmp_path / "profile.json")
    assert MeasuredProfile.read(tmp_path / "profile.json") == profile
    (tmp_path / "profile.json").write_text("{}")
    with pytest.raises(UnmaskError, match="not a profile"):
        MeasuredProfile.read(tmp_path / "profile.json")


def test_random_weights_have_the_dtype_and_leave_the_default_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = {"config": {"model_type": "llada", "d_model": 16, "n_layers": 1, "n_heads": 2, "mlp_hidden_size": 32, "vocab_size": 40}}
    tiny["config"] |= {"embedding_size": 40, "max_sequence_length": 64, "mask_token_id": 39, "eos_token_id": 38}
    monkeypatch.setattr("unmask.baselines.measure.catalogue", lambda: {"tiny": tiny})
    network = random_network("tiny", "cpu")
    assert {parameter.dtype for parameter in network.parameters()} == {torch.bfloat16}
    assert torch.get_default_dtype() == torch.float32
    assert network.head_weight.unique().numel() > 100
    with pytest.raises(UnmaskError, match="tiny"):
        random_network("llada-8b", "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_without_cuda_measuring_is_refused_in_one_line(unmask, tmp_path: Path) -> None:
    with pytest.raises(UnmaskError, match="no CUDA device"):
        measure("llada-8b", Policy(16, 8, 16), 5, 1)
    status, out, err = unmask("gpu", "measure", "--model", "llada-8b", "-o", tmp_path / "profile.json")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "no CUDA device" in err
    assert not (tmp_path / "profile.json").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_cuda_device_is_measured_step_by_step() -> None:
    policy = Policy(32, 32, 8, cache="dual")
    profile = measure("llada-moe-7b-a1b", policy, 64, 1, repeats=1)
    assert {step.kind.rows for step in profile.steps} == {96, 32}
    assert all(step.transformer_s > step.sampling_s for step in profile.steps)

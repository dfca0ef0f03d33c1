"""Sampling in the machine's formats is softmax and Gumbel-max, within what its formats lose."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.decoding.policy import Policy
from unmask.decoding.sampler import FloatSampler, Sampling
from unmask.errors import UnmaskError
from unmask.quant.noise import CounterNoise
from unmask.quant.sampler import MachineSampler


def machine(seed: int, **policy) -> MachineSampler:
    return MachineSampler(Policy(**{"gen_length": 8, "block_length": 8, "steps": 8} | policy), seed=seed)


def sampling(positions: int, temperature: float = 0.0, **fields) -> Sampling:
    values = {"step": 0, "remasking": "low_confidence", "excluded": (), "deferred": (), "noise": CounterNoise(0)} | fields
    return Sampling(positions=torch.arange(positions), temperature=temperature, **values)


def logits_of(rows: int, vocabulary: int, seed: int, scale: float = 3.0) -> torch.Tensor:
    return (scale * torch.randn((1, rows, vocabulary), generator=torch.Generator().manual_seed(seed))).bfloat16().float()


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 10**6), st.integers(2, 400), st.sampled_from([0.1, 1.0, 3.0, 8.0]), st.sampled_from([0.0, 0.5, 2.0]))
def test_the_confidence_is_the_softmax_of_the_token(seed, vocabulary, scale, temperature):
    logits = logits_of(6, vocabulary, seed, scale)
    tokens, confidence = machine(seed)(logits, sampling(6, temperature))
    expected = torch.softmax(logits.double(), dim=-1).gather(-1, tokens[..., None])[..., 0]
    # A difference d is rounded to BF16, relative error 2^-8, so its exponential is off by d 2^-8, and by its own rounding (0.512 ulp).
    below = logits.double().max(dim=-1, keepdim=True).values - logits.double()
    term = 2.0**-8 * (below + 1.03)
    bound = (torch.softmax(logits.double(), dim=-1) * term).sum(dim=-1) + term.gather(-1, tokens[..., None])[..., 0]
    assert ((confidence / expected - 1).abs() <= 1.05 * bound).all()
    assert confidence.dtype is torch.float32
    assert bool(((confidence > 0) & (confidence <= 1)).all())


def test_without_temperature_the_token_is_the_first_maximum():
    logits = torch.tensor([[[1.0, 3.0, 3.0], [2.0, 2.0, 2.0], [-1.0, -3.0, 0.0]]])
    tokens, confidence = machine(0)(logits, sampling(3))
    assert tokens.tolist() == [[1, 0, 2]]
    assert confidence[0, 1] == np.float32(1) / np.float32(3)


def test_excluded_tokens_have_no_probability():
    logits = logits_of(5, 20, 1)
    tokens, confidence = machine(0)(logits, sampling(5, excluded=(3, int(logits[0, 0].argmax()))))
    others = logits.clone()
    others[..., [3, int(logits[0, 0].argmax())]] = -torch.inf
    assert torch.equal(tokens, others.argmax(dim=-1))
    assert torch.allclose(confidence, torch.softmax(others, dim=-1).max(dim=-1).values, rtol=0.05)


def test_the_logits_are_left_alone():
    logits = logits_of(3, 10, 0)
    copy = logits.clone()
    machine(0)(logits, sampling(3, 1.0, excluded=(2,)))
    assert torch.equal(logits, copy)


def test_rows_of_a_batch_draw_the_same_noise():
    logits = logits_of(4, 30, 2)
    tokens, confidence = machine(5)(torch.cat((logits, logits)), sampling(4, 1.0))
    assert torch.equal(tokens[0], tokens[1])
    assert torch.equal(confidence[0], confidence[1])


def test_random_remasking_ranks_by_the_draw_of_each_position():
    noise = CounterNoise(7)
    _, confidence = machine(7)(logits_of(6, 10, 0), sampling(6, remasking="random", step=3))
    assert torch.equal(confidence, noise.position_uniforms(3, torch.arange(6), 1))


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_deferred_tokens_can_win_but_have_no_probability(temperature):
    logits = logits_of(200, 6, 3)
    noise = CounterNoise(4)
    ours = machine(4)(logits, sampling(200, temperature, deferred=(1, 4), noise=noise))
    theirs = FloatSampler()(logits, sampling(200, temperature, deferred=(1, 4), noise=noise))
    assert (ours[0] == theirs[0]).double().mean() > 0.98
    same = ours[0] == theirs[0]
    assert torch.allclose(ours[1][same].double(), theirs[1][same].double(), rtol=0.05)
    late = (ours[0] == 1) | (ours[0] == 4)
    assert late.any()
    assert torch.equal(ours[1] == 0, late)


def test_dreams_scorers_do_not_defer():
    with pytest.raises(UnmaskError, match="deferred end-of-text tokens belong to LLaDA's scorers"):
        machine(0)(logits_of(1, 4, 0), sampling(1, remasking="entropy", deferred=(1,)))


def test_machine_and_float_samplers_mostly_draw_the_same_tokens():
    logits = logits_of(400, 50, 4)
    request = sampling(400, 0.8, noise=CounterNoise(9))
    ours, theirs = (sampler(logits, request)[0] for sampler in (machine(9), FloatSampler()))
    assert (ours == theirs).double().mean() > 0.98


LOGITS = torch.tensor([0.0, 1.0, -1.0, 2.0, 0.5, -3.0])
DRAWS = 20000


def chi_square(tokens: torch.Tensor, temperature: float) -> float:
    expected = torch.softmax(LOGITS.double() / temperature, dim=0) * tokens.numel()
    observed = torch.bincount(tokens.flatten(), minlength=len(LOGITS)).double()
    return float(((observed - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
@pytest.mark.parametrize("floating", [True, False])
def test_tokens_are_drawn_from_the_softmax_at_that_temperature(temperature, seed, floating):
    sampler = FloatSampler() if floating else machine(seed)
    tokens, _ = sampler(LOGITS.expand(1, DRAWS, -1), sampling(DRAWS, temperature, noise=CounterNoise(seed), step=2))
    # The 99.9 % quantile of chi-square with 5 degrees of freedom is 20.5.
    assert chi_square(tokens, temperature) < 20.5
    assert chi_square(tokens, temperature * 1.2) > 40


def test_steps_and_positions_draw_independently():
    draws = [machine(3)(LOGITS.expand(1, 4000, -1), sampling(4000, 1.0, step=step))[0] for step in (0, 1)]
    together = torch.softmax(LOGITS.double(), dim=0).square().sum()
    for left, right in [(draws[0], draws[1]), (draws[0][:, :-1], draws[0][:, 1:])]:
        assert abs(float((left == right).double().mean()) - together) < 0.03

"""Dream's scorers and cuts in the machine's formats are those of the floating-point reference, within what the formats lose."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.decoding.dream import DreamSampler, Timesteps
from unmask.decoding.policy import Policy
from unmask.decoding.sampler import Sampling
from unmask.errors import UnmaskError
from unmask.numerics import bf16
from unmask.quant.cut import cut, exponentials, largest_key
from unmask.quant.noise import CounterNoise
from unmask.quant.sampler import LAST, MachineSampler

quick = settings(max_examples=40, deadline=None, derandomize=True, database=None)
SCORERS = ["maskgit_plus", "topk_margin", "entropy"]


class CounterDraws:
    """Gumbel-max over the machine's words, in float64: what `DreamSampler` draws with."""

    def __init__(self, seed: int) -> None:
        self._noise = CounterNoise(seed)

    def categorical(self, step, positions, probabilities):
        uniforms = self._noise.token_uniforms(step, positions, 1, probabilities.shape[-1])[0]
        return (probabilities.double().log() - (-uniforms.log()).log()).argmax(dim=-1)

    def uniforms(self, step, positions):
        return self._noise.position_uniforms(step, positions, 1)[0]


def sampling(positions: int, temperature: float, remasking: str, **fields) -> Sampling:
    values = {"step": 0, "excluded": (), "deferred": (), "noise": CounterNoise(0)} | fields
    return Sampling(positions=torch.arange(positions), temperature=temperature, remasking=remasking, **values)


def distinct(rows: int, vocabulary: int, seed: int, scale: float = 3.0) -> torch.Tensor:
    """BF16 logits without ties in a row, none so near that rounding matters."""
    rng = np.random.default_rng(seed)
    values = np.sort(rng.normal(size=(rows, vocabulary)), axis=1) * scale + 0.05 * np.arange(vocabulary)
    return torch.from_numpy(bf16.round(rng.permuted(values, axis=1).astype(np.float32)))[None]


def both(logits, temperature, remasking, **cuts):
    rows = logits.shape[1]
    policy = Policy(gen_length=8, block_length=8, steps=8, remasking=remasking, **cuts)
    ours = MachineSampler(policy, seed=5)(logits, sampling(rows, temperature, remasking))
    theirs = DreamSampler(remasking, CounterDraws(5), **cuts)(logits.double(), sampling(rows, temperature, remasking))
    return (*ours, *theirs)


@quick
@given(
    st.integers(0, 10**6),
    st.integers(2, 60),
    st.sampled_from([0.0, 0.5, 1.0, 1.7]),
    st.sampled_from(SCORERS),
    st.sampled_from([{}, {"top_k": 1}, {"top_k": 5}, {"top_p": 0.4}, {"top_p": 0.9}, {"top_p": 0.9, "top_k": 3}]),
)
def test_candidates_and_confidences_are_the_references(seed, vocabulary, temperature, remasking, cuts):
    logits = distinct(30, vocabulary, seed)
    tokens, confidence, their_tokens, their_confidence = both(logits, temperature, remasking, **cuts)
    # A row whose `top_p` bound or whose two best noisy exponents are within rounding of each other may differ.
    same = tokens == their_tokens
    assert same.double().mean() > 0.9
    difference = (confidence.double() - their_confidence).abs()[same]
    assert (difference <= 0.08 + 0.05 * their_confidence.abs()[same]).double().mean() > 0.9
    assert difference.median() < 0.02
    assert confidence.dtype is torch.float32


@quick
@given(st.integers(0, 10**6), st.integers(2, 80), st.integers(1, 90))
def test_top_k_keeps_the_largest_and_those_that_tie_with_the_last(seed, vocabulary, k):
    rng = np.random.default_rng(seed)
    logits = np.round(rng.normal(size=(7, vocabulary)) * 3).astype(np.float32) * rng.choice([1, -0.0], (7, 1)).astype(np.float32)
    kept = np.isfinite(cut(logits, logits.max(axis=1), 1.0, None, k))
    bound = np.sort(logits, axis=1)[:, ::-1][:, min(k, vocabulary) - 1]
    np.testing.assert_array_equal(kept, logits >= bound[:, None])


@quick
@given(st.integers(0, 10**6), st.integers(2, 80), st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.99, 1.0]), st.sampled_from([0.0, 0.6, 2.0]))
def test_top_p_keeps_the_fewest_largest_that_exceed_it(seed, vocabulary, p, temperature):
    logits = distinct(7, vocabulary, seed)[0].numpy()
    weights = exponentials(logits, logits.max(axis=1), temperature).astype(np.float64)
    kept = np.isfinite(cut(logits, logits.max(axis=1), temperature, p, None))
    for row in range(7):
        order = np.argsort(-logits[row])
        mass = np.floor(weights[row, order] * 2**32).cumsum() / 2**32
        limit = float(np.float32(mass[-1]) * np.float32(p))
        over = np.flatnonzero(mass.astype(np.float32) > limit)
        count = over[0] + 1 if p < 1 and len(over) else vocabulary
        assert sorted(np.flatnonzero(kept[row])) == sorted(order[:count])


def test_the_search_finds_the_largest_key_that_weighs_more_than_the_limit():
    keys = np.array([[5, 9, 9, 65535], [1, 2, 3, 4]], np.uint16)
    weights = np.array([[1, 2, 4, 8], [1, 1, 1, 1]], np.float32)
    for limit, expected in (((7.5, 3.5), (65535, 1)), ((8, 2), (9, 2)), ((13.9, 0), (9, 4)), ((14, 4), (5, 0)), ((np.nan, 3), (0, 1))):
        assert largest_key(keys, weights, np.array(limit, np.float32)).tolist() == list(expected)


def test_origin_commits_with_the_probability_of_its_step():
    policy = Policy(gen_length=8, block_length=8, steps=8, remasking="origin", schedule="timesteps")
    logits = distinct(4000, 5, 0)
    for step in (0, 3, 7):
        _, confidence = MachineSampler(policy, seed=2)(logits, sampling(4000, 1.0, "origin", step=step, block_step=step))
        fraction = Timesteps(8, policy.eps).fraction(step)
        draws = CounterNoise(2).position_uniforms(step, torch.arange(4000), 1)
        assert torch.equal(confidence, (draws < fraction).float())


def test_one_token_is_certain():
    logits = torch.full((1, 1, 9), -torch.inf)
    logits[0, 0, 4] = 2.0
    for remasking, expected in (("maskgit_plus", 1.0), ("topk_margin", 1.0), ("entropy", 0.0)):
        for temperature in (0.0, 0.7):
            tokens, confidence, *_ = both(logits, temperature, remasking)
            assert tokens.item() == 4
            assert confidence.item() == expected


@pytest.mark.parametrize("remasking", [*SCORERS, "low_confidence"])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, None])
def test_a_row_without_a_softmax_comes_last(remasking, wrong):
    logits = distinct(3, 9, 1)
    logits[0, 1] = -torch.inf
    if wrong is not None:
        logits[0, 1, 3] = wrong
        logits[0, 1, 5] = 1.0
    for cuts in ({}, {"top_p": 0.5, "top_k": 3}) if remasking in SCORERS else ({},):
        policy = Policy(gen_length=8, block_length=8, steps=8, remasking=remasking, **cuts)
        _, confidence = MachineSampler(policy)(logits, sampling(3, 0.7, remasking))
        assert confidence[0, 1] == LAST
        assert (confidence[0, [0, 2]] > LAST).all()


@pytest.mark.parametrize(("temperature", "what"), [(1e39, "is beyond BF16"), (1e-39, "inverse beyond BF16")])
def test_a_temperature_that_bf16_cannot_hold_is_an_error(temperature, what):
    policy = Policy(gen_length=8, block_length=8, steps=8, remasking="entropy")
    with pytest.raises(UnmaskError, match=what):
        MachineSampler(policy)(distinct(1, 4, 0), sampling(1, temperature, "entropy"))

"""The machine's committers draw and compare as the published rules do."""

import itertools

import numpy as np
import pytest
import torch

from unmask.decoding.commit import Certain, Factor, Threshold, TopK
from unmask.decoding.policy import Policy
from unmask.errors import UnmaskError
from unmask.numerics import noise
from unmask.quant.commit import MachineDrawn, due_word, factor_bars, inverse_temperature, machine_committer
from unmask.quant.sampler import LAST


def policy(**fields) -> Policy:
    return Policy(gen_length=8, block_length=8, steps=8, **fields)


def test_a_policy_names_its_committer():
    for fields, kind in (
        ({}, TopK),
        ({"commit": "threshold"}, Threshold),
        ({"commit": "factor"}, Factor),
        ({"commit": "guided"}, Certain),
        ({"remasking": "origin", "schedule": "timesteps"}, Certain),
        ({"remasking": "entropy", "alg_temp": 0.5}, MachineDrawn),
    ):
        assert type(machine_committer(policy(**fields))) is kind


def test_positions_are_drawn_without_replacement_from_the_softmax():
    confidence, temperature, draws = torch.tensor([[0.9, 0.5, -torch.inf, 0.1, 0.7]]), 0.3, 20000
    weights = np.exp(np.array([0.9, 0.5, 0.1, 0.7]) / temperature)
    weights /= weights.sum()
    places, counts = [0, 1, 3, 4], {}
    committer = MachineDrawn(temperature, 3)
    for _ in range(draws):
        chosen = committer(confidence, torch.tensor([2]))
        pair = tuple(chosen[0].nonzero()[:, 0].tolist())
        counts[pair] = counts.get(pair, 0) + 1
    assert sum(counts.values()) == draws
    statistic = 0.0
    for a, b in itertools.combinations(range(4), 2):
        p = weights[a] * weights[b] / (1 - weights[a]) + weights[b] * weights[a] / (1 - weights[b])
        statistic += (counts.get((places[a], places[b]), 0) - draws * p) ** 2 / (draws * p)
    assert statistic < 20.5  # the 99.9 % quantile for 5 degrees of freedom


def test_each_call_is_a_step_and_rows_draw_alike():
    confidence = torch.zeros(2, 50)
    committer, again = MachineDrawn(1.0, 9), MachineDrawn(1.0, 9 + 2**32)
    steps = [committer(confidence, torch.tensor([5, 5])) for _ in range(3)]
    assert all(torch.equal(step[0], step[1]) for step in steps)
    assert not torch.equal(steps[0], steps[1])
    assert all(torch.equal(step, again(confidence, torch.tensor([5, 5]))) for step in steps)


def test_rows_that_come_last_are_drawn_last():
    confidence = torch.tensor([[LAST, -12.0, LAST, -11.0]])
    for seed in range(50):
        assert MachineDrawn(0.01, seed)(confidence, torch.tensor([2])).tolist() == [[False, True, False, True]]
        assert MachineDrawn(5.0, seed)(confidence, torch.tensor([3])).tolist() == [[True, True, False, True]]


def test_the_draws_words_are_those_of_the_position():
    confidence = torch.linspace(0, 1, 40)[None]
    chosen = MachineDrawn(0.5, 4)(confidence, torch.tensor([1]))
    scores = confidence[0].numpy() * np.float32(2) + noise.gumbel_fp32(noise.position_bits(4, 0, np.arange(40)))
    assert chosen[0].nonzero().item() == scores.argmax()


@pytest.mark.parametrize("factor", [0.01, 0.3, 1.0, 1.7, 4.0, 1e30, 1e39, 1e300])
def test_a_confidence_clears_the_rounded_bar_exactly_if_it_clears_the_bar(factor):
    bars = factor_bars(factor, 40)
    assert bars[0] == -np.inf
    for rank, bar in enumerate(bars[1:], 1):
        exact = 1 - factor / (rank + 2)
        near = np.float32(max(exact, LAST))
        for confidence in (near, np.nextafter(near, np.float32(2)), np.nextafter(near, np.float32(LAST)), np.float32(LAST)):
            assert (float(confidence) >= exact) == (float(confidence) >= bar), (rank, confidence)


def test_a_due_word_bounds_the_24_bits_of_a_draw():
    words = np.arange(0, 2**24, 4099)
    for fraction in (0.0, 0.3, float(np.float32(1) / 3), 1 - 2.0**-24, 1.0):
        np.testing.assert_array_equal(words < due_word(fraction), words * 2.0**-24 < fraction)


def test_a_temperature_of_the_draw_is_positive():
    assert inverse_temperature(1e-300) == float(np.finfo(np.float32).max)
    with pytest.raises(UnmaskError, match="alg_temp is 0"):
        inverse_temperature(0)

"""The machine's random numbers, as samplers in floating point see them."""

import numpy as np
import torch

from unmask.numerics import noise
from unmask.quant.noise import CounterNoise


def test_a_draw_depends_on_seed_step_position_and_token_alone():
    whole = CounterNoise(5).token_uniforms(2, torch.arange(10), 1, 40)
    part = CounterNoise(5).token_uniforms(2, torch.tensor([7, 3]), 1, 17)
    assert torch.equal(part[0], whole[0, [7, 3], :17])
    assert torch.equal(CounterNoise(5).token_uniforms(2, torch.arange(10), 1, 40), whole)
    for other in (CounterNoise(6).token_uniforms(2, torch.arange(10), 1, 40), CounterNoise(5).token_uniforms(3, torch.arange(10), 1, 40)):
        assert not (other == whole).any()


def test_rows_of_a_batch_draw_the_same():
    draws = CounterNoise(1)
    assert draws.token_uniforms(0, torch.arange(3), 4, 6).shape == (4, 3, 6)
    assert draws.position_uniforms(0, torch.arange(3), 4).shape == (4, 3)
    assert torch.equal(*draws.token_uniforms(0, torch.arange(3), 2, 6))


def test_draws_are_the_words_of_the_counter():
    positions = torch.tensor([4, 100])
    words = noise.uniform_bits(9, 1, positions.numpy(), np.arange(5))
    uniforms = CounterNoise(9).token_uniforms(1, positions, 1, 5)
    assert uniforms.dtype is torch.float64
    np.testing.assert_array_equal(uniforms[0].numpy() * 2**32, words + 0.5)
    ranks = CounterNoise(9).position_uniforms(1, positions, 1)
    assert ranks.dtype is torch.float32
    np.testing.assert_array_equal(ranks[0].numpy() * 2**24, noise.position_bits(9, 1, positions.numpy()) >> 8)


def test_draws_are_uniform_and_strictly_inside():
    draws = CounterNoise(0).token_uniforms(0, torch.arange(200), 1, 500).flatten()
    assert float(draws.min()) > 0
    assert float(draws.max()) < 1
    counts = torch.histc(draws, 20, 0, 1)
    # 19 degrees of freedom: the 99.9 % quantile is 43.8.
    assert float(((counts - 5000) ** 2 / 5000).sum()) < 43.8

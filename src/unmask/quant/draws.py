"""The machine's random choices for Dream's samplers that compute in floating point."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from unmask.numerics import noise


class CounterDraws:
    """An `unmask.decoding.dream.Draws` of the words that the machine draws: (seed, step, position, token) decide each choice.

    Choices in proportion to weights are maxima of log weight + Gumbel noise. `distinct` is not told its step and counts its calls: one
    object serves one generation.
    """

    def __init__(self, seed: int) -> None:
        """Set the seed, modulo 2^32."""
        self._seed, self._calls = seed % 2**32, 0

    def categorical(self, step: int, positions: Tensor, probabilities: Tensor) -> Tensor:
        """One token per row of `probabilities` [n, vocabulary]: int64 [n]."""
        words = noise.uniform_bits(self._seed, step, positions.numpy(), np.arange(probabilities.shape[1]))
        return (probabilities.double().log() + _gumbel(words)).argmax(dim=-1)

    def uniforms(self, step: int, positions: Tensor) -> Tensor:
        """One float32 draw in [0, 1) per canvas position int64 [n]."""
        return torch.from_numpy(noise.uniform(noise.position_bits(self._seed, step, positions.numpy())))

    def distinct(self, weights: Tensor, count: int) -> Tensor:
        """`count` different indices per row of `weights` [batch, n]: int64 [batch, count]."""
        words = noise.position_bits(self._seed, self._calls, np.arange(weights.shape[1]))
        self._calls += 1
        scores = weights.double().log() + _gumbel(words)
        return torch.sort(scores, dim=-1, descending=True, stable=True).indices[:, :count]


def _gumbel(words: np.ndarray) -> Tensor:
    """-ln(-ln u) in float64, u = (word + 1/2) / 2^32."""
    return torch.from_numpy(-np.log(-np.log((words.astype(np.float64) + 0.5) / 2**32)))

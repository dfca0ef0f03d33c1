"""The machine's random numbers for samplers that compute in floating point."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from unmask.numerics import noise


class CounterNoise:
    """An `unmask.decoding.noise.NoiseSource` of the words that the machine draws: (seed, step, position, token) decide each draw.

    Rows of a batch draw the same numbers, as separate runs of the machine with one seed do. The seed counts modulo 2^32.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed % 2**32

    def token_uniforms(self, step: int, positions: Tensor, batch: int, vocab_size: int) -> Tensor:
        """float64 [batch, len(positions), vocab_size]: (word + 1/2) / 2^32."""
        words = noise.uniform_bits(self._seed, step, positions.numpy(), np.arange(vocab_size))
        return torch.from_numpy((words.astype(np.float64) + 0.5) / 2**32).expand(batch, -1, -1)

    def position_uniforms(self, step: int, positions: Tensor, batch: int) -> Tensor:
        """float32 [batch, len(positions)]: the upper 24 bits of words that no token uses."""
        words = noise.position_bits(self._seed, step, positions.numpy())
        return torch.from_numpy(noise.uniform(words)).expand(batch, -1)

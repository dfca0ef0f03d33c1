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

    def _words(self, step: int, positions: Tensor, tokens: int) -> np.ndarray:
        return noise.uniform_bits(self._seed, step, positions.numpy(), np.arange(tokens))

    def token_uniforms(self, step: int, positions: Tensor, batch: int, vocab_size: int) -> Tensor:
        """float64 [batch, len(positions), vocab_size]: (word + 1/2) / 2^32."""
        uniform = (self._words(step, positions, vocab_size).astype(np.float64) + 0.5) / 2**32
        return torch.from_numpy(uniform).expand(batch, -1, -1)

    def position_uniforms(self, step: int, positions: Tensor, batch: int) -> Tensor:
        """float32 [batch, len(positions)]: the upper 24 bits."""
        return torch.from_numpy(noise.uniform(self._words(step, positions, 1))[:, 0]).expand(batch, -1)

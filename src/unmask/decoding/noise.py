"""Where the random numbers of a sampler come from."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class NoiseSource(Protocol):
    """Uniform draws in [0, 1) for one denoising step.

    A sequential generator may ignore `step` and `positions` and answer in call order; a counter-based one computes every draw from
    them, so that its numbers do not depend on what else is drawn.
    """

    def token_uniforms(self, step: int, positions: Tensor, batch: int, vocab_size: int) -> Tensor:
        """One draw per candidate token, for Gumbel-max: float64 [batch, len(positions), vocab_size].

        Args:
            step: the denoising step, counted over the whole generation.
            positions: int64 [n], the canvas positions that are sampled.
            batch: rows of the canvas.
            vocab_size: tokens per position.
        """
        ...

    def position_uniforms(self, step: int, positions: Tensor, batch: int) -> Tensor:
        """One draw per position, for random remasking: float32 [batch, len(positions)]; arguments as above."""
        ...


class TorchNoise:
    """PyTorch's generator, drawn in the order in which LLaDA's `generate` calls `torch.rand_like` and `torch.rand` on a CPU.

    The numbers are LLaDA's own after `torch.manual_seed(seed)` if, like LLaDA, the caller samples every position of the canvas
    (`Policy.exclude_mask` False); sampling only the active block consumes fewer.
    """

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def token_uniforms(self, step: int, positions: Tensor, batch: int, vocab_size: int) -> Tensor:
        shape = (batch, len(positions), vocab_size)
        return torch.rand(shape, dtype=torch.float64, generator=self._generator).to(positions.device)

    def position_uniforms(self, step: int, positions: Tensor, batch: int) -> Tensor:
        return torch.rand((batch, len(positions)), generator=self._generator).to(positions.device)

"""From logits to a candidate token and its confidence, for every position sampled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from unmask.decoding.noise import NoiseSource
from unmask.decoding.policy import Remasking


@dataclass(frozen=True)
class Sampling:
    """What a sampler is told about one denoising step.

    Attributes:
        step: counted over the whole generation.
        positions: int64 [n], the canvas position of each row of logits.
        temperature: 0 for the arg-max, else that of Gumbel-max.
        remasking: what the confidence is.
        excluded: tokens whose logit counts as -inf from the start: they cannot win, and are no part of the softmax's sum.
        deferred: tokens that can win, but whose logit counts as -inf in the confidence.
        noise: where random numbers come from.
        eligible: bool [batch, n], the positions that may be committed; None if unknown. What is sampled elsewhere is not used.
        block: the canvas positions of the active block; None if unknown.
        block_step: counted from the start of the block.
        canvas: int64 [batch, positions], the whole canvas before the step; None if unknown.
    """

    step: int
    positions: Tensor
    temperature: float
    remasking: Remasking
    excluded: tuple[int, ...]
    deferred: tuple[int, ...]
    noise: NoiseSource
    eligible: Tensor | None = None
    block: range | None = None
    block_step: int = 0
    canvas: Tensor | None = None


class Sampler(Protocol):
    """The step's candidates. Another implementation computes them in a machine's number formats."""

    def __call__(self, logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
        """Sample.

        Args:
            logits: [batch, n, vocabulary], after guidance; must not be modified.
            sampling: the step.

        Returns:
            The candidate tokens, int64 [batch, n], ties to the lowest id; and their confidence, floating point [batch, n], above
            -inf.
        """
        ...


class FloatSampler:
    """LLaDA's arithmetic: Gumbel-max in float64 (arXiv 2409.02908 on why), confidence by softmax in the dtype of the logits or, as
    Fast-dLLM computes it, in another one.
    """

    def __init__(self, confidence: torch.dtype | None = None) -> None:
        """Set the dtype of the confidence; None for that of the logits."""
        self._confidence = confidence

    def __call__(self, logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
        logits = without(logits, sampling.excluded)
        candidates = self.scores(logits, sampling).argmax(dim=-1)
        if sampling.remasking == "random":
            return candidates, sampling.noise.position_uniforms(sampling.step, sampling.positions, logits.shape[0])
        probability = torch.softmax(without(logits, sampling.deferred), dim=-1, dtype=self._confidence)
        return candidates, probability.gather(-1, candidates[..., None]).squeeze(-1)

    def scores(self, logits: Tensor, sampling: Sampling) -> Tensor:
        """What the candidate maximises: the logits, or `exp(l) / (-ln U)^T`, which is Gumbel-max without its outer logarithm."""
        if sampling.temperature == 0:
            return logits
        batch, _, vocab_size = logits.shape
        uniform = sampling.noise.token_uniforms(sampling.step, sampling.positions, batch, vocab_size)
        return logits.double().exp() / (-uniform.log()) ** sampling.temperature


def without(logits: Tensor, tokens: tuple[int, ...]) -> Tensor:
    """The logits [..., vocabulary] with those of `tokens` at -inf."""
    if not tokens:
        return logits
    return logits.index_fill(-1, torch.tensor(tokens, device=logits.device), -torch.inf)

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
    """

    step: int
    positions: Tensor
    temperature: float
    remasking: Remasking
    excluded: tuple[int, ...]
    deferred: tuple[int, ...]
    noise: NoiseSource


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
    """LLaDA's arithmetic: Gumbel-max in float64 (arXiv 2409.02908 on why), confidence by softmax in the dtype of the logits."""

    def __call__(self, logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
        logits = _without(logits, sampling.excluded)
        candidates = self.scores(logits, sampling).argmax(dim=-1)
        if sampling.remasking == "random":
            return candidates, sampling.noise.position_uniforms(sampling.step, sampling.positions, logits.shape[0])
        probability = torch.softmax(_without(logits, sampling.deferred), dim=-1)
        return candidates, probability.gather(-1, candidates[..., None]).squeeze(-1)

    def scores(self, logits: Tensor, sampling: Sampling) -> Tensor:
        """What the candidate maximises: the logits, or `exp(l) / (-ln U)^T`, which is Gumbel-max without its outer logarithm."""
        if sampling.temperature == 0:
            return logits
        batch, _, vocab_size = logits.shape
        uniform = sampling.noise.token_uniforms(sampling.step, sampling.positions, batch, vocab_size)
        return logits.double().exp() / (-uniform.log()) ** sampling.temperature


def _without(logits: Tensor, tokens: tuple[int, ...]) -> Tensor:
    if not tokens:
        return logits
    return logits.index_fill(-1, torch.tensor(tokens, device=logits.device), -torch.inf)

"""Dream's decoding (Ye et al., arXiv 2508.15487): its schedule, its samplers, and the draws that they need."""

from __future__ import annotations

import dataclasses
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from unmask.decoding.sampler import Sampler, Sampling, without
from unmask.errors import UnmaskError

Algorithm = Literal["maskgit_plus", "topk_margin", "entropy", "origin"]

_COLDEST, _HOTTEST = 1e-30, 1e30
"""Temperatures beyond these would make a quotient infinite or NaN in float32, and are as good as these."""


class Draws(Protocol):
    """Random choices. A sequential generator may ignore `step` and `positions`."""

    def categorical(self, step: int, positions: Tensor, probabilities: Tensor) -> Tensor:
        """One token per row of `probabilities` [n, vocabulary], for canvas positions int64 [n]: int64 [n]."""
        ...

    def uniforms(self, step: int, positions: Tensor) -> Tensor:
        """One float32 draw in [0, 1) per canvas position int64 [n]: [n]."""
        ...

    def distinct(self, weights: Tensor, count: int) -> Tensor:
        """`count` different indices per row of `weights` [batch, n], drawn one after the other in proportion: int64 [batch, count]."""
        ...


class TorchDraws:
    """PyTorch's generator, in the order and with the functions of Dream's published code."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def categorical(self, step: int, positions: Tensor, probabilities: Tensor) -> Tensor:
        normalised = probabilities / probabilities.sum(dim=-1, keepdim=True)
        return torch.multinomial(normalised, 1, replacement=True, generator=self._generator)[:, 0]

    def uniforms(self, step: int, positions: Tensor) -> Tensor:
        return torch.rand(len(positions), generator=self._generator)

    def distinct(self, weights: Tensor, count: int) -> Tensor:
        return torch.multinomial(weights, count, generator=self._generator)


class Timesteps:
    """Dream's schedule: time falls from 1 to `eps` in `steps` equal float32 steps, and the step from `t` to `s` commits the fraction
    `1 - s / t` of a row's masks, truncated, so sometimes none; the last step commits the rest.
    """

    def __init__(self, steps: int, eps: float = 1e-3) -> None:
        """Set the denoising steps of every block, and where time ends."""
        self._steps, self._times = steps, torch.linspace(1, eps, steps + 1)

    def fraction(self, step: int) -> Tensor:
        """What is committed of the masks, float32; all of them in the last step."""
        if step >= self._steps - 1:
            return torch.tensor(1.0)
        return 1 - self._times[step + 1] / self._times[step]

    def __call__(self, step: int, masks_at_start: Tensor, masks: Tensor) -> Tensor | None:
        if step >= self._steps:
            return None
        return (masks * self.fraction(step)).long()


class SharedTimesteps:
    """FlashDLM's schedule (Hu et al., arXiv 2505.21467): one time axis over all blocks. A step commits its fraction of all masks that are
    left on the canvas, but within the block; a block's last step commits the rest of the block.
    """

    def __init__(self, masks: Tensor, steps_per_block: int, eps: float = 1e-3) -> None:
        """Set the shape of the generation, and where time ends. One object serves one generation.

        Args:
            masks: int64 [batch, blocks], masked positions of every block; one without any in all rows takes no step.
            steps_per_block: of every other block.
            eps: where time ends.
        """
        self._later, self._steps = masks[:, (masks > 0).any(dim=0)], steps_per_block
        self._done = 0
        self._timesteps = Timesteps(self._later.shape[1] * steps_per_block, eps)

    def __call__(self, step: int, masks_at_start: Tensor, masks: Tensor) -> Tensor | None:
        if step == self._steps:
            return None
        if step == 0:
            self._later = self._later[:, 1:]
        self._done += 1
        if step == self._steps - 1:
            return masks
        everywhere = masks + self._later.sum(dim=1)
        return (everywhere * self._timesteps.fraction(self._done - 1)).long().minimum(masks)


class DreamSampler:
    """Logits divided by the temperature, cut to the most probable tokens (`top_p`, then `top_k`) and drawn from their softmax, or its
    maximum at temperature 0.

    The confidence is by algorithm: `maskgit_plus` the probability of the candidate; `topk_margin` the lead of the best token over the
    second; `entropy` the negative entropy `sum p ln(p + 1e-10)`; `origin` 1 with probability `1 - s / t`, else 0 (for `Certain`).
    """

    def __init__(
        self,
        algorithm: str,
        draws: Draws,
        *,
        top_p: float | None = None,
        top_k: int | None = None,
        timesteps: Timesteps | None = None,
    ) -> None:
        """Choose.

        Args:
            algorithm: what the confidence is, one of `Algorithm`.
            draws: where random choices come from.
            top_p: keep the most probable tokens up to and including the first at which their sum exceeds this; None or 1 keeps all.
            top_k: keep so many tokens, and those that tie with the last; None keeps all.
            timesteps: the schedule, which `origin` needs.

        Raises:
            UnmaskError: an unknown algorithm, a `top_p` or `top_k` out of range, or `origin` without its schedule.
        """
        if algorithm not in get_args(Algorithm):
            raise UnmaskError(f"algorithm is {algorithm!r}; supported: {', '.join(get_args(Algorithm))}")
        if top_p is not None and not 0 <= top_p <= 1:
            raise UnmaskError(f"top_p is {top_p!r}; it must lie in [0, 1]")
        if top_k is not None and top_k < 1:
            raise UnmaskError(f"top_k is {top_k!r}; it must be at least 1")
        if algorithm == "origin" and timesteps is None:
            raise UnmaskError("the algorithm origin needs a schedule of timesteps")
        self._algorithm, self._draws, self._top_p, self._top_k, self._timesteps = algorithm, draws, top_p, top_k, timesteps

    def __call__(self, logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
        """See `Sampler`.

        Raises:
            UnmaskError: deferred tokens, which these confidences do not provide for.
        """
        if sampling.deferred:
            raise UnmaskError("deferred end-of-text tokens are not supported by Dream's samplers")
        chosen = torch.ones(logits.shape[:-1], dtype=torch.bool) if sampling.eligible is None else sampling.eligible
        positions = sampling.positions.expand(chosen.shape)
        confidence = torch.zeros(chosen.shape, dtype=logits.dtype)
        if self._algorithm == "origin" and self._timesteps is not None:
            due = chosen.clone()
            due[chosen] = self._draws.uniforms(sampling.step, positions[chosen]) < self._timesteps.fraction(sampling.block_step)
            chosen = due
        tokens = torch.zeros(chosen.shape, dtype=torch.int64)
        probabilities = self._probabilities(without(logits, sampling.excluded)[chosen], sampling.temperature)
        tokens[chosen] = self._tokens(probabilities, sampling, positions[chosen])
        confidence[chosen] = self._confidence(probabilities, tokens[chosen])
        return tokens, confidence

    def _probabilities(self, logits: Tensor, temperature: float) -> Tensor:
        logits = _divided(logits, temperature) if temperature > 0 else logits
        least = torch.finfo(logits.dtype).min
        if self._top_p is not None and self._top_p < 1:
            ranked, order = torch.sort(logits, dim=-1, descending=True)
            beyond = torch.softmax(ranked, dim=-1).cumsum(dim=-1) > self._top_p
            cut = torch.cat((torch.zeros_like(beyond[:, :1]), beyond[:, :-1]), dim=-1)
            logits = logits.masked_fill(torch.zeros_like(cut).scatter(-1, order, cut), least)
        if self._top_k is not None:
            kth = logits.sort(dim=-1, descending=True).values[:, min(self._top_k, logits.shape[-1]) - 1]
            logits = logits.masked_fill(logits < kth[:, None], least)
        return torch.softmax(logits, dim=-1)

    def _tokens(self, probabilities: Tensor, sampling: Sampling, positions: Tensor) -> Tensor:
        if sampling.temperature == 0:
            return probabilities.argmax(dim=-1)
        return self._draws.categorical(sampling.step, positions, probabilities)

    def _confidence(self, probabilities: Tensor, tokens: Tensor) -> Tensor:
        if self._algorithm == "origin":
            return torch.ones(len(tokens), dtype=probabilities.dtype)
        if self._algorithm == "topk_margin":
            best = probabilities.sort(dim=-1, descending=True).values
            return best[:, 0] - best[:, 1]
        if self._algorithm == "entropy":
            return (probabilities * (probabilities + 1e-10).log()).sum(dim=-1)
        return probabilities.gather(-1, tokens[:, None])[:, 0]


class Drawn:
    """The scheduled number of positions, drawn without replacement from the softmax of `confidence / temperature` (Dream's `alg_temp`).

    Rows of a batch that commit equally many are drawn together, as published, where all do.
    """

    def __init__(self, temperature: float, draws: Draws) -> None:
        """Set how far the choice may stray from the most confident candidates.

        Raises:
            UnmaskError: a temperature that is not a positive number.
        """
        if not 0 < temperature < float("inf"):
            raise UnmaskError(f"alg_temp is {temperature!r}; it must be a positive number")
        self._temperature, self._draws = temperature, draws

    def __call__(self, confidence: Tensor, counts: Tensor) -> Tensor:
        eligible = confidence != -torch.inf
        wanted = torch.minimum(counts, eligible.sum(dim=-1))
        chosen = torch.zeros_like(eligible)
        for count in sorted(set(wanted[wanted > 0].tolist())):
            rows = wanted == count
            weights = torch.softmax(_divided(confidence[rows], self._temperature), dim=-1)
            # A candidate of no probability, to rounding, still comes before what is no candidate.
            weights = weights.where(~eligible[rows], weights.clamp(min=torch.finfo(weights.dtype).tiny))
            chosen[rows] = chosen[rows].scatter(-1, self._draws.distinct(weights, count), True)
        return chosen & eligible


class Opening:
    """Fast-dLLM's blocks on Dream: the first step of a block, which refreshes the cache, commits the block's first masked position alone.
    That is because the prediction of a block's first position lies in the row before the block, which cached steps do not feed. No other
    position of that step has a confidence: it is -inf, so that no committer takes it.
    """

    def __init__(self, sampler: Sampler) -> None:
        """Wrap the sampler that draws the candidates, and gives the confidences of the other steps."""
        self._sampler = sampler

    def __call__(self, logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
        if sampling.block_step > 0 or sampling.block is None:
            return self._sampler(logits, sampling)
        tokens, confidence = self._sampler(logits, dataclasses.replace(sampling, eligible=None))
        masked = (sampling.positions >= sampling.block.start).expand(confidence.shape)
        masked = masked if sampling.eligible is None else masked & sampling.eligible
        first = masked & (masked.cumsum(dim=-1) == 1)
        return tokens, torch.full_like(confidence, -torch.inf).masked_fill(first, 1)


class OpenedTimesteps:
    """The schedule that goes with `Opening`: one position, then `Timesteps` from its second step on. A block ends when it is clean, but not
    before its second step.
    """

    def __init__(self, steps: int, eps: float = 1e-3) -> None:
        """Set the denoising steps of every block, and where time ends."""
        self._steps, self._timesteps = steps, Timesteps(steps, eps)

    def __call__(self, step: int, masks_at_start: Tensor, masks: Tensor) -> Tensor | None:
        if step == 0:
            return torch.ones_like(masks)
        if step > 1 and not bool(masks.any()):
            return None
        if step == self._steps:  # as published: one more forward pass, which commits nothing
            return torch.zeros_like(masks)
        return self._timesteps(step, masks_at_start, masks)


def _divided(values: Tensor, temperature: float) -> Tensor:
    return values / min(max(temperature, _COLDEST), _HOTTEST)

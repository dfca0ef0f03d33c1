"""What others would have committed in the steps of a generation, each step on the generation's own canvas: one change does not cascade."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unmask.decoding.compose import cache_of, sampler_of
from unmask.decoding.evaluate import Evaluator
from unmask.decoding.generate import StepRecord
from unmask.decoding.guide import CachedGuide
from unmask.decoding.policy import Policy
from unmask.decoding.sampler import Sampler, Sampling
from unmask.models.family import Network
from unmask.models.guide import GuideNetwork
from unmask.quant.commit import machine_committer
from unmask.quant.draws import CounterDraws


@dataclass
class Commits:
    """How another sampler's commits compare with those of a generation.

    Attributes:
        total: commits of the generation.
        tokens: of these, positions that the other commits too, but with another token.
        positions: of these, positions that the other does not commit in that step.
    """

    total: int = 0
    tokens: int = 0
    positions: int = 0

    @property
    def changed(self) -> int:
        """Commits that the other does not share."""
        return self.tokens + self.positions

    def add(self, more: Commits) -> None:
        """Count another generation's too."""
        self.total, self.tokens, self.positions = self.total + more.total, self.tokens + more.tokens, self.positions + more.positions


class Beside:
    """A sampler for one generation of one row, which lets others sample every step too. Give `on_step` to `generate`."""

    def __init__(self, sampler: Sampler, others: Sequence[Sampler], policy: Policy) -> None:
        """Set who samples.

        Args:
            sampler: decides.
            others: are compared with it, each with a committer of its own.
            policy: gives the committers.
        """
        self._sampler, self._others = sampler, others
        self._committers = [machine_committer(policy) for _ in others]
        self._sampled: list[tuple[Tensor, Tensor]] = []
        self.commits = [Commits() for _ in others]

    def __call__(self, logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
        """See `Sampler`."""
        self._sampled, place = [], sampling.positions
        assert sampling.canvas is not None
        assert sampling.eligible is not None
        for other in self._others:
            tokens, confidence = other(logits, sampling)
            nowhere = confidence.new_full(sampling.canvas.shape, -torch.inf)
            confidence = confidence.masked_fill(~sampling.eligible, -torch.inf)
            self._sampled.append((sampling.canvas.index_copy(1, place, tokens), nowhere.index_copy(1, place, confidence)))
        return self._sampler(logits, sampling)

    def on_step(self, record: StepRecord) -> None:
        """Compare the commits of the step that was just sampled."""
        counts = record.committed.sum(dim=1)
        for commits, committer, (tokens, confidence) in zip(self.commits, self._committers, self._sampled, strict=True):
            both = record.committed & committer(confidence, counts)
            total = int(counts.sum())
            commits.add(Commits(total, int((both & (tokens != record.candidates)).sum()), total - int(both.sum())))


class Elsewhere:
    """Samples what another network makes of the step's canvas, in floating point with the machine's random numbers; for one generation."""

    def __init__(self, model: Network, policy: Policy, prompt_length: int, guide: GuideNetwork | None) -> None:
        """Set the network, the policy that both follow, and under the commit `guided` the guide."""
        self._policy, self._config, self._guide = policy, model.config, guide
        given = torch.arange(prompt_length + policy.gen_length)[None] < prompt_length
        self._evaluate = Evaluator(model, given, prompt_length, policy.cfg_scale, None, cache_of(policy))
        self._draws = CounterDraws(policy.seed)

    def __call__(self, logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
        """See `Sampler`; `logits` is not looked at."""
        assert sampling.canvas is not None
        assert sampling.block is not None
        window = sampling.block if self._policy.exclude_mask else None
        own = self._evaluate(sampling.canvas, sampling.block, sampling.block_step, window).logits
        # A guide's sampler remembers what it accepted, and the generation may have accepted something else.
        guide = None if self._guide is None else CachedGuide(self._guide)
        return sampler_of(self._policy, self._config, draws=self._draws, guide=guide)(own, sampling)

"""Which of a step's candidates are committed."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from unmask.errors import UnmaskError


class Committer(Protocol):
    """Chooses among the candidates of one step."""

    def __call__(self, confidence: Tensor, counts: Tensor) -> Tensor:
        """Choose.

        Args:
            confidence: [batch, positions], -inf where a position is not eligible.
            counts: int64 [batch], how many the schedule commits in each row.

        Returns:
            bool [batch, positions], True where the candidate is committed; never where the confidence is -inf.
        """
        ...


class TopK:
    """The scheduled number of most confident candidates, ties to the lowest index.

    `torch.topk` breaks ties as it likes; a stable sort does not. A row with fewer candidates than scheduled commits them all.
    """

    def __call__(self, confidence: Tensor, counts: Tensor) -> Tensor:
        order = torch.sort(confidence, dim=-1, descending=True, stable=True).indices
        ranked = torch.arange(confidence.shape[-1], device=confidence.device) < counts[:, None]
        chosen = torch.zeros_like(ranked).scatter(-1, order, ranked)
        return chosen & (confidence != -torch.inf)


class Threshold:
    """Fast-dLLM's confidence threshold (Wu et al., arXiv 2505.22618): the most confident candidate, ties to the lowest index, and every
    other one whose confidence is at least `threshold`. The counts of the schedule are not used. No sort is needed.
    """

    def __init__(self, threshold: float) -> None:
        """Set the threshold.

        Raises:
            UnmaskError: a threshold outside (0, 1].
        """
        if not 0 < threshold <= 1:
            raise UnmaskError(f"threshold is {threshold!r}; it must lie in (0, 1]")
        self._threshold = threshold

    def __call__(self, confidence: Tensor, counts: Tensor) -> Tensor:
        positions = torch.arange(confidence.shape[-1], device=confidence.device)
        best = positions == confidence.argmax(dim=-1, keepdim=True)
        return (best | (confidence >= self._threshold)) & (confidence != -torch.inf)


class Factor:
    """Fast-dLLM's factor rule (Wu et al., arXiv 2505.22618): the candidates are ranked by confidence, ties to the lowest index; rank 0
    always commits, rank `j` must reach `1 - factor / (j + 2)`, and the longest prefix of ranks that do is committed. The counts of the
    schedule are not used.
    """

    def __init__(self, factor: float, *, forgive_last: bool = False) -> None:
        """Set the rule.

        Args:
            factor: larger commits more.
            forgive_last: commit the last rank too where only it misses its bar, as a published implementation does.

        Raises:
            UnmaskError: a factor that is not a positive number.
        """
        if not 0 < factor < float("inf"):
            raise UnmaskError(f"factor is {factor!r}; it must be a positive number")
        self._factor, self._forgive_last = factor, forgive_last

    def __call__(self, confidence: Tensor, counts: Tensor) -> Tensor:
        ranked = torch.sort(confidence, dim=-1, descending=True, stable=True).values
        rank = torch.arange(confidence.shape[-1], device=confidence.device)
        bars = (1 - self._factor / (rank.to(torch.float64) + 2)).masked_fill(rank == 0, -torch.inf)
        cleared = ((ranked >= bars) & (ranked != -torch.inf)).long().cumprod(dim=-1).sum(dim=-1)
        if self._forgive_last:
            candidates = (confidence != -torch.inf).sum(dim=-1)
            cleared = torch.where(cleared + 1 == candidates, candidates, cleared)
        return TopK()(confidence, cleared)


class Certain:
    """The candidates whose confidence is 1: for samplers that decide themselves. The counts of the schedule are not used."""

    def __call__(self, confidence: Tensor, counts: Tensor) -> Tensor:
        return confidence == 1

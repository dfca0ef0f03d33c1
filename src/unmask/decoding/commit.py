"""Which of a step's candidates are committed."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Committer(Protocol):
    """Chooses among the candidates of one step; a threshold or factor rule is another implementation of this."""

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

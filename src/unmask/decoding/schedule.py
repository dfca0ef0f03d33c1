"""How many positions each step of a block commits, and when the block is done."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from unmask.errors import UnmaskError


def transfer_counts(masks: int, steps: int) -> list[int]:
    """LLaDA's uniform schedule: `masks` positions over `steps` steps, the remainder going to the first steps.

    Args:
        masks: masked positions in the block when it starts.
        steps: denoising steps of the block.

    Returns:
        One count per step: `masks // steps`, and one more for the first `masks % steps`.
    """
    share, rest = divmod(masks, steps)
    return [share + (step < rest) for step in range(steps)]


class Schedule(Protocol):
    """Decides before every step of a block how many positions it commits."""

    def __call__(self, step: int, masks_at_start: Tensor, masks: Tensor) -> Tensor | None:
        """Plan one step.

        Args:
            step: counted from the start of the block.
            masks_at_start: int64 [batch], masked positions in the block when it started.
            masks: int64 [batch], masked positions in the block now.

        Returns:
            int64 [batch], how many positions to commit in each row; None if the block is done.
        """
        ...


class Uniform:
    """LLaDA's: a fixed number of steps, the masks spread evenly over them (`transfer_counts`)."""

    def __init__(self, steps: int) -> None:
        """Set the denoising steps of every block."""
        self._steps = steps

    def __call__(self, step: int, masks_at_start: Tensor, masks: Tensor) -> Tensor | None:
        if step == self._steps:
            return None
        counts = [transfer_counts(int(count), self._steps)[step] for count in masks_at_start]
        return torch.tensor(counts, device=masks.device)


class UntilClean:
    """Fast-dLLM's: the counts of `Uniform`, but a block ends as soon as it holds no mask, and not before; steps beyond the planned ones
    commit nothing by count, so a committer that looks at the confidence alone must go with them.
    """

    def __init__(self, steps: int, least: int = 1) -> None:
        """Set the steps that the counts are spread over, and how many steps a block takes at least.

        Args:
            steps: planned denoising steps of every block.
            least: one published dual cache always runs two.

        Raises (when called):
            UnmaskError: more steps than the planned ones and one per mask.
        """
        self._steps, self._least = steps, least

    def __call__(self, step: int, masks_at_start: Tensor, masks: Tensor) -> Tensor | None:
        if step >= self._least and not bool(masks.any()):
            return None
        if step > self._steps + int(masks_at_start.max()):
            raise UnmaskError(f"a block still holds masks after {step} steps: the mask token was committed, or nothing was")
        counts = [(*transfer_counts(int(count), self._steps), *[0] * (step + 1))[step] for count in masks_at_start]
        return torch.tensor(counts, device=masks.device)

"""How many positions each step of a block commits."""

from __future__ import annotations


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

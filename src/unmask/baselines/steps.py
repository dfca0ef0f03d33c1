"""Which kinds of step a generation takes, and how often, without any values: the schedule is that of `unmask.decoding`."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import torch

from unmask.decoding.cache.base import Moment
from unmask.decoding.cache.registry import caches
from unmask.decoding.compose import cache_of, opens_blocks, schedule_of
from unmask.decoding.policy import Policy
from unmask.errors import UnmaskError
from unmask.models.layers import Architecture


class StepKind(NamedTuple):
    """Steps that take equally long.

    Attributes:
        batch: sequences that are fed: twice the canvases under guidance.
        rows: positions of each that are fed.
        keys: positions of each that are attended to.
        head_rows: positions of each whose logits are computed.
    """

    batch: int
    rows: int
    keys: int
    head_rows: int


def steps_of(
    policy: Policy, shape: Architecture, prompt_length: int, batch: int, tokens_per_step: float | None = None
) -> dict[StepKind, int]:
    """How often a whole generation takes each kind of step, in the order of their first use; an early stop never comes.

    Args:
        policy: how the canvas is unmasked.
        shape: of the network.
        prompt_length: positions before the generated ones.
        batch: sequences, all of which go through as many steps.
        tokens_per_step: of the commits `threshold` and `factor`: how many tokens of a sequence a step commits on average; None: 1.

    Raises:
        UnmaskError: `tokens_per_step` below 1 or of a commit that is scheduled; the commit `guided`, whose guide is not known here; a cache
            whose rows depend on values.
    """
    by_value = policy.commit in ("threshold", "factor")
    if policy.commit == "guided":
        raise UnmaskError("commit 'guided' also runs a guide, whose network is not known here; expected another commit")
    if policy.cache != "none" and not caches()[policy.cache].consecutive:
        raise UnmaskError(f"which rows cache {policy.cache!r} feeds depends on values; expected a cache of consecutive rows")
    if tokens_per_step is not None and not by_value:
        raise UnmaskError(f"tokens per step are scheduled; commit is {policy.commit!r}, expected 'threshold' or 'factor'")
    if tokens_per_step is not None and not 1 <= tokens_per_step <= policy.block_length:
        raise UnmaskError(f"{tokens_per_step:g} tokens per step: expected at least 1 and at most the block's {policy.block_length}")
    canvas = torch.zeros((1, prompt_length + policy.gen_length), dtype=torch.int64)
    schedule, opening, cache = schedule_of(policy, shape), opens_blocks(policy, shape), cache_of(policy)
    whole, fed = torch.tensor([policy.block_length]), batch * (2 if policy.cfg_scale else 1)
    counts: Counter[StepKind] = Counter()
    for number in range(policy.blocks):
        start = prompt_length + number * policy.block_length
        block, step, masks = range(start, start + policy.block_length), 0, whole
        while (committed := schedule(step, whole, masks)) is not None:
            now = Moment(canvas, prompt_length, block, step, counts.total(), shape.mask_token_id, shape.shifted_logits)
            rows = len(now.everything if cache is None else cache.rows(now))
            head = min(policy.block_length + shape.shifted_logits, rows) if policy.exclude_mask else rows
            counts[StepKind(fed, rows, canvas.shape[1], head)] += 1
            if by_value:
                rate = tokens_per_step or 1.0
                done = 1 + rate * step if opening else rate * (step + 1)
                masks = (whole - int(done)).clamp(min=0)
            else:
                masks = (masks - committed).clamp(min=0)
            step += 1
    return dict(counts)

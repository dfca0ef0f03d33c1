"""Which kinds of step a generation takes, and how often, without any values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from unmask.compiler.lower import fed_rows, head_row, step_kind
from unmask.compiler.step import PARAMETERS_AT
from unmask.decoding.cache.base import Moment
from unmask.decoding.compose import opens_blocks, schedule_of
from unmask.decoding.policy import Policy
from unmask.errors import UnmaskError
from unmask.models.layers import Architecture


@dataclass(frozen=True)
class Run:
    """Steps of a generation that run the same entry of a program.

    Attributes:
        entry: its name.
        count: how often it runs.
        parameters: integer SRAM words that the first of these steps reads, by address: time depends on them through addresses alone.
    """

    entry: str
    count: int
    parameters: dict[int, int]


def runs_of(policy: Policy, shape: Architecture, prompt_length: int, batch: int, tokens_per_step: float | None = None) -> tuple[Run, ...]:
    """The entries that a whole generation runs, in the order of their first use.

    Args:
        policy: how the canvas is unmasked; an early stop is taken never to come.
        shape: of the network.
        prompt_length: positions before the generated ones.
        batch: sequences, all of which go through as many steps.
        tokens_per_step: of the commits `threshold` and `factor`, whose number depends on values: how many tokens of a sequence a step
            commits on average, at least 1; None: 1.

    Raises:
        UnmaskError: `tokens_per_step` below 1 or for a commit that is scheduled, or the commit `guided`, which takes a second network.
    """
    by_value = policy.commit in ("threshold", "factor")
    if policy.commit == "guided":
        raise UnmaskError("commit 'guided' also runs a guide, whose network and drafts are not known here; expected another commit")
    if tokens_per_step is not None and not by_value:
        raise UnmaskError(f"tokens per step are scheduled; commit is {policy.commit!r}, expected 'threshold' or 'factor'")
    if tokens_per_step is not None and not 1 <= tokens_per_step <= policy.block_length:
        raise UnmaskError(f"{tokens_per_step:g} tokens per step: expected at least 1 and at most the block's {policy.block_length}")
    rate = (tokens_per_step or 1.0) if by_value else None
    counts: Counter[str] = Counter()
    parameters: dict[str, dict[int, int]] = {}
    for entry, words in _steps(policy, shape, prompt_length, batch, rate):
        counts[entry] += 1
        parameters.setdefault(entry, {PARAMETERS_AT + index: word for index, word in enumerate(words)})
    return tuple(Run(entry, count, parameters[entry]) for entry, count in counts.items())


def _steps(policy: Policy, shape: Architecture, prompt_length: int, batch: int, rate: float | None) -> Iterator[tuple[str, list[int]]]:
    """The entry of every step and the words that the host writes before it."""
    canvas = torch.zeros((1, prompt_length + policy.gen_length), dtype=torch.int64)
    schedule, opening, index = schedule_of(policy, shape), opens_blocks(policy, shape), 0
    whole = torch.tensor([policy.block_length])
    for number in range(policy.blocks):
        start = prompt_length + number * policy.block_length
        block, step, masks = range(start, start + policy.block_length), 0, whole
        while (counts := schedule(step, whole, masks)) is not None:
            now = Moment(canvas, prompt_length, block, step, index, shape.mask_token_id, shape.shifted_logits)
            rows = fed_rows(policy, now)
            left = masks - counts if rate is None else whole - int(_committed(step + 1, rate, opening))
            left = left.clamp(min=0)
            words = [rows.start, start, head_row(shape, rows, block), policy.seed, index]
            yield step_kind(policy, shape, rows, block, step).name, words + [int(masks - left)] * batch
            step, index, masks = step + 1, index + 1, left


def _committed(steps: int, rate: float, opening: bool) -> float:
    """Tokens of a block that the first `steps` steps commit by value; a step that opens the block commits one."""
    return 1 + rate * (steps - 1) if opening else rate * steps

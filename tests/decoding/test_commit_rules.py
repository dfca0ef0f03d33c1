"""Fast-dLLM's rules against their one-sentence definitions, written per row in plain Python."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unmask.decoding.commit import Factor, Threshold
from unmask.decoding.schedule import UntilClean, transfer_counts
from unmask.errors import UnmaskError

NONE = -torch.inf
COUNTS = torch.zeros(1, dtype=torch.int64)
rows = st.lists(st.one_of(st.just(NONE), st.sampled_from([0.25, 0.5, 0.75]), st.floats(0, 1)), min_size=1, max_size=10)


def ranked(row: list[float]) -> list[int]:
    return sorted((i for i, value in enumerate(row) if value > NONE), key=lambda i: (-row[i], i))


def chosen(rule, row: list[float]) -> list[int]:
    return [i for i, yes in enumerate(rule(torch.tensor([row], dtype=torch.float64), COUNTS)[0].tolist()) if yes]


@given(rows, st.sampled_from([0.25, 0.5, 0.9, 1.0]))
def test_threshold_commits_the_best_and_all_that_reach_it(row, threshold):
    order = ranked(row)
    assert chosen(Threshold(threshold), row) == sorted(order[:1] + [i for i in order[1:] if row[i] >= threshold])


@given(rows, st.sampled_from([0.1, 0.5, 1.0, 1.5, 3.0]))
def test_factor_commits_the_longest_prefix_that_clears_its_bars(row, factor):
    order = ranked(row)
    prefix = 0
    while prefix < len(order) and (prefix == 0 or row[order[prefix]] >= 1 - factor / (prefix + 2)):
        prefix += 1
    assert chosen(Factor(factor), row) == sorted(order[:prefix])
    forgiven = prefix + 1 if prefix + 1 == len(order) else prefix
    assert chosen(Factor(factor, forgive_last=True), row) == sorted(order[:forgiven])


@pytest.mark.parametrize("threshold", [0, -0.5, 1.01, float("nan")])
def test_threshold_outside_its_range_is_refused(threshold):
    with pytest.raises(UnmaskError, match=r"it must lie in \(0, 1\]"):
        Threshold(threshold)


@pytest.mark.parametrize("factor", [0, -1, float("inf"), float("nan")])
def test_factor_that_is_no_positive_number_is_refused(factor):
    with pytest.raises(UnmaskError, match="it must be a positive number"):
        Factor(factor)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=3), st.integers(1, 9), st.integers(1, 2))
def test_clean_block_ends_after_its_least_steps(masks, steps, least):
    schedule, start = UntilClean(steps, least), torch.tensor(masks)
    clean = torch.zeros_like(start)
    for step in range(steps):
        counts = schedule(step, start, start)
        if start.any() or step < least:
            assert counts.tolist() == [transfer_counts(count, steps)[step] for count in masks]
        assert (schedule(step, start, clean) is None) == (step >= least)
    if max(masks):
        assert schedule(steps, start, start).tolist() == [0] * len(masks)
        with pytest.raises(UnmaskError, match="still holds masks"):
            schedule(steps + 10, start, start)

"""How many are committed, and which."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unmask.decoding.commit import TopK
from unmask.decoding.policy import Policy
from unmask.decoding.schedule import transfer_counts
from unmask.errors import UnmaskError


@given(st.integers(0, 200), st.integers(1, 64))
def test_schedule_commits_every_mask_and_never_speeds_up(masks, steps):
    counts = transfer_counts(masks, steps)
    assert len(counts) == steps
    assert sum(counts) == masks
    assert counts == sorted(counts, reverse=True)
    assert counts[0] - counts[-1] <= 1


@given(st.data())
def test_top_k_prefers_confidence_then_the_lowest_index(data):
    length = data.draw(st.integers(1, 12))
    values = st.sampled_from([-torch.inf, 0.0, 0.25, 0.5, 1.0])
    rows = data.draw(st.lists(st.lists(values, min_size=length, max_size=length), min_size=1, max_size=3))
    counts = data.draw(st.lists(st.integers(0, length), min_size=len(rows), max_size=len(rows)))
    chosen = TopK()(torch.tensor(rows), torch.tensor(counts))
    for row, count, got in zip(rows, counts, chosen.tolist(), strict=True):
        ranked = sorted((i for i in range(length) if row[i] > -torch.inf), key=lambda i: (-row[i], i))
        assert [i for i in range(length) if got[i]] == sorted(ranked[:count])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gen_length": 0}, "gen_length is 0"),
        ({"steps": 8.0}, "steps is 8.0; it must be an integer"),
        ({"temperature": "hot"}, "temperature is 'hot'"),
        ({"block_length": 5}, "block_length 5 does not divide gen_length 16"),
        ({"block_length": 32}, "block_length 32 does not divide gen_length 16"),
        ({"steps": 9}, "steps 9 is not a multiple of the 2 blocks"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"cfg_scale": float("inf")}, "cfg_scale is inf"),
        ({"remasking": "none"}, "remasking is 'none'; supported: low_confidence, random"),
    ],
)
def test_impossible_policies_are_named(values, message):
    with pytest.raises(UnmaskError, match=message):
        Policy(**{"gen_length": 16, "block_length": 8, "steps": 8, **values})

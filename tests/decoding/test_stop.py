"""Early stop: exactly when the rightmost commits are end tokens and nothing before them is open."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.small import CONFIG, small_model
from unmask.decoding.generate import StepRecord, generate
from unmask.decoding.policy import Policy
from unmask.decoding.sampler import FloatSampler
from unmask.decoding.stop import EarlyStop
from unmask.errors import UnmaskError

MASK, EOS = CONFIG.mask_token_id, CONFIG.eos_token_id


def record(canvas: list[int], committed: list[int]) -> StepRecord:
    ids = torch.tensor([canvas])
    chosen = torch.zeros_like(ids, dtype=torch.bool)
    chosen[0, committed] = True
    return StepRecord(0, 0, 0, len(canvas), ids, ids, ids.float(), chosen, ids)


@given(st.lists(st.sampled_from([MASK, EOS, 1]), min_size=1, max_size=8), st.integers(1, 3))
def test_it_is_its_definition(canvas, consecutive):
    committed = [i for i, token in enumerate(canvas) if token != MASK]
    prefix = canvas[: max(committed, default=-1) + 1]
    expected = MASK not in prefix and len(prefix) >= consecutive and all(token == EOS for token in prefix[-consecutive:])
    assert EarlyStop(EOS, MASK, consecutive)(record(canvas, committed)) == expected


def test_what_is_left_becomes_end_tokens():
    class EosWins(FloatSampler):
        def __call__(self, logits, sampling):
            return super().__call__(logits.index_fill(-1, torch.tensor([EOS]), 50.0), sampling)

    policy = Policy(gen_length=8, block_length=2, steps=8)
    result = generate(small_model(), [[1, 2]], policy, sampler=EosWins(), stop=EarlyStop(EOS, MASK, 2))
    assert result.ids[0].tolist() == [1, 2] + [EOS] * 8
    assert result.n_forward == len(result.steps) == 2


def test_impossible_stops_are_named():
    with pytest.raises(UnmaskError, match="consecutive is 0"):
        EarlyStop(EOS, MASK, 0)
    with pytest.raises(UnmaskError, match="for one row; the batch has 2"):
        generate(small_model(), [[1], [2]], Policy(gen_length=2, block_length=2, steps=2), stop=EarlyStop(EOS, MASK))

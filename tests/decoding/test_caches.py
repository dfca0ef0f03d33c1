"""Caches: exact where nothing is stale, stale exactly where the definition says."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.small import CONFIG, small_model
from unmask.decoding.cache.base import KeyValueStore, Moment
from unmask.decoding.cache.block import DualCache, PrefixCache
from unmask.decoding.cache.freecache import FreeCache, PromptCache
from unmask.decoding.commit import Factor, Threshold, TopK
from unmask.decoding.generate import generate
from unmask.decoding.policy import Policy
from unmask.decoding.schedule import UntilClean

MASK = CONFIG.mask_token_id
CACHES = [PrefixCache, DualCache, FreeCache, PromptCache]
PROMPT = [[3, 1, 4, 1], [5, 9, 2, 6]]


class Spied:
    """A cache whose feeding is recorded: the rows, and per layer what keys and values they saw."""

    def __init__(self, cache):
        self.cache, self.fed, self.seen = cache, [], []

    def rows(self, now):
        rows = self.cache.rows(now)
        self.fed.append(rows)
        return rows

    def runner(self, now, rows):
        inner = self.cache.runner(now, rows)

        def run(index, block, x, cos, sin, bias, arithmetic):
            class Watched:
                project = staticmethod(block.project)

                @staticmethod
                def attend(x, q, k, v, bias, arithmetic):
                    self.seen.append((len(self.fed) - 1, index, k, v))
                    return block.attend(x, q, k, v, bias, arithmetic)

            return inner(index, Watched, x, cos, sin, bias, arithmetic)

        return run


@pytest.mark.parametrize("kind", CACHES)
@pytest.mark.parametrize("cfg_scale", [0.0, 1.0])
def test_one_step_per_block_is_never_stale_with_block_caches(kind, cfg_scale):
    policy = Policy(gen_length=8, block_length=4, steps=2, cfg_scale=cfg_scale)
    model = small_model()
    plain = generate(model, PROMPT, policy)
    cached = generate(model, PROMPT, policy, cache=kind())
    equal = torch.equal(plain.ids, cached.ids)
    assert equal or kind in (FreeCache, PromptCache)
    torch.testing.assert_close(plain.steps[0].confidence, cached.steps[0].confidence)


@settings(deadline=None, max_examples=10)
@given(st.sampled_from(CACHES), st.integers(1, 3), st.integers(1, 4), st.integers(0, 9))
def test_only_the_rows_that_are_fed_change_their_keys_and_values(kind, blocks, steps, seed):
    spied = Spied(kind())
    generate(small_model(seed=seed), PROMPT, Policy(gen_length=4 * blocks, block_length=4, steps=steps * blocks), cache=spied)
    latest: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    for forward, layer, k, v in spied.seen:
        rows = spied.fed[forward]
        assert k.shape[2] == v.shape[2] == len(PROMPT[0]) + 4 * blocks
        if layer in latest:
            outside = [i for i in range(k.shape[2]) if i not in rows]
            assert torch.equal(k[:, :, outside], latest[layer][0][:, :, outside])
            assert torch.equal(v[:, :, outside], latest[layer][1][:, :, outside])
        latest[layer] = k, v


def test_rows_are_those_of_the_definitions():
    policy = Policy(gen_length=8, block_length=4, steps=6)
    fed = {}
    for kind in CACHES:
        spied = Spied(kind())
        generate(small_model(), PROMPT, policy, cache=spied)
        fed[kind] = [(rows.start, rows.stop) for rows in spied.fed]
    assert fed[PrefixCache] == [(0, 12), (4, 12), (4, 12), (0, 12), (8, 12), (8, 12)]
    assert fed[DualCache] == [(0, 12), (4, 8), (4, 8), (0, 12), (8, 12), (8, 12)]
    assert fed[FreeCache] == [(0, 12), (3, 12), (3, 12), (7, 12), (7, 12), (7, 12)]
    assert fed[PromptCache] == [(0, 12)] + [(4, 12)] * 5


def test_a_store_that_is_fed_everything_is_no_cache():
    model, ids = small_model(), torch.arange(24).view(2, 12)
    now = Moment(ids, 4, range(4, 8), 0, 0)
    store = KeyValueStore()
    with torch.no_grad():
        torch.testing.assert_close(model.hidden(ids, layers=store.runner(now, now.everything)), model.hidden(ids))
        again = model.hidden(ids[:, 4:8], positions=range(4, 8), layers=store.runner(now, range(4, 8)))
        torch.testing.assert_close(again, model.hidden(ids)[:, 4:8])


def test_padding_stays_invisible_behind_a_cache():
    model, policy = small_model(), Policy(gen_length=8, block_length=4, steps=8)
    mask = torch.tensor([[0, 0, 1, 1]])
    one, other = (generate(model, [[pad, pad, 5, 6]], policy, attention_mask=mask, cache=DualCache()).ids[:, 2:] for pad in (1, 30))
    assert torch.equal(one, other)


@settings(deadline=None, max_examples=12)
@given(
    st.sampled_from([None, *CACHES]),
    st.sampled_from([TopK(), Threshold(0.2), Factor(1.0)]),
    st.sampled_from([0.0, 0.7]),
    st.sampled_from([1, 2]),
)
def test_every_cache_composes_with_every_committer(kind, committer, temperature, least):
    policy = Policy(gen_length=8, block_length=4, steps=8, temperature=temperature)
    spied = Spied(kind()) if kind else None
    schedule = UntilClean(policy.steps_per_block, least)
    result = generate(small_model(), PROMPT, policy, committer=committer, schedule=schedule, cache=spied)
    assert not bool((result.ids == MASK).any())
    assert bool((sum(step.committed.long() for step in result.steps)[:, 4:] == 1).all())
    assert result.n_forward == len(result.steps) <= policy.steps
    for step in result.steps:
        assert step.start <= int(step.committed.any(0).nonzero().min() if step.committed.any() else step.start)
    if spied:
        assert [step.fed.shape[1] for step in result.steps] == [len(rows) for rows in spied.fed]

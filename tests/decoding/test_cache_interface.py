"""What the cache interface carries besides consecutive rows: dKV-Cache, and sketches of dLLM-Cache and of LLaDA 2.0."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.small import CONFIG, small_dream, small_model
from unmask.decoding.cache.base import KeyValueStore, Moment
from unmask.decoding.cache.block import DualCache, PrefixCache
from unmask.decoding.cache.dkv import DelayedCache
from unmask.decoding.cache.freecache import FreeCache, PromptCache
from unmask.decoding.generate import Generation, generate
from unmask.decoding.policy import Policy
from unmask.errors import UnmaskError
from unmask.models.layers import row_index

from .test_caches import Spied

MASK = CONFIG.mask_token_id
PROMPT = [[3, 1, 4, 1], [5, 9, 2, 6]]
NETWORKS = [small_model, small_dream]


class Drifting:
    """dLLM-Cache (Liu et al., arXiv 2506.06295): the prompt is fed every `prompt_interval` steps, the response at each; between its own
    refreshes, a layer computes only the fraction `ratio` of the response whose values drifted most, and reuses what it gave for the rest.
    """

    def __init__(self, prompt_interval: int = 4, interval: int = 2, ratio: float = 0.5) -> None:
        self.prompt_interval, self.interval, self.ratio = prompt_interval, interval, ratio
        self.keys, self.values, self.deltas, self.computed = {}, {}, {}, []

    def rows(self, now):
        return now.everything if now.index % self.prompt_interval == 0 else range(now.prompt_length, now.everything.stop)

    def runner(self, now, rows):
        place, refresh = row_index(rows), now.index % self.interval == 0 or len(rows) == len(now.everything)

        def run(index, block, x, cos, sin, bias, arithmetic):
            q, k, v = block.project(x, cos, sin, arithmetic)
            drifted = torch.arange(len(rows))
            if not refresh:
                likeness = torch.cosine_similarity(v, self.values[index][:, :, place], dim=-1).mean(dim=(0, 1))
                drifted = likeness.argsort()[: round(self.ratio * len(rows))].sort().values
            for kept, new in ((self.keys, k), (self.values, v)):
                kept[index] = kept.get(index, new.new_empty(*new.shape[:2], len(now.everything), new.shape[3])).clone()
                kept[index][:, :, place] = new
            out = block.attend(x[:, drifted], q[:, :, drifted], self.keys[index], self.values[index], bias, arithmetic)
            deltas = self.deltas.get(index, torch.zeros(x.shape[0], len(now.everything), x.shape[2])).clone()
            fed = deltas[:, place].clone()
            fed[:, drifted] = out - x[:, drifted]
            deltas[:, place] = fed
            self.deltas[index] = deltas
            self.computed.append(len(drifted))
            result = x + fed
            result[:, drifted] = out
            return result

        return run


class BlockCausal:
    """LLaDA 2.0: a row sees the blocks before its own, and its own. A finished block is fed once more and then cached for good."""

    def __init__(self) -> None:
        self.layers = {}

    def rows(self, now):
        first = now.block.start == now.prompt_length
        before = 0 if first else now.block.start - len(now.block)
        return range(before if now.step == 0 else now.block.start, now.block.stop)

    def runner(self, now, rows):
        def run(index, block, x, cos, sin, bias, arithmetic):
            q, k, v = block.project(x, cos, sin, arithmetic)
            if rows.start:
                old = self.layers[index]
                k, v = torch.cat((old[0][:, :, : rows.start], k), dim=2), torch.cat((old[1][:, :, : rows.start], v), dim=2)
            self.layers[index] = k, v
            return block.attend(x, q, k, v, block_causal(now, rows, range(rows.stop)), arithmetic)

        return run


class BlockCausalInFull:
    """The same attention, the whole canvas fed at every step."""

    def rows(self, now):
        return now.everything

    def runner(self, now, rows):
        def run(index, block, x, cos, sin, bias, arithmetic):
            return block.attend(x, *block.project(x, cos, sin, arithmetic), block_causal(now, rows, rows), arithmetic)

        return run


def block_causal(now, rows, keys):
    """Who sees whom; the prompt is a block."""
    number = [max((position - now.prompt_length) // len(now.block), -1) for position in now.everything]
    return torch.tensor([[number[key] <= number[row] for key in keys] for row in rows])


def run(network, cache, *, prompt=None, **values) -> Generation:
    policy = Policy(**{"gen_length": 8, "block_length": 4, "steps": 8, **values})
    return generate(network, PROMPT if prompt is None else prompt, policy, cache=cache)


def same(one: Generation, other: Generation) -> None:
    assert torch.equal(one.ids, other.ids)
    for step, twin in zip(one.steps, other.steps, strict=True):
        torch.testing.assert_close(step.confidence, twin.confidence)


@pytest.mark.parametrize("build", NETWORKS)
@pytest.mark.parametrize("values", [{}, {"cfg_scale": 1.0}, {"remasking": "entropy", "schedule": "timesteps"}])
def test_caches_that_refresh_at_every_step_are_none(build, values):
    plain = run(build(), None, **values)
    same(plain, run(build(), DelayedCache(refresh=1), **values))
    if not values.get("cfg_scale"):
        same(plain, run(build(), Drifting(prompt_interval=1), **values))


@settings(deadline=None, max_examples=15)
@given(st.sampled_from(NETWORKS), st.integers(1, 3), st.integers(0, 9))
def test_block_caches_are_exact_where_a_block_has_one_step(build, blocks, seed):
    network, values = build(seed=seed), {"gen_length": 4 * blocks, "steps": blocks}
    plain = run(network, None, **values)
    for cache in (PrefixCache(), DualCache()):
        same(plain, run(network, cache, **values))


@settings(deadline=None, max_examples=15)
@given(st.sampled_from(NETWORKS), st.sampled_from([PrefixCache, DualCache, FreeCache, PromptCache, DelayedCache]), st.integers(0, 9))
def test_the_first_step_of_all_is_exact(build, kind, seed):
    network = build(seed=seed)
    plain, cached = run(network, None), run(network, kind())
    torch.testing.assert_close(plain.steps[0].confidence, cached.steps[0].confidence)
    assert torch.equal(plain.steps[0].canvas, cached.steps[0].canvas)


@pytest.mark.parametrize("build", NETWORKS)
@pytest.mark.parametrize("refresh", [3, 100])
def test_dkv_feeds_what_was_masked_before_the_last_step(build, refresh):
    network, spied = build(), Spied(DelayedCache(refresh=refresh))
    result = run(network, spied, gen_length=12, block_length=6, steps=12)
    before = torch.cat((torch.tensor(PROMPT), torch.full((2, 12), MASK)), dim=1)
    canvases = [before, *(step.canvas for step in result.steps)]
    for index, fed in enumerate(spied.fed):
        step = index % 6
        if step < 2 or step % refresh == 0:
            assert fed == range(16)
            continue
        expected = (canvases[index - 1] == MASK).any(dim=0)
        if network.config.shifted_logits:
            expected[:-1] |= (canvases[index] == MASK).any(dim=0)[1:]
        assert fed.tolist() == expected.nonzero()[:, 0].tolist()
    assert min(len(fed) for fed in spied.fed) < 8


@pytest.mark.parametrize("build", NETWORKS)
def test_dkv_keeps_the_keys_and_values_of_a_token_from_the_step_after_it(build):
    spied = Spied(DelayedCache(refresh=100))
    run(build(), spied, gen_length=8, block_length=8, steps=8)
    latest = {}
    for forward, layer, k, v in spied.seen:
        rows = list(spied.fed[forward])
        kept = [position for position in range(k.shape[2]) if position not in rows]
        if layer in latest and kept:
            assert torch.equal(k[:, :, kept], latest[layer][0][:, :, kept])
            assert torch.equal(v[:, :, kept], latest[layer][1][:, :, kept])
        latest[layer] = k, v


def test_dkv_names_an_impossible_interval():
    with pytest.raises(UnmaskError, match="refresh is 0"):
        DelayedCache(refresh=0)


def test_a_store_takes_any_rows():
    network, ids = small_model(), torch.arange(24).view(2, 12)
    now, rows, store = Moment(ids, 4, range(4, 8), 0, 0), torch.tensor([1, 4, 9]), KeyValueStore()
    with torch.no_grad():
        whole = network.hidden(ids, layers=store.runner(now, now.everything))
        again = network.hidden(ids[:, rows], positions=rows, layers=store.runner(now, rows))
    torch.testing.assert_close(again, whole[:, rows])


@settings(deadline=None, max_examples=10)
@given(st.sampled_from(NETWORKS), st.integers(1, 8), st.integers(1, 4), st.sampled_from([0.25, 0.5]), st.integers(0, 9))
def test_a_cache_may_compute_some_of_the_rows_that_are_fed(build, prompt_interval, interval, ratio, seed):
    cache = Drifting(prompt_interval, interval, ratio)
    result = run(build(seed=seed), cache)
    assert not bool((result.ids == MASK).any())
    assert result.ids[:, :4].tolist() == PROMPT
    assert max(cache.computed) == 12
    if prompt_interval > 2 and interval > 1:
        assert round(ratio * 8) in cache.computed


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 9))
def test_a_cache_may_hide_later_blocks(blocks, steps, seed):
    network, values = small_model(seed=seed), {"gen_length": 4 * blocks, "steps": steps * blocks}
    spied = Spied(BlockCausal())
    same(run(network, BlockCausalInFull(), **values), run(network, spied, **values))
    assert [len(fed) for fed in spied.fed] == ([8] + [4] * (steps - 1)) * blocks

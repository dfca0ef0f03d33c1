"""Dream's decoding: the shift, its schedules, its samplers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.small import DREAM_CONFIG, small_dream
from unmask.decoding.cache.block import DualCache, PrefixCache
from unmask.decoding.cache.freecache import FreeCache
from unmask.decoding.commit import Certain, Factor, Threshold, TopK
from unmask.decoding.dream import Drawn, DreamSampler, OpenedTimesteps, Opening, SharedTimesteps, Timesteps, TorchDraws
from unmask.decoding.evaluate import Evaluator
from unmask.decoding.generate import generate
from unmask.decoding.noise import TorchNoise
from unmask.decoding.policy import Policy
from unmask.decoding.sampler import Sampling
from unmask.errors import UnmaskError

MASK = DREAM_CONFIG.mask_token_id
PROMPT = [[3, 1, 4, 1], [5, 9, 2, 6]]


def sampling(**values) -> Sampling:
    defaults = {"step": 0, "positions": torch.arange(2), "temperature": 0.0, "remasking": "low_confidence", "excluded": (), "deferred": ()}
    return Sampling(**{**defaults, "noise": TorchNoise(0), **values})


@given(st.integers(0, 11), st.integers(1, 12))
def test_row_before_a_position_predicts_it(start, length):
    window = range(start, min(start + length, 12))
    model, canvas = small_dream(), torch.arange(12)[None]
    evaluate = Evaluator(model, torch.zeros_like(canvas, dtype=torch.bool), 4, 0.0, None, None)
    with torch.no_grad():
        found, raw = evaluate(canvas, range(4, 8), 0, window or range(12)), model(canvas)
    for index, position in enumerate(found.window):
        torch.testing.assert_close(found.logits[:, index], raw[:, max(position - 1, 0)])


def test_shift_inside_a_window_repeats_its_first_row():
    model, canvas = small_dream(), torch.arange(12)[None]
    evaluate = Evaluator(model, torch.zeros_like(canvas, dtype=torch.bool), 4, 0.0, None, DualCache())
    with torch.no_grad():
        evaluate(canvas, range(4, 8), 0, None)
        found, raw = evaluate(canvas, range(4, 8), 1, None), model(canvas)
    torch.testing.assert_close(found.logits, raw[:, [4, 4, 5, 6]])
    assert found.window == range(4, 8)


@given(st.integers(1, 30), st.integers(1, 40))
def test_timesteps_commit_every_mask_and_the_last_step_flushes(steps, length):
    timesteps, masks = Timesteps(steps), torch.tensor([length, length])
    for step in range(steps):
        counts = timesteps(step, masks, masks)
        assert counts.tolist() == [int(counts[0])] * 2
        assert 0 <= int(counts[0]) <= int(masks[0])
        masks = masks - counts
    assert masks.tolist() == [0, 0]
    assert timesteps(steps, masks, masks) is None


@given(st.integers(1, 4), st.integers(1, 8), st.integers(1, 8))
def test_shared_timesteps_leave_every_block_clean(blocks, length, steps):
    shared = SharedTimesteps(torch.full((1, blocks), length), steps)
    for _ in range(blocks):
        masks = start = torch.tensor([length])
        for step in range(steps):
            counts = shared(step, start, masks)
            assert 0 <= int(counts) <= int(masks)
            masks = masks - counts
        assert masks.tolist() == [0]
        assert shared(steps, start, masks) is None


def test_confidences_are_their_formulas():
    logits = torch.randn(1, 3, 7, generator=torch.Generator().manual_seed(0))
    p = torch.softmax(logits, -1)
    best = p.sort(-1, descending=True).values
    expected = {"maskgit_plus": best[..., 0], "topk_margin": best[..., 0] - best[..., 1], "entropy": (p * (p + 1e-10).log()).sum(-1)}
    for algorithm, confidence in expected.items():
        tokens, found = DreamSampler(algorithm, TorchDraws(0))(logits, sampling(positions=torch.arange(3)))
        torch.testing.assert_close(found, confidence)
        assert torch.equal(tokens, logits.argmax(-1))


def test_ties_go_to_the_lowest_token_and_excluded_tokens_never_win():
    logits = torch.tensor([[[1.0, 2.0, 2.0, 5.0], [3.0, 3.0, 3.0, 3.0]]])
    tokens, _ = DreamSampler("entropy", TorchDraws(0))(logits, sampling(excluded=(3,)))
    assert tokens.tolist() == [[1, 0]]


@pytest.mark.parametrize(
    ("cut", "kept"),
    [({"top_p": 0.5}, {0}), ({"top_p": 0.7}, {0, 1}), ({"top_k": 3}, {0, 1, 2}), ({"top_p": 0.95, "top_k": 1}, {0}), ({"top_p": 0}, {0})],
)
def test_only_the_tokens_that_are_kept_are_drawn(cut, kept):
    """The first token at which the sum exceeds `top_p` stays."""
    logits = torch.tensor([0.6, 0.25, 0.1, 0.05]).log().expand(1, 500, 4)
    tokens, _ = DreamSampler("maskgit_plus", TorchDraws(0), **cut)(logits, sampling(positions=torch.arange(500), temperature=1.0))
    assert set(tokens[0].tolist()) == kept


def test_temperature_draws_from_the_softmax():
    probability = torch.tensor([0.6, 0.3, 0.1])
    logits = (probability.log() * 0.5).expand(1, 20_000, 3)
    tokens, _ = DreamSampler("entropy", TorchDraws(0))(logits, sampling(positions=torch.arange(20_000), temperature=0.5))
    torch.testing.assert_close(torch.bincount(tokens[0]) / 20_000, probability, atol=0.02, rtol=0)


def test_alg_temp_prefers_confidence_and_takes_the_scheduled_number():
    confidence = torch.tensor([[0.9, -torch.inf, 0.1, 0.2]])
    hits = torch.zeros(4)
    drawn = Drawn(0.1, TorchDraws(0))
    for _ in range(300):
        chosen = drawn(confidence, torch.tensor([1]))[0]
        assert int(chosen.sum()) == 1
        hits += chosen
    assert hits[1] == 0
    assert hits[0] > 250
    assert drawn(confidence, torch.tensor([9]))[0].tolist() == [True, False, True, True]
    assert not drawn(confidence, torch.tensor([0])).any()


@pytest.mark.parametrize("alg_temp", [5e-324, 1e-30, 5e-3, 1e38, 1e308])
def test_any_alg_temp_draws_candidates_only(alg_temp):
    confidence = torch.tensor([[-torch.inf] * 20 + [-0.1, -1.0, -2.0, -3.0, -5.0, -12.0]])
    for count in (1, 4, 6):
        chosen = Drawn(alg_temp, TorchDraws(count))(confidence, torch.tensor([count]))
        assert int(chosen.sum()) == count
        assert not chosen[:, :20].any()
        assert bool(chosen[0, 20]) or alg_temp > 1


@pytest.mark.parametrize("temperature", [5e-324, 1e-30, 1e38, 1e308])
def test_any_temperature_draws_a_token_that_is_no_excluded_one(temperature):
    logits = torch.tensor([[[30.0, -40.0, 29.0, 31.0]]]).expand(1, 50, 4)
    options = sampling(positions=torch.arange(50), temperature=temperature, excluded=(3,))
    tokens, confidence = DreamSampler("maskgit_plus", TorchDraws(0))(logits, options)
    assert not bool((tokens == 3).any())
    assert bool((tokens == 0).all()) == (temperature < 1)
    assert bool(confidence.isfinite().all())


@settings(deadline=None, max_examples=12)
@given(st.sampled_from(["maskgit_plus", "topk_margin", "entropy", "origin"]), st.sampled_from([0.0, 0.8]), st.integers(1, 10))
def test_every_mask_is_committed_once(algorithm, temperature, steps):
    policy = Policy(gen_length=8, block_length=8, steps=steps, temperature=temperature)
    timesteps = Timesteps(steps)
    sampler = DreamSampler(algorithm, TorchDraws(1), timesteps=timesteps)
    committer = Certain() if algorithm == "origin" else TopK()
    result = generate(small_dream(), PROMPT, policy, sampler=sampler, committer=committer, schedule=timesteps)
    assert result.n_forward == steps
    assert not bool((result.ids == MASK).any())
    assert bool((sum(step.committed.long() for step in result.steps)[:, 4:] == 1).all())


@pytest.mark.parametrize("cache", [PrefixCache, DualCache])
def test_block_opens_with_its_first_position(cache):
    policy = Policy(gen_length=8, block_length=4, steps=8)
    sampler = Opening(DreamSampler("entropy", TorchDraws(0)))
    result = generate(small_dream(), PROMPT, policy, sampler=sampler, schedule=OpenedTimesteps(4), cache=cache())
    opening = [next(step for step in result.steps if step.block == block) for block in range(policy.blocks)]
    assert [step.positions(row) for step in opening for row in (0, 1)] == [[4], [4], [8], [8]]
    assert not bool((result.ids == MASK).any())


@pytest.mark.parametrize("committer", [TopK(), Threshold(1e-30), Factor(1e300), Drawn(1e300, TorchDraws(0))])
def test_a_block_opens_with_one_position_under_any_committer(committer):
    opening = Opening(DreamSampler("maskgit_plus", TorchDraws(0)))
    eligible = torch.tensor([[True, False, False, True, True], [True] * 5, [False] * 5])  # a mask that stayed in an earlier block
    logits = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0))
    _, confidence = opening(logits, sampling(positions=torch.arange(5), eligible=eligible, block=range(2, 5)))
    chosen = committer(confidence.masked_fill(~eligible, -torch.inf), torch.tensor([1, 1, 0]))
    assert chosen.nonzero().tolist() == [[0, 3], [1, 2]]


def test_freecache_of_one_block_and_step_equals_plain():
    model, policy = small_dream(), Policy(gen_length=4, block_length=4, steps=1)
    sampler = DreamSampler("entropy", TorchDraws(0))
    plain = generate(model, PROMPT, policy, sampler=sampler)
    assert torch.equal(plain.ids, generate(model, PROMPT, policy, sampler=sampler, cache=FreeCache()).ids)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DreamSampler("best", TorchDraws(0)), "algorithm is 'best'; supported: maskgit_plus"),
        (lambda: DreamSampler("origin", TorchDraws(0)), "origin needs a schedule"),
        (lambda: DreamSampler("entropy", TorchDraws(0), top_p=1.5), "top_p is 1.5"),
        (lambda: DreamSampler("entropy", TorchDraws(0), top_k=0), "top_k is 0"),
        (lambda: Drawn(0.0, TorchDraws(0)), "alg_temp is 0.0"),
        (lambda: DreamSampler("entropy", TorchDraws(0))(torch.zeros(1, 2, 4), sampling(deferred=(1,))), "deferred"),
    ],
)
def test_impossible_choices_are_named(build, message):
    with pytest.raises(UnmaskError, match=message):
        build()

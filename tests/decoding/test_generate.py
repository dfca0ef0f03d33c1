"""Properties of `generate`, over random networks, prompts and policies."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.small import CONFIG, small_model
from unmask.decoding.generate import Generation, generate
from unmask.decoding.noise import TorchNoise
from unmask.decoding.policy import Policy
from unmask.decoding.sampler import FloatSampler, Sampling
from unmask.errors import UnmaskError

from .plain_reference import record

MASK, EOS = CONFIG.mask_token_id, CONFIG.eos_token_id


@st.composite
def policies(draw: st.DrawFn, *, faithful: bool = False) -> Policy:
    blocks, block_length = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    return Policy(
        gen_length=blocks * block_length,
        block_length=block_length,
        steps=blocks * draw(st.integers(1, 7)),
        temperature=draw(st.sampled_from([0.0, 0.0, 0.7])),
        cfg_scale=draw(st.sampled_from([0.0, 0.0, 1.5])),
        remasking=draw(st.sampled_from(["low_confidence", "low_confidence", "random"])),
        suppress_eos=draw(st.booleans()),
        exclude_mask=not faithful,
        seed=draw(st.integers(0, 99)),
    )


def prompts(max_rows: int = 2) -> st.SearchStrategy[list[list[int]]]:
    lengths = st.integers(1, 6)
    return lengths.flatmap(lambda n: st.lists(st.lists(st.integers(0, MASK - 1), min_size=n, max_size=n), min_size=1, max_size=max_rows))


def same(a: Generation, b: Generation) -> bool:
    return torch.equal(a.ids, b.ids) and all(torch.equal(x.committed, y.committed) for x, y in zip(a.steps, b.steps, strict=True))


@settings(deadline=None, max_examples=15)
@given(policies(), prompts(), st.integers(0, 20))
def test_every_mask_is_committed_once_in_block_order(policy, prompt, seed):
    seen = []
    result = generate(small_model(seed=seed), prompt, policy, on_step=seen.append)
    start = len(prompt[0])
    assert result.n_forward == len(result.steps) == policy.steps
    assert seen == list(result.steps)
    assert result.ids[:, :start].tolist() == prompt
    assert not bool((result.ids == MASK).any())
    assert not (policy.suppress_eos and bool((result.ids[:, start:] == EOS).any()))
    assert bool((sum(record.committed.long() for record in result.steps)[:, start:] == 1).all())
    canvas = torch.cat((torch.tensor(prompt), torch.full((len(prompt), policy.gen_length), MASK)), dim=1)
    for step in result.steps:
        assert torch.equal(step.fed[: len(prompt)], canvas)
        eligible = canvas == MASK
        eligible[:, step.end :] = False
        assert torch.equal(step.confidence > -torch.inf, eligible)
        assert bool((step.committed <= eligible).all())
        assert not bool(step.committed[:, : step.start].any())
        canvas = torch.where(step.committed, step.candidates, canvas)
        assert torch.equal(step.canvas, canvas)
        for row in range(len(prompt)):
            assert canvas[row, step.positions(row)].tolist() == step.tokens(row)
    assert torch.equal(canvas, result.ids)


@settings(deadline=None, max_examples=15)
@given(policies(faithful=True), prompts(), st.integers(0, 20))
def test_faithful_mode_equals_the_plain_reference(policy, prompt, seed):
    model = small_model(seed=seed)
    arguments = {name: getattr(policy, name) for name in ("gen_length", "block_length", "steps", "temperature", "cfg_scale", "remasking")}
    case = record(model, prompt, policy.seed, logits_eos_inf=policy.suppress_eos, **arguments)
    assert generate(model, prompt, policy).ids.tolist() == case["output_ids"]


@settings(deadline=None, max_examples=5)
@given(policies(), prompts(max_rows=1))
def test_same_seed_same_text(policy, prompt):
    model = small_model()
    assert same(generate(model, prompt, policy), generate(model, prompt, policy))


def test_rows_of_a_batch_do_not_see_each_other():
    model, policy = small_model(), Policy(gen_length=8, block_length=4, steps=8)
    prompt = [[1, 2, 3], [4, 5, 6]]
    together = generate(model, prompt, policy).ids
    assert torch.equal(together, torch.cat([generate(model, [row], policy).ids for row in prompt]))


def test_padding_on_the_left_is_invisible_unless_faithful():
    model, policy = small_model(), Policy(gen_length=8, block_length=4, steps=8, cfg_scale=1.0)
    mask = torch.tensor([[0, 0, 1, 1]])
    one, other = (generate(model, [[pad, pad, 5, 6]], policy, attention_mask=mask).ids[:, 2:] for pad in (1, 30))
    assert torch.equal(one, other)
    disregarding = dataclasses.replace(policy, honour_padding=False)
    ignored = generate(model, [[1, 1, 5, 6]], disregarding, attention_mask=mask)
    assert same(ignored, generate(model, [[1, 1, 5, 6]], disregarding))


def test_guidance_of_scale_zero_is_no_guidance():
    model = small_model()
    plain = generate(model, [[1, 2]], Policy(gen_length=6, block_length=6, steps=6))
    assert all(len(step.fed) == 1 for step in plain.steps)
    guided = generate(model, [[1, 2]], Policy(gen_length=6, block_length=6, steps=6, cfg_scale=1e-12))
    assert all(len(step.fed) == 2 and bool((step.fed[1, :2] == MASK).all()) for step in guided.steps)
    assert torch.equal(plain.ids, guided.ids)


def test_mask_token_may_win_in_faithful_mode_only():
    model = small_model()

    class MaskWins(FloatSampler):
        def __call__(self, logits, sampling):
            return super().__call__(logits.index_fill(-1, torch.tensor([MASK]), 100.0), sampling)

    policy = Policy(gen_length=4, block_length=2, steps=4)
    assert not bool((generate(model, [[1]], policy, sampler=MaskWins()).ids == MASK).any())
    faithful = generate(model, [[1]], dataclasses.replace(policy, exclude_mask=False), sampler=MaskWins())
    assert bool((faithful.ids[:, 1:] == MASK).all())


def sampling(**values) -> Sampling:
    defaults = {"step": 0, "positions": torch.arange(2), "temperature": 0.0, "remasking": "low_confidence", "excluded": (), "deferred": ()}
    return Sampling(**{**defaults, "noise": TorchNoise(0), **values})


def test_candidate_ties_go_to_the_lowest_token():
    logits = torch.tensor([[[0.0, 2.0, 2.0, 1.0], [3.0, 3.0, 3.0, 3.0]]])
    tokens, confidence = FloatSampler()(logits, sampling())
    assert tokens.tolist() == [[1, 0]]
    torch.testing.assert_close(confidence, torch.softmax(logits, -1).amax(-1))


def test_deferred_tokens_can_win_but_have_no_confidence():
    logits = torch.tensor([[[0.0, 5.0, 1.0, 1.0], [4.0, 0.0, 0.0, 0.0]]])
    tokens, confidence = FloatSampler()(logits, sampling(deferred=(1,)))
    assert tokens.tolist() == [[1, 0]]
    assert confidence[0, 0] == 0.0
    assert confidence[0, 1] > 0.9


def test_excluded_tokens_have_no_part_in_the_softmax():
    logits = torch.tensor([[[0.0, 5.0, 1.0, 1.0]]])
    tokens, confidence = FloatSampler()(logits, sampling(excluded=(1,)))
    assert tokens.tolist() == [[2]]
    torch.testing.assert_close(confidence, torch.softmax(logits[..., [0, 2, 3]], -1)[..., 1])


def test_gumbel_max_draws_from_the_softmax():
    probability = torch.tensor([0.6, 0.3, 0.1])
    logits = probability.log().expand(1, 20_000, 3)
    tokens, _ = FloatSampler()(logits, sampling(positions=torch.arange(20_000), temperature=1.0))
    torch.testing.assert_close(torch.bincount(tokens[0]) / 20_000, probability, atol=0.02, rtol=0)


def test_text_is_cut_at_the_first_end_token():
    result = Generation(ids=torch.tensor([[9, 1, EOS, 2, EOS]]), prompt_length=1, n_forward=0, steps=())
    assert result.new_tokens(eos_token_id=EOS) == [1]
    assert result.new_tokens() == [1, EOS, 2, EOS]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([[]], "the prompt is empty"),
        ([], r"shape \[0\]"),
        ([[1, 2], [3]], "differ in length"),
        ([[1, 40]], "outside the vocabulary of 40"),
        ([[-1]], "outside the vocabulary of 40"),
        ([[MASK]], "holds the mask token"),
        ([[1] * 30], "need 34 positions; the model's context has 32"),
    ],
)
def test_bad_prompts_are_one_line(prompt, message):
    with pytest.raises(UnmaskError, match=message):
        generate(small_model(), prompt, Policy(gen_length=4, block_length=4, steps=4))


def test_attention_mask_of_another_shape_is_refused():
    with pytest.raises(UnmaskError, match="attention_mask has shape"):
        generate(small_model(), [[1, 2]], Policy(gen_length=4, block_length=4, steps=4), attention_mask=torch.ones(1, 3))

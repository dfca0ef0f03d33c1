"""A policy is its parts: what each setting composes, what does not go together, and what holds for everything that does."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.small import CONFIG, small_dream, small_model
from unmask.decoding.cache.block import DualCache, PrefixCache
from unmask.decoding.cache.dkv import DelayedCache
from unmask.decoding.cache.freecache import FreeCache, PromptCache
from unmask.decoding.cache.registry import caches
from unmask.decoding.commit import Certain, Factor, Threshold, TopK
from unmask.decoding.compose import cache_of, committer_of, opens_blocks, sampler_of, schedule_of, stop_of
from unmask.decoding.dream import Drawn, DreamSampler, OpenedTimesteps, Opening, SharedTimesteps, Timesteps
from unmask.decoding.generate import generate
from unmask.decoding.guided import GuidedSampler
from unmask.decoding.policies import NAMED, named_policy
from unmask.decoding.policy import DREAM_SCORERS, Policy
from unmask.decoding.sampler import FloatSampler
from unmask.decoding.schedule import Uniform, UntilClean
from unmask.decoding.stop import EarlyStop
from unmask.errors import UnmaskError
from unmask.models.checkpoint import load_model

VOCABULARY, MASK = CONFIG.vocab_size, CONFIG.mask_token_id
NETWORKS = {"llada": small_model(), "dream": small_dream()}
LLADA, DREAM = NETWORKS["llada"].config, NETWORKS["dream"].config


class Reader:
    """A guide that expects every token to be followed by the next number."""

    def __init__(self, vocab_size: int = VOCABULARY) -> None:
        self.vocab_size = vocab_size

    def read(self, kept: int, ids: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot((ids + 1) % (self.vocab_size - 2), self.vocab_size).float()


def policy(**values) -> Policy:
    return Policy(**{"gen_length": 8, "block_length": 4, "steps": 8, **values})


@pytest.mark.parametrize(
    ("values", "config", "schedule", "sampler", "committer"),
    [
        ({}, LLADA, Uniform, FloatSampler, TopK),
        ({}, DREAM, Uniform, FloatSampler, TopK),
        ({"cache": "dual"}, LLADA, Uniform, FloatSampler, TopK),
        ({"commit": "threshold", "cache": "prefix"}, LLADA, UntilClean, FloatSampler, Threshold),
        ({"commit": "threshold", "cache": "prefix"}, DREAM, UntilClean, Opening, Threshold),
        ({"commit": "factor", "remasking": "maskgit_plus"}, DREAM, UntilClean, DreamSampler, Factor),
        ({"schedule": "timesteps", "remasking": "entropy"}, DREAM, Timesteps, DreamSampler, TopK),
        ({"schedule": "timesteps", "remasking": "entropy", "alg_temp": 0.1}, LLADA, Timesteps, DreamSampler, Drawn),
        ({"schedule": "timesteps", "remasking": "origin"}, DREAM, Timesteps, DreamSampler, Certain),
        ({"schedule": "timesteps", "remasking": "entropy", "cache": "dual"}, DREAM, OpenedTimesteps, Opening, TopK),
        ({"schedule": "shared_timesteps", "cache": "freecache"}, DREAM, SharedTimesteps, FloatSampler, TopK),
        ({"commit": "guided", "block_length": 8, "cache": "prompt"}, DREAM, UntilClean, GuidedSampler, Certain),
        ({"commit": "guided", "block_length": 8, "cache": "dual"}, DREAM, UntilClean, GuidedSampler, Certain),
    ],
)
def test_a_policy_is_composed_of_the_parts_it_names(values, config, schedule, sampler, committer):
    chosen = policy(**values)
    guide = Reader() if chosen.commit == "guided" else None
    assert type(schedule_of(chosen, config)) is schedule
    assert type(sampler_of(chosen, config, guide=guide)) is sampler
    assert type(committer_of(chosen)) is committer


def test_a_cache_is_named_by_its_own_file():
    expected = {"prefix": PrefixCache, "dual": DualCache, "freecache": FreeCache, "prompt": PromptCache, "dkv": DelayedCache}
    assert {name: type(cache_of(policy(cache=name))) for name in caches()} == expected
    assert cache_of(policy()) is None
    assert cache_of(policy(cache="dual")) is not cache_of(policy(cache="dual"))


def test_early_stop_is_off_unless_asked_for():
    assert stop_of(policy(), LLADA) is None
    assert isinstance(stop_of(policy(early_stop=2), LLADA), EarlyStop)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cache": "rolling"}, "cache is 'rolling'; supported: none, dkv, dual, freecache, prefix, prompt"),
        ({"threshold": 0.0}, "threshold is 0.0; it must lie in"),
        ({"threshold": 1.5}, "threshold is 1.5; it must lie in"),
        ({"schedule": "cosine"}, "schedule is 'cosine'; supported: uniform, timesteps, shared_timesteps"),
        ({"commit": "all"}, "commit is 'all'; supported: schedule, threshold, factor, guided"),
        ({"cache": "dual"}, "cache 'dual' opens every block .* expected schedule 'timesteps', or commit .* schedule is 'uniform'"),
        ({"cache": "prefix", "schedule": "shared_timesteps"}, "schedule is 'shared_timesteps'"),
        ({"cache": "dual", "schedule": "timesteps", "remasking": "origin"}, "remasking 'origin' commits positions at random"),
        ({"cache": "dual", "schedule": "timesteps", "steps": 2}, "expected at least 2 steps per block; steps 2"),
        ({"commit": "guided", "block_length": 8}, "commit 'guided' needs a guide"),
        ({"early_stop": 1}, "early_stop decodes one row; the batch has 2"),
    ],
)
def test_what_does_not_go_together_is_one_line(values, message):
    with pytest.raises(UnmaskError, match=message) as caught:
        generate(NETWORKS["dream"], [[1, 2], [3, 4]][: 1 if values.get("commit") else 2], policy(**values))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "rows", "guide", "message"),
    [
        ({}, 1, Reader(), "commit 'schedule' takes no guide"),
        ({"commit": "guided", "block_length": 8}, 2, Reader(), "commit 'guided' decodes one row; the batch has 2"),
        ({"commit": "guided", "block_length": 8}, 1, Reader(41), "the guide has a vocabulary of 41; the diffusion model has 40"),
    ],
)
def test_a_guide_that_does_not_fit_is_refused(values, rows, guide, message):
    with pytest.raises(UnmaskError, match=message):
        generate(NETWORKS["llada"], [[1]] * rows, policy(**values), guide=guide)


@st.composite
def decodings(draw: st.DrawFn) -> tuple[str, Policy, list[list[int]], list[list[int]]]:
    """A network, a policy of any parts that go together on paper, prompts and a template with gaps."""
    commit = draw(st.sampled_from(["schedule", "threshold", "factor", "guided"]))
    scorers = {"guided": ["low_confidence"], "schedule": ["low_confidence", "random", *DREAM_SCORERS]}
    remasking = draw(st.sampled_from(scorers.get(commit, ["low_confidence", "maskgit_plus", "topk_margin"])))
    schedule = draw(st.sampled_from(["uniform", "timesteps", "shared_timesteps"])) if remasking != "origin" else "timesteps"
    blocks, block_length = 1 if commit == "guided" else draw(st.integers(1, 3)), draw(st.integers(1, 4))
    dream = remasking in DREAM_SCORERS
    chosen = Policy(
        gen_length=blocks * block_length,
        block_length=block_length,
        steps=blocks * draw(st.integers(1, 5)),
        temperature=0.0 if commit == "guided" else draw(st.sampled_from([0.0, 0.7])),
        cfg_scale=draw(st.sampled_from([0.0, 1.0])),
        remasking=remasking,
        schedule=schedule,
        commit=commit,
        cache=draw(st.sampled_from(["none", *caches()])),
        threshold=draw(st.sampled_from([0.05, 0.9, 1.0])),
        factor=draw(st.sampled_from([0.5, 4.0])),
        top_p=draw(st.sampled_from([None, 0.8])) if dream else None,
        top_k=draw(st.sampled_from([None, 3])) if dream else None,
        alg_temp=draw(st.sampled_from([0.0, 0.5])) if dream and remasking != "origin" and commit == "schedule" else 0.0,
        accept_top_k=draw(st.sampled_from([1, 5])),
        seed=draw(st.integers(0, 9)),
    )
    rows = 1 if commit == "guided" else draw(st.integers(1, 2))
    token = st.integers(0, MASK - 1)
    prompt_length = draw(st.integers(1 if commit == "guided" else 0, 3))
    prompt = draw(st.lists(st.lists(token, min_size=prompt_length, max_size=prompt_length), min_size=rows, max_size=rows))
    content = st.lists(st.one_of(st.just(MASK), token), min_size=chosen.gen_length, max_size=chosen.gen_length)
    template = draw(st.lists(content.filter(lambda ids: MASK in ids), min_size=rows, max_size=rows))
    return draw(st.sampled_from(sorted(NETWORKS))), chosen, prompt, template


# No row of a block's positions is fed, and none predicts.
UNFED = ("dream", Policy(gen_length=6, block_length=2, steps=12, cache="dkv", suppress_eos=False), [[]], [[39, 39, 39, 39, 0, 39]])


@settings(deadline=None, max_examples=150)
@given(decodings())
@example(UNFED)
def test_every_policy_fills_the_gaps_and_leaves_the_rest(case):
    network, chosen, prompt, template = case
    guide = Reader() if chosen.commit == "guided" else None
    try:
        opening = opens_blocks(chosen, NETWORKS[network].config)
    except UnmaskError as error:
        with pytest.raises(UnmaskError, match=f"^{re.escape(str(error))}$"):
            generate(NETWORKS[network], prompt, chosen, template=template, guide=guide)
        return
    result = generate(NETWORKS[network], prompt, chosen, template=template, guide=guide)
    for step in result.steps:
        if opening and step.start not in {earlier.start for earlier in result.steps[: step.step]}:
            assert int(step.committed.sum(dim=1).max()) == 1
    start = torch.cat((torch.tensor(prompt, dtype=torch.int64).view(len(prompt), -1), torch.tensor(template)), dim=1)
    given = start != MASK
    assert torch.equal(result.ids[given], start[given])
    assert not bool((result.ids == MASK).any())
    committed = sum(step.committed.long() for step in result.steps)
    assert torch.equal(committed, (~given).long())
    again = generate(NETWORKS[network], prompt, chosen, template=template, guide=Reader() if guide else None)
    assert torch.equal(again.ids, result.ids)
    assert again.n_forward == result.n_forward


@settings(deadline=None, max_examples=20)
@given(
    st.sampled_from(sorted(NETWORKS)), st.sampled_from(["uniform", "timesteps"]), st.sampled_from(["low_confidence", "entropy"]), st.data()
)
def test_rows_with_other_gaps_do_not_change_a_row(network, schedule, remasking, data):
    chosen = policy(schedule=schedule, remasking=remasking, steps=6)
    content = st.lists(st.sampled_from([MASK, 3, 7]), min_size=8, max_size=8).filter(lambda ids: MASK in ids)
    template = data.draw(st.lists(content, min_size=2, max_size=2))
    model, prompt = NETWORKS[network], [[1, 2], [3, 4]]
    together = generate(model, prompt, chosen, template=template).ids
    alone = [generate(model, [prompt[row]], chosen, template=[template[row]]).ids for row in range(2)]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("network", NETWORKS)
def test_a_block_without_gaps_takes_no_step(network):
    template = [[5, 6, 7, 8, MASK, 9, MASK, 9, 1, 2, 3, 4]]
    result = generate(NETWORKS[network], [[1]], policy(gen_length=12, steps=6), template=template)
    assert [step.block for step in result.steps] == [1, 1]
    shared = generate(NETWORKS[network], [[1]], policy(gen_length=12, steps=6, schedule="shared_timesteps"), template=template)
    assert [step.block for step in shared.steps] == [1, 1]


def test_a_template_of_gaps_alone_is_no_template():
    model = NETWORKS["llada"]
    plain, templated = (generate(model, [[1, 2]], policy(), template=template) for template in (None, [[MASK] * 8]))
    assert torch.equal(plain.ids, templated.ids)


@pytest.mark.parametrize(
    ("prompt", "template", "message"),
    [
        ([[1]], [[1] * 8], "the template has no gap"),
        ([[1]], [[MASK] * 7], r"the template has shape \[1, 7\]; \[batch, gen_length\] is \[1, 8\] here"),
        ([[1]], [[MASK] * 7 + [VOCABULARY]], "the template holds a token outside the vocabulary of 40"),
        ([[1], [2]], [[MASK] * 8], "the template has shape"),
        ([[1], [2]], [[MASK] * 8, [MASK] * 7], "the rows of the template differ in length"),
        ([[]], None, "the prompt is empty"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused(prompt, template, message):
    with pytest.raises(UnmaskError, match=message):
        generate(NETWORKS["llada"], prompt, policy(), template=template)


def test_a_guide_needs_something_to_go_on_from():
    with pytest.raises(UnmaskError, match="a token before the first gap"):
        generate(NETWORKS["llada"], [[]], policy(commit="guided", block_length=8), guide=Reader(), template=[[MASK] * 8])
    result = generate(NETWORKS["llada"], [[]], policy(commit="guided", block_length=8), guide=Reader(), template=[[4] + [MASK] * 7])
    assert not bool((result.ids == MASK).any())


@pytest.fixture(scope="module")
def shipped():
    return load_model("sotu")


@pytest.mark.parametrize("name", NAMED)
def test_named_policies_run_on_the_shipped_model(shipped, name):
    chosen = named_policy(name, gen_length=6, block_length=None if NAMED[name].one_block else 3, steps=6)
    guide = Reader(shipped.config.vocab_size) if chosen.commit == "guided" else None
    result = generate(shipped, [[7, 8, 9]], chosen, guide=guide)
    assert not bool((result.ids == shipped.config.mask_token_id).any())
    assert 1 <= result.n_forward <= 6


def test_a_named_policy_may_be_changed():
    assert named_policy("fast-dllm", threshold=0.5) == Policy(64, 32, 64, cache="dual", commit="threshold", threshold=0.5)
    assert named_policy("dream", gen_length=16).block_length == 16
    assert named_policy("llada", gen_length=16) == Policy(16, 16, 16)
    with pytest.raises(UnmaskError, match="unknown policy 'greedy': expected one of llada, "):
        named_policy("greedy")


def test_every_named_policy_says_where_it_comes_from():
    for named in NAMED.values():
        assert "arXiv" in named.paper
        assert named.summary

"""Guided Diffusion: what the guide may change, and what it may not."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.small import DREAM_CONFIG, small_dream
from unmask.decoding.cache.freecache import PromptCache
from unmask.decoding.commit import Certain
from unmask.decoding.generate import generate
from unmask.decoding.guided import Exact, GuidedSampler, Relaxed
from unmask.decoding.policy import Policy
from unmask.decoding.schedule import UntilClean
from unmask.errors import UnmaskError

VOCABULARY, MASK = DREAM_CONFIG.vocab_size, DREAM_CONFIG.mask_token_id
LENGTH = 8


class Reader:
    """A guide that predicts by a function of the token and its position, and remembers what it has read."""

    def __init__(self, agrees):
        self.vocab_size, self.agrees, self.read_so_far = VOCABULARY, agrees, []

    def read(self, kept, ids):
        assert kept <= len(self.read_so_far)
        self.read_so_far = [*self.read_so_far[:kept], *ids.tolist()]
        following = torch.cat((ids[1:], torch.zeros(1, dtype=torch.int64)))
        agreed = torch.tensor([self.agrees(kept + 1 + i) for i in range(len(ids))])
        return torch.nn.functional.one_hot(torch.where(agreed, following, (following + 1) % VOCABULARY), VOCABULARY).float()


class Unmoved(Reader):
    """A guide that predicts by the position alone."""

    def read(self, kept, ids):
        super().read(kept, ids)
        return torch.randn(16, VOCABULARY, generator=torch.Generator().manual_seed(0))[kept : kept + len(ids)]


def guided(agrees, *, eos=VOCABULARY - 3, chunk=32, cache=True, prompt=(3, 1, 4), guide=None, accept=None):
    guide = guide or Reader(agrees)
    policy = Policy(gen_length=LENGTH, block_length=LENGTH, steps=LENGTH, suppress_eos=False)
    sampler = GuidedSampler(guide, eos, accept, chunk)
    result = generate(
        small_dream(),
        [list(prompt)],
        policy,
        sampler=sampler,
        committer=Certain(),
        schedule=UntilClean(LENGTH),
        cache=PromptCache() if cache else None,
    )
    return result, guide


@settings(deadline=None, max_examples=15)
@given(st.sets(st.integers(3, 10)), st.booleans())
def test_accepted_runs_commit_left_to_right(refused, cache):
    result, guide = guided(lambda position: position not in refused, eos=-1, cache=cache)
    committed = [step.positions() for step in result.steps]
    assert [position for run in committed for position in run] == list(range(3, 11))
    for run in committed:
        assert not any(position in refused for position in run[1:])
        stopped = run[-1] + 1 == 11 or run[-1] + 1 in refused or (run == [run[0]] and run[0] in refused)
        assert stopped
    assert guide.read_so_far[:10] == result.ids[0, : len(guide.read_so_far[:10])].tolist()


def test_a_guide_that_refuses_everything_leaves_one_token_per_step():
    result, _ = guided(lambda position: False, eos=-1)
    assert [step.positions() for step in result.steps] == [[position] for position in range(3, 11)]


def test_chunks_do_not_change_the_text():
    runs = [guided(bool, eos=-1, chunk=chunk, guide=Unmoved(bool), accept=Relaxed(20, 0.0))[0] for chunk in (1, 2, 3, 32)]
    assert 1 < runs[0].n_forward < LENGTH
    assert all([step.positions() for step in run.steps] == [step.positions() for step in runs[0].steps] for run in runs)
    assert all(torch.equal(run.ids, runs[0].ids) for run in runs)


def test_everything_after_an_end_token_is_filled_with_it():
    plain, _ = guided(lambda position: True, eos=-1)
    end = int(plain.ids[0, 5])
    result, _ = guided(lambda position: True, eos=end)
    first = result.ids[0].tolist().index(end, 3)
    assert set(result.ids[0, first:].tolist()) == {end}
    assert result.n_forward == 1


def test_prompt_of_one_token_and_no_cache():
    result, guide = guided(lambda position: True, prompt=(7,), cache=False)
    assert not bool((result.ids == MASK).any())
    assert guide.read_so_far[0] == 7


def test_relaxed_acceptance_is_its_definition():
    logits = torch.tensor([[0.5, 0.3, 0.2], [0.4, 0.35, 0.25], [0.4, 0.4, 0.2]]).log()
    drafts = torch.tensor([1, 1, 1])
    assert Exact()(drafts, logits).tolist() == [False, False, False]
    assert Relaxed(1, 0.0)(drafts, logits).tolist() == [False, False, False]
    assert Relaxed(2, 0.7)(drafts, logits).tolist() == [False, True, True]
    assert Relaxed(3, 0.0)(torch.tensor([2, 2, 2]), logits).tolist() == [True, True, True]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Relaxed(0, 0.5), "top_k is 0"),
        (lambda: Relaxed(2, 1.5), "ratio is 1.5"),
        (lambda: GuidedSampler(Reader(bool), 1, chunk=0), "chunk is 0"),
    ],
)
def test_impossible_choices_are_named(build, message):
    with pytest.raises(UnmaskError, match=message):
        build()


@pytest.mark.parametrize(
    ("prompt", "temperature", "vocabulary", "message"),
    [
        ([[1], [2]], 0.0, VOCABULARY, "one row at a time"),
        ([[1]], 0.5, VOCABULARY, "neither a temperature"),
        ([[1]], 0.0, 41, "the guide has a vocabulary of 41; the diffusion model has 40"),
    ],
)
def test_what_cannot_be_guided_is_named(prompt, temperature, vocabulary, message):
    guide = Reader(lambda position: True)
    guide.vocab_size = vocabulary
    policy = Policy(gen_length=4, block_length=4, steps=4, temperature=temperature)
    with pytest.raises(UnmaskError, match=message):
        generate(small_dream(), prompt, policy, sampler=GuidedSampler(guide, 1), committer=Certain(), schedule=UntilClean(4))

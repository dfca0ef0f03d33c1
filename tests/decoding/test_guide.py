"""The guide's cache, and the perplexity that a guide gives a text."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.small import GUIDE_CONFIG, small_guide, small_model
from unmask.decoding.cache.base import KeyValueStore, Moment
from unmask.decoding.commit import Certain
from unmask.decoding.generate import generate
from unmask.decoding.guide import CachedGuide
from unmask.decoding.guided import GuidedSampler
from unmask.decoding.perplexity import generative_perplexity, next_token_nats
from unmask.decoding.policy import Policy
from unmask.decoding.schedule import UntilClean
from unmask.errors import UnmaskError
from unmask.models.guide import GuideNetwork
from unmask.quant.arithmetic import MachineArithmetic

END, MASK, CONTEXT = GUIDE_CONFIG.eos_token_id, GUIDE_CONFIG.mask_token_id, GUIDE_CONFIG.max_sequence_length


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_reading_in_any_pieces_is_one_forward_pass(data):
    model = small_guide().double()
    guide, known = CachedGuide(model), torch.empty(0, dtype=torch.int64)
    for _ in range(data.draw(st.integers(1, 4))):
        kept = data.draw(st.integers(0, len(known)))
        more = data.draw(st.lists(st.integers(0, 37), max_size=min(12, CONTEXT - kept)))
        known = torch.cat((known[:kept], torch.tensor(more, dtype=torch.int64)))
        logits = guide.read(kept, known[kept:])
        assert logits.shape == (len(more), guide.vocab_size)
        if more:
            with torch.no_grad():
                torch.testing.assert_close(logits, model(known[None])[0, kept:].float())


def test_what_is_forgotten_leaves_no_trace_in_the_machines_formats():
    model = small_guide()
    model.arithmetic = MachineArithmetic("mxint8", "mxint8", "mxint8")
    ids = torch.randint(0, 38, (9,), generator=torch.Generator().manual_seed(0))
    fresh, used = CachedGuide(model), CachedGuide(model)
    expected = torch.cat([fresh.read(i, ids[i : i + 1]) for i in range(9)])
    assert torch.equal(torch.cat([used.read(i, ids[i : i + 1]) for i in range(5)]), expected[:5])
    used.read(5, torch.tensor([1, 2, 3]))
    assert torch.equal(torch.cat([used.read(i, ids[i : i + 1]) for i in range(2, 9)]), expected[2:])


def test_a_store_of_the_whole_canvas_works_too():
    model, store = small_guide().double(), KeyValueStore()
    canvas = torch.randint(0, 38, (2, 10), generator=torch.Generator().manual_seed(0))
    now = Moment(canvas, 0, range(10), 0, 0)
    with torch.no_grad():
        model.hidden(canvas, positions=range(10), layers=store.runner(now, range(10)))
        canvas[:, 3:6] = 7
        for rows in (range(3, 6), torch.arange(6, 10)):
            seen = torch.ones(2, 10, dtype=torch.bool)
            hidden = model.hidden(canvas[:, rows], seen, positions=rows, layers=store.runner(now, rows))
            torch.testing.assert_close(hidden, model.hidden(canvas)[:, rows])


def test_what_a_guide_cannot_read_is_named():
    guide = CachedGuide(small_guide())
    guide.read(0, torch.tensor([1, 2, 3]))
    with pytest.raises(UnmaskError, match="cannot keep 4 tokens; it has read 3"):
        guide.read(4, torch.tensor([1]))
    with pytest.raises(UnmaskError, match="33 tokens do not fit the guide's context of 32"):
        guide.read(3, torch.ones(30, dtype=torch.int64))
    guide.read(1, torch.tensor([5]))
    with pytest.raises(UnmaskError, match="cannot keep 3 tokens; it has read 2"):
        guide.read(3, torch.tensor([1]))


def test_guided_diffusion_commits_what_the_guide_would_write():
    """Every token that a step commits after its first is the guide's own choice after what stands before it."""
    model, guide = small_model(), small_guide()
    with torch.no_grad():
        # One network drafts from a bidirectional view and the other judges; near ones agree often.
        guide.network.load_state_dict({**guide.network.state_dict(), **{"model.transformer.ln_f.weight": torch.ones(16)}})
    policy = Policy(gen_length=12, block_length=12, steps=12, suppress_eos=False)
    sampler = GuidedSampler(CachedGuide(guide), -1)
    result = generate(model, [[3, 1, 4]], policy, sampler=sampler, committer=Certain(), schedule=UntilClean(12))
    with torch.no_grad():
        choices = guide(result.ids)[0].argmax(dim=-1)
    assert not bool((result.ids == MASK).any())
    for step in result.steps:
        for position in step.positions()[1:]:
            assert result.ids[0, position] == choices[position - 1]


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 70), st.data())
def test_every_token_is_scored_once_with_half_a_window_before_it(length, data):
    model = small_guide().double()
    window, first = data.draw(st.integers(1, CONTEXT)), data.draw(st.integers(1, length))
    ids = torch.randint(0, 38, (length,), generator=torch.Generator().manual_seed(length))
    nats = next_token_nats(model, ids, first, window=window)
    assert nats.shape == (length - first,)
    if length - 1 <= window:
        with torch.no_grad():
            expected = torch.nn.functional.cross_entropy(model(ids[None, :-1])[0].float(), ids[1:], reduction="none")
        torch.testing.assert_close(nats, expected[first - 1 :], rtol=1e-4, atol=1e-5)


def test_a_long_text_is_read_in_overlapping_windows(monkeypatch):
    fed = []
    hidden = GuideNetwork.hidden
    monkeypatch.setattr(GuideNetwork, "hidden", lambda self, ids: fed.append(ids[0].tolist()) or hidden(self, ids))
    next_token_nats(small_guide(), torch.arange(20), 1, window=8)
    assert fed == [list(range(0, 8)), list(range(5, 13)), list(range(10, 18)), list(range(11, 19))]


class Letters:
    """Decodes a token to one letter, an end token to none."""

    def decode(self, ids):
        return "".join(chr(97 + i % 26) for i in ids if i != END)


def test_perplexity_counts_generated_tokens_up_to_the_first_end():
    guide = small_guide()
    prompts, generated = [[1, 2, 3], []], [[4, 5, END, 6, 7], [8, 9]]
    measured = generative_perplexity(guide, Letters(), prompts, generated)
    nats = 0.0
    with torch.no_grad():
        for ids, first in (([1, 2, 3, 4, 5, END], 3), ([END, 8, 9], 1)):
            rows = guide(torch.tensor([ids]))[0].log_softmax(-1)
            nats -= sum(rows[i - 1, ids[i]].item() for i in range(first, len(ids)))
    assert (measured.tokens, measured.characters) == (5, 4)
    assert measured.perplexity == pytest.approx(math.exp(nats / 5), rel=1e-4)
    assert measured.bits_per_character == pytest.approx(nats / math.log(2) / 4, rel=1e-4)


def test_texts_without_characters_have_no_bits_per_character():
    assert generative_perplexity(small_guide(), Letters(), [[1]], [[END, END]]).bits_per_character is None


@pytest.mark.parametrize(
    ("prompts", "generated", "message"),
    [
        ([[1]], [], "1 prompts for 0 generated texts"),
        ([[1]], [[]], "no generated token"),
        ([[1]], [[2, MASK]], "token 39 is a mask"),
        ([[40]], [[2]], "token 40 is outside the vocabulary of 40"),
    ],
)
def test_texts_that_have_no_perplexity_are_named(prompts, generated, message):
    with pytest.raises(UnmaskError, match=message):
        generative_perplexity(small_guide(), Letters(), prompts, generated)


def test_impossible_windows_are_named():
    with pytest.raises(UnmaskError, match="windows of 33 tokens do not fit the guide's context of 32"):
        next_token_nats(small_guide(), torch.arange(4), 1, window=33)
    with pytest.raises(UnmaskError, match="first is 0"):
        next_token_nats(small_guide(), torch.arange(4), 0)

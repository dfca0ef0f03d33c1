"""Measures on texts that can be counted by hand, and on generations."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from unmask.decoding.perplexity import next_token_nats
from unmask.quality.candidates import candidate
from unmask.quality.measure import agreement, distinct_pairs, measure, until_end
from unmask.training.baselines import KneserNeyBigram


def test_distinct_pairs_count_each_text_for_itself():
    assert distinct_pairs([[1, 1, 1, 1, 1]]) == 1 / 4
    assert distinct_pairs([[1, 2, 1, 2], [1, 2]]) == 3 / 4
    assert distinct_pairs([[1], []]) is None


def test_agreement_counts_positions():
    assert agreement([[1, 2, 3, 4], [5, 6, 7, 8]], [[1, 0, 3, 0], [5, 6, 7, 0]]) == 5 / 8


def test_a_text_ends_with_its_first_end_token():
    assert until_end([1, 9, 2, 9], 9) == [1, 9]
    assert until_end([1, 2], 9) == [1, 2]


def test_quality_is_that_of_the_tokens_up_to_the_end(judge, windows):
    texts = [[1, 2, 1, 2, 38, 38, 38, 38], [3, 3, 3, 3, 3, 3, 3, 3]]
    nats = sum(
        float(next_token_nats(judge.network, torch.tensor([*window.prompt, *text]), 4).sum())
        for window, text in zip(windows, [texts[0][:5], texts[1]], strict=True)
    )
    quality = judge(windows, texts)
    assert quality.tokens == 13 / 2
    assert quality.perplexity == pytest.approx(math.exp(nats / 13), rel=1e-5)
    assert quality.bits_per_character == pytest.approx(nats / math.log(2) / 12, rel=1e-5)
    assert quality.distinct_2 == 4 / 11  # (1, 2), (2, 1), (2, end) and (3, 3), of 4 and 7 pairs


def test_a_bigram_judges_the_same_tokens_given_the_last_one_of_the_prompt(judge, windows):
    bigram = KneserNeyBigram([[1, 2, 3, 4, 1, 2, 4, 3, 3]], 40, 38)
    texts = [[1, 2, 38, 38], [3, 3, 3, 3]]
    pairs = [(4, 1), (1, 2), (2, 38), (6, 3), (3, 3), (3, 3), (3, 3)]
    bits = sum(-math.log2(bigram.probability(np.array([before]), np.array([after]))[0]) for before, after in pairs)
    assert replace(judge, bigram=bigram)(windows, texts).bigram_bits_per_character == pytest.approx(bits / 6)
    assert judge(windows, texts).bigram_bits_per_character is None


def test_plain_decoding_agrees_with_itself_and_takes_a_step_per_token(model, judge, windows):
    row = measure(candidate("llada"), model, judge, windows, seed=0, plain=None)
    assert row.agreement == 1
    assert row.steps == row.forwards == 8
    assert row.positions_fed == 8 * 12
    assert row.guide_forwards == 0
    assert row.tokens_per_forward == row.tokens / row.forwards


@pytest.mark.parametrize("name", ["default", "dream", "fast-dllm:factor=1:commit=factor:factor=20", "guided:accept_top_k=20", "flashdlm"])
def test_a_seed_decides_everything_but_the_time(model, judge, windows, name):
    plain = measure(candidate("llada"), model, judge, windows, seed=0, plain=None).generated
    rows = [measure(candidate(name), model, judge, windows, seed=seed, plain=plain) for seed in (4, 4)]
    first, second = (replace(row, wall_seconds=0.0) for row in rows)
    assert first == second
    assert first.tokens_per_forward == first.tokens / first.forwards
    assert first.agreement == agreement(first.generated, plain)
    if name == "default":
        assert measure(candidate(name), model, judge, windows, seed=5, plain=plain).generated != first.generated


def test_prompts_draw_from_seeds_of_their_own(model, judge, windows):
    together = measure(candidate("default"), model, judge, windows, seed=4, plain=None)
    alone = measure(candidate("default"), model, judge, windows[1:], seed=5, plain=None)
    assert together.generated[1] == alone.generated[0]


def test_a_guide_that_accepts_saves_forwards_and_its_reads_are_counted(model, judge, windows):
    row = measure(candidate("guided:accept_top_k=40"), model, judge, windows, seed=0, plain=None)
    assert row.forwards == 1
    assert row.tokens_per_forward == row.tokens
    assert row.guide_forwards == 2  # the prompt but for its last token, then that and all drafts


def test_guidance_without_a_classifier_takes_two_forwards_a_step(model, judge, windows):
    row = measure(candidate("llada:cfg_scale=1"), model, judge, windows, seed=0, plain=None)
    assert (row.steps, row.forwards) == (8, 16)

from __future__ import annotations

import math

import numpy as np
import pytest

from unmask.training.baselines import KneserNeyBigram, xz_after_training_text, xz_alone
from unmask.training.corpus import Corpus

VOCABULARY, END = 50, 48


@pytest.fixture
def bigram() -> KneserNeyBigram:
    rng = np.random.default_rng(0)
    return KneserNeyBigram([rng.zipf(1.5, 400).clip(0, 40).tolist() for _ in range(3)], VOCABULARY, END)


def test_probabilities_sum_to_one_after_every_context(bigram: KneserNeyBigram) -> None:
    tokens = np.arange(VOCABULARY)
    table = bigram.probability(tokens[:, None], tokens[None, :])
    assert (table > 0).all()
    np.testing.assert_allclose(table.sum(1), 1, rtol=1e-12)


def test_seen_pairs_are_discounted_and_unseen_ones_follow_continuation_counts() -> None:
    # Pairs: (9,1) (1,2) (2,1) (1,2) (2,9); (9,1) (1,3) (3,9). Seen once: 21 29 13 39; twice: 91 12. Types: 6, in which 1 follows 9 2;
    # 2 follows 1; 9 follows 2 3; 3 follows 1.
    bigram = KneserNeyBigram([[1, 2, 1, 2], [1, 3]], vocabulary=10, end_of_text=9)
    discount = 4 / (4 + 2 * 2)
    lower = 2 / (2 + 2 * 2)
    continuation = (1 - lower) / 6 + lower * 4 / 6 / 10
    expected = (2 - discount) / 3 + discount * 2 / 3 * continuation
    assert bigram.probability(np.array(1), np.array(2)) == pytest.approx(expected)
    assert bigram.probability(np.array(7), np.array(2)) == pytest.approx(continuation)


def test_bits_per_character_spread_the_bits_of_all_tokens(bigram: KneserNeyBigram) -> None:
    pairs = [(END, 3), (3, 7), (END, 1)]
    bits = -sum(math.log2(bigram.probability(np.array(first), np.array(second))) for first, second in pairs)
    assert bigram.bits_per_character([[3, 7], [1]], characters=12) == pytest.approx(bits / 12)


def test_xz_profits_from_the_training_text(corpus: Corpus) -> None:
    held_out, training = [corpus.held_out[0].text], [speech.text for speech in corpus.training]
    assert 1.5 < xz_after_training_text(held_out, training) < xz_alone(held_out) < 4
    assert xz_after_training_text(held_out, held_out) < 0.1

"""A guide's bits per character: exact, one per token, and what the shipped one must beat."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch

from models.small import DREAM_CONFIG, small_dream, small_guide
from unmask.errors import UnmaskError
from unmask.models.guide import load_guide
from unmask.models.tokenizer import load_tokenizer
from unmask.training.baselines import KneserNeyBigram
from unmask.training.corpus import read_speeches, split_speeches
from unmask.training.evaluation import bits_per_character, cross_entropy_bits, encode_all
from unmask.training.recipe import load_recipe

from .conftest import SPEECHES

CORPUS = os.environ.get("UNMASK_CORPUS")


def test_the_cross_entropy_predicts_every_token_after_an_end_of_text() -> None:
    model, texts = small_guide().double(), [[1, 2, 3, 4], [5, 6]]
    nats = 0.0
    with torch.no_grad():
        for text in texts:
            ids = [model.config.eos_token_id, *text]
            rows = model(torch.tensor([ids[:-1]]))[0].log_softmax(-1)
            nats -= sum(rows[i, token].item() for i, token in enumerate(text))
    assert cross_entropy_bits(model, texts, 11, length=32) == pytest.approx(nats / math.log(2) / 11, rel=1e-5)


def test_a_cross_entropy_without_text_is_refused() -> None:
    with pytest.raises(UnmaskError, match="no text"):
        cross_entropy_bits(small_guide(), [[]], 0, length=8)


def test_a_network_that_has_no_measure_is_named() -> None:
    with pytest.raises(UnmaskError, match="no measure is implemented for a Dream network"):
        bits_per_character(small_dream(DREAM_CONFIG), [[1, 2]], 3, length=8)


def test_the_shipped_guide_predicts_a_held_out_speech_as_it_did_when_it_was_trained() -> None:
    text = read_speeches(SPEECHES)[0].text
    ids = encode_all(load_tokenizer("sotu-guide"), [text])
    assert cross_entropy_bits(load_guide(dtype=torch.bfloat16), ids, len(text), length=512) == pytest.approx(1.046, abs=0.003)


@pytest.mark.skipif(CORPUS is None, reason="UNMASK_CORPUS names no corpus of speeches")
def test_the_shipped_guide_beats_a_bigram_on_a_held_out_speech() -> None:
    assert CORPUS is not None
    recipe, tokenizer = load_recipe("sotu-guide"), load_tokenizer("sotu-guide")
    corpus = split_speeches(read_speeches(Path(CORPUS)), recipe.data.held_out, recipe.data.split_seed)
    speech = min(corpus.held_out, key=lambda speech: len(speech.text))
    guide = load_guide("sotu-guide", "sotu", torch.bfloat16)
    training = encode_all(tokenizer, [speech.text for speech in corpus.training])
    bigram = KneserNeyBigram(training, guide.config.vocab_size, guide.config.eos_token_id)
    ids, characters = [tokenizer.encode(speech.text)], len(speech.text)
    assert cross_entropy_bits(guide, ids, characters, length=512) < 0.9 * bigram.bits_per_character(ids, characters)

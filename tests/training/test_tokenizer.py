from __future__ import annotations

import pytest

from unmask.training.corpus import Corpus
from unmask.training.tokenizer import END_OF_TEXT, MASK, train_tokenizer


def test_the_same_texts_give_the_same_tokenizer(corpus: Corpus) -> None:
    texts = [speech.text for speech in corpus.training]
    assert train_tokenizer(texts, 400).to_str() == train_tokenizer(texts, 400).to_str()


def test_any_text_round_trips(corpus: Corpus) -> None:
    tokenizer = train_tokenizer([speech.text for speech in corpus.training], 400)
    for text in (corpus.held_out[0].text, "naïve — 水\n\t"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_special_tokens_are_the_last_two_ids(corpus: Corpus) -> None:
    tokenizer = train_tokenizer([corpus.held_out[0].text], 300)
    assert (tokenizer.token_to_id(END_OF_TEXT), tokenizer.token_to_id(MASK)) == (298, 299)


def test_a_vocabulary_that_the_texts_cannot_fill_is_refused() -> None:
    with pytest.raises(ValueError, match="of 400 entries"):
        train_tokenizer(["too short"], 400)

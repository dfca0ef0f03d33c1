"""The shipped model's measure: its bound on held-out speeches, beside what a compressor and a bigram need for the same text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from unmask.models.llada import Llada
from unmask.models.tokenizer import Tokenizer
from unmask.training.baselines import KneserNeyBigram, xz_after_training_text, xz_alone
from unmask.training.bound import diffusion_bound


@dataclass(frozen=True)
class Evaluation:
    """Bits per character of the same texts by several means; None where the training text was not at hand.

    Attributes:
        bits_per_character: the model's masked-diffusion bound.
        standard_error: of the bound, from the draw of masks.
        xz_alone: `xz -9` on the texts by themselves.
        xz_after_training_text: what `xz -9` adds for the texts after the training text.
        kneser_ney_bigram: an interpolated Kneser-Ney bigram over the model's tokens, counted on the training text.
        tokens: of the texts.
        characters: of the texts.
        length: tokens per window of the bound.
        strata: forward passes per window.
    """

    bits_per_character: float
    standard_error: float
    xz_alone: float
    xz_after_training_text: float | None
    kneser_ney_bigram: float | None
    tokens: int
    characters: int
    length: int
    strata: int


def encode_all(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text."""
    return [tokenizer.encode(text) for text in texts]


def evaluate(
    model: Llada,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    training: Sequence[str] = (),
    *,
    length: int,
    strata: int = 8,
    seed: int = 0,
    report: Callable[[float], None] = lambda fraction: None,
) -> Evaluation:
    """Measure a model on `texts`; `training` is the text it was trained on, if at hand. The rest is as in `diffusion_bound`."""
    ids = encode_all(tokenizer, texts)
    characters = sum(map(len, texts))
    bound = diffusion_bound(model, ids, characters, length=length, strata=strata, seed=seed, report=report)
    after, bigram = None, None
    if training:
        after = xz_after_training_text(texts, training)
        counted = KneserNeyBigram(encode_all(tokenizer, training), model.config.vocab_size, model.config.eos_token_id)
        bigram = counted.bits_per_character(ids, characters)
    return Evaluation(
        bits_per_character=bound.bits_per_character,
        standard_error=bound.standard_error,
        xz_alone=xz_alone(texts),
        xz_after_training_text=after,
        kneser_ney_bigram=bigram,
        tokens=bound.tokens,
        characters=bound.characters,
        length=length,
        strata=strata,
    )

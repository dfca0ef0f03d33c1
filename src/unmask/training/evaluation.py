"""A model's measure: its bits per character of held-out speeches, beside what a compressor and a bigram need for the same text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from unmask.decoding.perplexity import next_token_nats
from unmask.errors import UnmaskError
from unmask.models.family import Network
from unmask.models.guide import GuideNetwork
from unmask.models.llada import Llada
from unmask.models.tokenizer import Tokenizer
from unmask.training.baselines import KneserNeyBigram, xz_after_training_text, xz_alone
from unmask.training.bound import diffusion_bound


@dataclass(frozen=True)
class Evaluation:
    """Bits per character of the same texts by several means; None where the training text was not at hand.

    Attributes:
        bits_per_character: the model's masked-diffusion bound, or the cross-entropy of a guide, which is exact.
        standard_error: of the bound, from the draw of masks; None for a cross-entropy.
        xz_alone: `xz -9` on the texts by themselves.
        xz_after_training_text: what `xz -9` adds for the texts after the training text.
        kneser_ney_bigram: an interpolated Kneser-Ney bigram over the model's tokens, counted on the training text.
        tokens: of the texts.
        characters: of the texts.
        length: tokens per window of the bound or the cross-entropy.
        strata: of the bound, forward passes per window; None for a cross-entropy.
    """

    bits_per_character: float
    standard_error: float | None
    xz_alone: float
    xz_after_training_text: float | None
    kneser_ney_bigram: float | None
    tokens: int
    characters: int
    length: int
    strata: int | None


def encode_all(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text."""
    return [tokenizer.encode(text) for text in texts]


def cross_entropy_bits(
    model: GuideNetwork,
    texts: Sequence[Sequence[int]],
    characters: int,
    *,
    length: int,
    report: Callable[[float], None] = lambda fraction: None,
) -> float:
    """Bits per character of `texts` under an autoregressive model, each text after an end-of-text token.

    Every token of a text is predicted, from half a window to a window of what is before it or, near the beginning, from all of it.

    Args:
        model: gives the probabilities.
        texts: token ids of each text.
        characters: how many characters the texts have together.
        length: tokens per window.
        report: called after each text with the fraction that is done.

    Raises:
        UnmaskError: no text, or windows longer than the model's context.
    """
    if not characters or not any(texts):
        raise UnmaskError("no text to measure the cross-entropy on")
    nats, done, tokens = 0.0, 0, sum(map(len, texts))
    for text in texts:
        ids = torch.tensor([model.config.eos_token_id, *text])
        nats += next_token_nats(model, ids, 1, window=length).double().sum().item()
        done += len(text)
        report(done / tokens)
    return nats / math.log(2) / characters


def bits_per_character(
    model: Network,
    texts: Sequence[Sequence[int]],
    characters: int,
    *,
    length: int,
    strata: int = 8,
    seed: int = 0,
    report: Callable[[float], None] = lambda fraction: None,
) -> tuple[float, float | None]:
    """The bound of a LLaDA network with its standard error, or the cross-entropy of a guide, which is exact, with None.

    Args and errors are those of `diffusion_bound` and `cross_entropy_bits`.

    Raises:
        UnmaskError: a network of another family, besides.
    """
    match model:
        case GuideNetwork():
            return cross_entropy_bits(model, texts, characters, length=length, report=report), None
        case Llada():
            bound = diffusion_bound(model, texts, characters, length=length, strata=strata, seed=seed, report=report)
            return bound.bits_per_character, bound.standard_error
    raise UnmaskError(f"no measure is implemented for a {type(model).__name__} network; supported: LLaDA's and a guide's")


def evaluate(
    model: Network,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    training: Sequence[str] = (),
    *,
    length: int,
    strata: int = 8,
    seed: int = 0,
    report: Callable[[float], None] = lambda fraction: None,
) -> Evaluation:
    """Measure a model on `texts`; `training` is the text it was trained on, if at hand. The rest is as in
    `bits_per_character`.
    """
    ids = encode_all(tokenizer, texts)
    characters = sum(map(len, texts))
    after, bigram = None, None
    if training:
        after = xz_after_training_text(texts, training)
        counted = KneserNeyBigram(encode_all(tokenizer, training), model.config.vocab_size, model.config.eos_token_id)
        bigram = counted.bits_per_character(ids, characters)
    bits, error = bits_per_character(model, ids, characters, length=length, strata=strata, seed=seed, report=report)
    return Evaluation(
        bits_per_character=bits,
        standard_error=error,
        xz_alone=xz_alone(texts),
        xz_after_training_text=after,
        kneser_ney_bigram=bigram,
        tokens=sum(map(len, ids)),
        characters=characters,
        length=length,
        strata=None if error is None else strata,
    )

"""How likely an autoregressive model finds a text: per token of a corpus, and the generative perplexity of what a diffusion model wrote.

Generative perplexity under another model is how diffusion language models are commonly compared without labels (SEDD, Lou et al., arXiv
2310.16834; MDLM, Sahoo et al., arXiv 2406.07524). A text that repeats itself scores well too, so it is no measure of quality by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from unmask.errors import UnmaskError
from unmask.models.guide import GuideNetwork
from unmask.models.tokenizer import Tokenizer

_TILE = 256
"""Rows of logits that exist at a time."""


@dataclass(frozen=True)
class GenerativePerplexity:
    """Of all texts together.

    Attributes:
        perplexity: per token, the exponential of the mean cross-entropy.
        bits_per_character: the bits of the counted tokens, each text's first end token among them, per character; None where the
            texts have no character.
        tokens: how many were counted.
        characters: of the counted tokens, decoded without the prompts.
    """

    perplexity: float
    bits_per_character: float | None
    tokens: int
    characters: int


def generative_perplexity(
    guide: GuideNetwork, tokenizer: Tokenizer, prompts: Sequence[Sequence[int]], generated: Sequence[Sequence[int]]
) -> GenerativePerplexity:
    """The perplexity of generated tokens under `guide`, given their prompts. What follows a text's first end token is not counted.

    Args:
        guide: the judge.
        tokenizer: of `guide` and of the tokens.
        prompts: token ids of each prompt; an empty one stands for the beginning of a text.
        generated: token ids that follow each prompt.

    Raises:
        UnmaskError: nothing was generated, not as many prompts as texts, or an id that is a mask or outside the vocabulary.
    """
    if len(prompts) != len(generated):
        raise UnmaskError(f"{len(prompts)} prompts for {len(generated)} generated texts")
    config = guide.config
    nats, tokens, characters = 0.0, 0, 0
    for prompt, text in zip(prompts, generated, strict=True):
        ids = list(text)
        counted = ids[: ids.index(config.eos_token_id) + 1] if config.eos_token_id in ids else ids
        before = list(prompt) or [config.eos_token_id]
        for token in (*before, *counted):
            if token == config.mask_token_id or not 0 <= token < config.vocab_size:
                what = "a mask" if token == config.mask_token_id else f"outside the vocabulary of {config.vocab_size}"
                raise UnmaskError(f"token {token} is {what}; generated text is needed")
        nats += next_token_nats(guide, torch.tensor([*before, *counted]), len(before)).double().sum().item()
        tokens += len(counted)
        characters += len(tokenizer.decode(counted))
    if tokens == 0:
        raise UnmaskError("no generated token to measure the perplexity of")
    return GenerativePerplexity(math.exp(nats / tokens), nats / math.log(2) / characters if characters else None, tokens, characters)


@torch.no_grad()
def next_token_nats(guide: GuideNetwork, ids: Tensor, first: int, *, window: int | None = None) -> Tensor:
    """Cross-entropy of each token given those before it.

    A text longer than a window is read in overlapping windows; a token then sees at least half a window of what is before it.

    Args:
        guide: gives the probabilities.
        ids: int64 [n].
        first: where counting begins, at least 1, as nothing predicts the first token.
        window: tokens per forward pass; the guide's context if None.

    Returns:
        Nats, float32 [n - first].

    Raises:
        UnmaskError: a `first` below 1, or a window that does not fit the guide's context.
    """
    context: int = guide.config.max_sequence_length
    window = context if window is None else window
    if not 0 < window <= context:
        raise UnmaskError(f"windows of {window} tokens do not fit the guide's context of {context}")
    if first < 1:
        raise UnmaskError(f"first is {first}; nothing predicts the tokens before 1")
    nats, done, last = [torch.empty(0)], first, len(ids) - 1
    while done <= last:
        start = max(0, min(done - max(window // 2, 1), last - window))
        stop = min(start + window, last)
        hidden = guide.hidden(ids[None, start:stop])[0, done - 1 - start :]
        targets = ids[done : stop + 1]
        for rows, expected in zip(torch.split(hidden, _TILE), torch.split(targets, _TILE), strict=True):
            nats.append(cross_entropy(guide.logits(rows).float(), expected, reduction="none"))
        done = stop + 1
    return torch.cat(nats)

"""Policies on the float32 network: what they cost in forward passes, and what an autoregressive model makes of their text."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor

from unmask.decoding.compose import committer_of, sampler_of
from unmask.decoding.generate import Generation, generate
from unmask.decoding.guide import CachedGuide
from unmask.decoding.guided import Guide
from unmask.decoding.perplexity import generative_perplexity
from unmask.decoding.policy import Policy
from unmask.models.family import Network
from unmask.models.guide import GuideNetwork
from unmask.models.tokenizer import Tokenizer
from unmask.quality.candidates import Candidate
from unmask.quality.windows import Window
from unmask.quant.draws import CounterDraws
from unmask.quant.noise import CounterNoise
from unmask.training.baselines import KneserNeyBigram


@dataclass(frozen=True)
class Quality:
    """Of texts, up to and including each one's first end token.

    Attributes:
        perplexity: per token under the judge, given the prompts.
        bits_per_character: the same in bits per character; None where there is no character.
        bigram_bits_per_character: under a bigram model, which has no part in any decoding; None where there is none.
        distinct_2: different pairs of neighbouring tokens, each text's own, over all pairs; low where a text repeats itself. None
            where there is no pair.
        tokens: per text.
    """

    perplexity: float
    bits_per_character: float | None
    bigram_bits_per_character: float | None
    distinct_2: float | None
    tokens: float


@dataclass(frozen=True)
class PolicyRow:
    """One policy. What is counted is per prompt, the mean over prompts.

    Attributes:
        name: as the user wrote it.
        settings: the fields of `Policy`; prompt i decodes with seed + i.
        tokens: generated, up to and including the first end token.
        tokens_per_forward: `tokens` over `forwards`.
        steps: denoising steps.
        forwards: of the diffusion model; two a step under classifier-free guidance.
        positions_fed: positions that went through the diffusion model, over all forwards.
        guide_forwards: of the guide; 0 without one.
        perplexity, bits_per_character, bigram_bits_per_character, distinct_2: see `Quality`; the judge is the guide.
        agreement: the fraction of generated positions with the token that plain decoding puts there.
        wall_seconds: on this machine, in PyTorch.
        generated: token ids of each prompt's new positions.
    """

    name: str
    settings: dict[str, Any]
    tokens: float
    tokens_per_forward: float
    steps: float
    forwards: float
    positions_fed: float
    guide_forwards: float
    perplexity: float
    bits_per_character: float | None
    bigram_bits_per_character: float | None
    distinct_2: float | None
    agreement: float
    wall_seconds: float
    generated: list[list[int]]


@dataclass(frozen=True)
class Judge:
    """Who judges texts.

    Attributes:
        network: an autoregressive network.
        tokenizer: that it shares with the diffusion model.
        bigram: counted on training text over the same tokens; None: there is none.
    """

    network: GuideNetwork
    tokenizer: Tokenizer
    bigram: KneserNeyBigram | None = None

    def __call__(self, windows: Sequence[Window], texts: Sequence[Sequence[int]]) -> Quality:
        """The quality of `texts`, token ids, one after each window's prompt.

        Raises:
            UnmaskError: what `generative_perplexity` raises.
        """
        found = generative_perplexity(self.network, self.tokenizer, [window.prompt for window in windows], texts)
        counted = [until_end(text, self.network.config.eos_token_id) for text in texts]
        bigram = None
        if self.bigram is not None and found.characters:
            chains = [np.array([window.prompt[-1], *text]) for window, text in zip(windows, counted, strict=True)]
            bits = sum(-np.log2(self.bigram.probability(chain[:-1], chain[1:])).sum() for chain in chains)
            bigram = float(bits) / found.characters
        return Quality(found.perplexity, found.bits_per_character, bigram, distinct_pairs(counted), found.tokens / len(texts))


class CountedGuide:
    """A guide that counts its forward passes; a read of more than one piece of its own counts as one."""

    def __init__(self, guide: Guide) -> None:
        self._guide, self.forwards = guide, 0

    @property
    def vocab_size(self) -> int:
        return self._guide.vocab_size

    def read(self, kept: int, ids: Tensor) -> Tensor:
        self.forwards += len(ids) > 0
        return self._guide.read(kept, ids)


def until_end(tokens: Sequence[int], eos_token_id: int) -> list[int]:
    """The tokens up to and including the first end token."""
    ids = list(tokens)
    return ids[: ids.index(eos_token_id) + 1] if eos_token_id in ids else ids


def distinct_pairs(texts: Sequence[Sequence[int]]) -> float | None:
    """Different pairs of neighbouring tokens over all pairs; pairs count as different from those of other texts. None: there are none."""
    pairs = [list(pairwise(text)) for text in texts]
    total = sum(map(len, pairs))
    return sum(len(set(of_text)) for of_text in pairs) / total if total else None


def agreement(texts: Sequence[Sequence[int]], others: Sequence[Sequence[int]]) -> float:
    """The fraction of positions at which texts of the same lengths hold the same token."""
    same = [ours == theirs for text, other in zip(texts, others, strict=True) for ours, theirs in zip(text, other, strict=True)]
    return sum(same) / len(same)


def generate_float(
    model: Network, prompt: Sequence[int], policy: Policy, guide: Guide | None = None, on_step: Callable[..., None] | None = None
) -> Generation:
    """What `generate` gives on the float32 network with the machine's random numbers, so that number formats can be held against it.

    Raises:
        UnmaskError: what `generate` raises.
    """
    draws = CounterDraws(policy.seed)
    return generate(
        model,
        [list(prompt)],
        policy,
        noise=CounterNoise(policy.seed),
        sampler=sampler_of(policy, model.config, draws=draws, guide=guide),
        committer=committer_of(policy, draws),
        on_step=on_step,
    )


def measure(
    candidate: Candidate,
    model: Network,
    judge: Judge,
    windows: Sequence[Window],
    *,
    seed: int,
    plain: Sequence[Sequence[int]] | None,
    report: Callable[[], None] = lambda: None,
) -> PolicyRow:
    """Decode every prompt under one policy.

    Args:
        candidate: the policy.
        model: the float32 diffusion model.
        judge: judges the texts and, under the commit `guided`, the drafts.
        windows: the prompts; the continuations say how many tokens to generate.
        seed: of the first prompt.
        plain: what plain decoding generated, token ids; None: this is plain decoding.
        report: called after each prompt.

    Raises:
        UnmaskError: what `generate` raises.
    """
    policy = candidate.policy(len(windows[0].continuation), seed)
    done: list[Generation] = []
    guide_forwards, started = 0, time.perf_counter()
    for index, window in enumerate(windows):
        guide = CountedGuide(CachedGuide(judge.network)) if policy.commit == "guided" else None
        done.append(generate_float(model, window.prompt, replace(policy, seed=seed + index), guide))
        guide_forwards += 0 if guide is None else guide.forwards
        report()
    wall = time.perf_counter() - started
    texts = [generation.new_tokens() for generation in done]
    quality, count = judge(windows, texts), len(windows)
    forwards = sum(len(step.fed) for generation in done for step in generation.steps) / count
    return PolicyRow(
        name=candidate.name,
        settings=asdict(policy),
        tokens=quality.tokens,
        tokens_per_forward=quality.tokens / forwards,
        steps=sum(len(generation.steps) for generation in done) / count,
        forwards=forwards,
        positions_fed=sum(step.fed.numel() for generation in done for step in generation.steps) / count,
        guide_forwards=guide_forwards / count,
        perplexity=quality.perplexity,
        bits_per_character=quality.bits_per_character,
        bigram_bits_per_character=quality.bigram_bits_per_character,
        distinct_2=quality.distinct_2,
        agreement=agreement(texts, texts if plain is None else plain),
        wall_seconds=wall / count,
        generated=texts,
    )

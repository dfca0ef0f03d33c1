"""Random remasking must not favour tokens: which positions commit says nothing about what they commit."""

from __future__ import annotations

import numpy as np
import torch

from unmask.decoding.commit import TopK
from unmask.decoding.noise import TorchNoise
from unmask.decoding.policy import Policy
from unmask.decoding.sampler import FloatSampler, Sampler, Sampling
from unmask.quant.noise import CounterNoise
from unmask.quant.sampler import MachineSampler

VOCABULARY, MASKS, COMMITS, SEEDS = 64, 32, 2, 400


def committed_counts(draw: object) -> np.ndarray:
    """How often each token is committed from flat logits, over many seeds."""
    counts = np.zeros(VOCABULARY)
    for seed in range(SEEDS):
        sampler, noise = draw(seed)  # type: ignore[operator]
        sampling = Sampling(0, torch.arange(MASKS), 1.0, "random", (), (), noise)
        tokens, confidence = sampler(torch.zeros(1, MASKS, VOCABULARY), sampling)
        chosen = TopK()(confidence, torch.tensor([COMMITS]))
        np.add.at(counts, tokens[chosen].numpy(), 1)
    return counts


def machine(seed: int) -> tuple[Sampler, TorchNoise]:
    return MachineSampler(Policy(gen_length=8, block_length=8, steps=8), seed=seed), TorchNoise(seed)


def floating(seed: int) -> tuple[Sampler, CounterNoise]:
    return FloatSampler(), CounterNoise(seed)


def test_committed_tokens_of_flat_logits_are_uniform():
    expected = SEEDS * COMMITS / VOCABULARY
    for draw in (machine, floating):
        chi_square = ((committed_counts(draw) - expected) ** 2 / expected).sum()
        assert chi_square < 113  # the 0.9999 quantile for 63 degrees of freedom

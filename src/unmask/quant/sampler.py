"""Sampling in the machine's number formats: what the program of `unmask.compiler.sampling` must equal bit for bit."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask.decoding.dream import Timesteps
from unmask.decoding.policy import DREAM_SCORERS, Policy
from unmask.decoding.sampler import Sampling
from unmask.errors import UnmaskError
from unmask.numerics import bf16, functions, noise
from unmask.quant.cut import F32, cut, exponentials, exponents, row_sums, sharpness

LAST = float(np.finfo(np.float32).min)
"""A confidence below all others: a row with a NaN among its logits is committed last, as the machine does."""

I64 = NDArray[np.int64]


class MachineSampler:
    """An `unmask.decoding.sampler.Sampler` on BF16 logits, exact sums, FP32 confidences and counter-based noise; every scorer of `Policy`.

    Each confidence is a ratio to sum(exp(l - max l)) with BF16 exponentials summed exactly (the stable-max rewrite of arXiv 2601.20706).
    Dream's scorers see the exponents (l - max l) / T after the cuts of `unmask.quant.cut`; their candidate is the maximum of exponent and
    Gumbel noise. Random numbers are Threefry-2x32 words of (seed, step, position, token), the same in every reading and in every row of a
    batch; `Sampling.noise` is not used.
    """

    def __init__(self, policy: Policy, *, seed: int | None = None) -> None:
        """Set what `Sampling` does not say.

        Args:
            policy: gives `top_p`, `top_k`, and the time axis of the scorer `origin`.
            seed: of the noise, modulo 2^32; by default the policy's.
        """
        self._policy, self._seed = policy, (policy.seed if seed is None else seed) % 2**32
        self._timesteps = Timesteps(policy.steps_per_block, policy.eps)

    def __call__(self, logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
        """See `Sampler`; the logits are bf16-valued, the confidences float32.

        Raises:
            UnmaskError: a temperature that BF16 cannot hold, or deferred tokens with one of Dream's scorers.
        """
        check_temperature(sampling.temperature, sampling.remasking)
        dream = sampling.remasking in DREAM_SCORERS
        if dream and sampling.deferred:
            raise UnmaskError("deferred end-of-text tokens belong to LLaDA's scorers (low_confidence, random)")
        sampled = []
        for row in logits.to(torch.float32).numpy():
            allowed = row.copy()
            allowed[:, list(sampling.excluded)] = -np.inf
            with np.errstate(invalid="ignore", over="ignore"):
                sampled.append(self._dream(allowed, sampling) if dream else self._llada(allowed, sampling))
        tokens, confidences = (np.stack(parts) for parts in zip(*sampled, strict=True))
        return torch.from_numpy(tokens), torch.from_numpy(np.where(np.isnan(confidences), np.float32(LAST), confidences))

    def _llada(self, logits: F32, sampling: Sampling) -> tuple[I64, F32]:
        temperature = bf16.rounded(sampling.temperature)
        tokens = _arg_max(self._noisy(logits, sampling, temperature) if temperature else logits)
        if sampling.remasking == "random":
            return tokens, self._uniform(sampling)
        probable = logits.copy()
        probable[:, list(sampling.deferred)] = -np.inf
        maximum = _maximum(probable)
        inverse = functions.reciprocal_fp32(row_sums(exponentials(probable, maximum, 0)))
        chosen = functions.exp(bf16.round(probable[np.arange(len(logits)), tokens] - maximum))
        return tokens, chosen * inverse

    def _dream(self, logits: F32, sampling: Sampling) -> tuple[I64, F32]:
        temperature, row = sampling.temperature, np.arange(len(logits))
        maximum, lead = _maximum(logits), _arg_max(logits)
        kept = cut(logits, maximum, temperature, self._policy.top_p, self._policy.top_k)
        exponent = exponents(kept, maximum, temperature)
        tokens = _arg_max(self._noisy(exponent, sampling, 1.0)) if temperature else lead
        if sampling.remasking == "origin":
            return tokens, (self._uniform(sampling) < self._timesteps.fraction(sampling.block_step).numpy()).astype(np.float32)
        total = row_sums(functions.exp(exponent))
        inverse = functions.reciprocal_fp32(total)
        if sampling.remasking == "entropy":
            return tokens, row_sums(functions.xexp(exponent)) * inverse - functions.log_fp32(total)
        if sampling.remasking == "topk_margin":
            others = exponent.copy()
            others[row, lead] = -np.inf
            return tokens, inverse - functions.exp(_maximum(others)) * inverse
        return tokens, functions.exp(exponent[row, tokens]) * inverse

    def _noisy(self, scores: F32, sampling: Sampling, temperature: float) -> F32:
        return noise.noisy(scores, self._seed, sampling.step, sampling.positions.numpy(), np.arange(scores.shape[1]), temperature)

    def _uniform(self, sampling: Sampling) -> F32:
        return noise.uniform(noise.position_bits(self._seed, sampling.step, sampling.positions.numpy()))


def check_temperature(temperature: float, remasking: str) -> None:
    """Check that the machine can hold a temperature.

    Raises:
        UnmaskError: it, or for Dream's scorers its inverse, is beyond BF16.
    """
    if not math.isfinite(bf16.rounded(temperature)):
        raise UnmaskError(f"temperature {temperature:g} is beyond BF16; expected less than 3.4e38")
    if remasking in DREAM_SCORERS and not 0 < sharpness(temperature) < math.inf:
        raise UnmaskError(f"temperature {temperature:g} has an inverse beyond BF16; expected 0, or at least 3e-39")


def _comparable(x: F32) -> F32:
    """NaN never wins a maximum."""
    return np.where(np.isnan(x), np.float32(-np.inf), x)


def _maximum(x: F32) -> F32:
    # The first of equals, as V_RED_MAX takes it.
    top: F32 = _comparable(x)[np.arange(len(x)), _arg_max(x)]
    return top


def _arg_max(x: F32) -> I64:
    best: I64 = _comparable(x).argmax(axis=1)
    return best

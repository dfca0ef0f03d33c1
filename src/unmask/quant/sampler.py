"""Sampling in the machine's number formats: what the four phases on the NPU must equal."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from unmask.decoding.sampler import Sampling
from unmask.errors import UnmaskError
from unmask.numerics import accumulator, bf16, functions, noise

_LAST = -1.0
"""A confidence below all others: a row with a NaN among its logits is committed last, as the machine does."""


def _comparable(x: np.ndarray) -> np.ndarray:
    """NaN never wins a maximum."""
    return np.where(np.isnan(x), np.float32(-np.inf), x)


class MachineSampler:
    """An `unmask.decoding.sampler.Sampler`: BF16 logits, stable-max confidence in FP32, counter-based noise.

    The confidence is exp(l[x0] - max l) / sum(exp(l - max l)) with BF16 exponentials summed exactly (the stable-max rewrite of arXiv
    2601.20706). Random numbers are Threefry-2x32 words of (seed, step, position, token), the same in every reading; `Sampling.noise` is not
    used.

    Args:
        seed: of the noise, taken modulo 2^32.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed % 2**32

    def __call__(self, logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
        """See `Sampler`.

        Raises:
            UnmaskError: deferred tokens, which the machine has no program for.
        """
        if sampling.deferred:
            raise UnmaskError("deferred end-of-text tokens are not supported in the machine's number formats")
        sampled = [self._row(row, sampling) for row in logits.to(torch.float32).numpy()]
        tokens, confidences = (np.stack(parts) for parts in zip(*sampled, strict=True))
        return torch.from_numpy(tokens), torch.from_numpy(confidences)

    def _row(self, logits: np.ndarray, sampling: Sampling) -> tuple[np.ndarray, np.ndarray]:
        positions, row = sampling.positions.numpy(), np.arange(len(logits))
        logits = logits.copy()
        logits[:, list(sampling.excluded)] = -np.inf
        scores = logits
        temperature = bf16.rounded(sampling.temperature)
        if temperature:
            bits = noise.uniform_bits(self._seed, sampling.step, positions, np.arange(logits.shape[1]))
            scores = bf16.add(logits, bf16.multiply(noise.gumbel(bits), np.array(temperature, np.float32)))
        tokens = _comparable(scores).argmax(axis=1)
        if sampling.remasking == "random":
            return tokens, noise.uniform(noise.position_bits(self._seed, sampling.step, positions))
        maximum = _comparable(logits).max(axis=1)
        total, invalid = accumulator.sum_rows(functions.exp(bf16.subtract(logits, maximum[:, None])))
        inverse = functions.reciprocal_fp32(accumulator.to_fp32(total, accumulator.VECTOR_FRACTION))
        with np.errstate(invalid="ignore"):
            chosen = functions.exp(bf16.round(logits[row, tokens] - maximum))
        return tokens, np.where(invalid | np.isnan(chosen), np.float32(_LAST), chosen * inverse)

"""Logits in a number format before they are sampled, with all else in float32.

The network stays the same, so whatever a step then commits differently is due to the format of its logits, or to the arithmetic of the
sampling. In float32, Gumbel-max draws from 2^24 uniform numbers and loses rare tokens (arXiv 2409.02908).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from unmask.decoding.policy import Policy
from unmask.decoding.sampler import FloatSampler, Sampler, Sampling
from unmask.numerics import bf16, mx
from unmask.quant.sampler import MachineSampler


@dataclass(frozen=True)
class Precision:
    """A way to sample.

    Attributes:
        logits: the format that they are rounded to, `mxfp8` in blocks of 32 along the vocabulary.
        sampling: what computes the step: float64, float32, or the machine (BF16 lanes, exact sums, FP32 confidences).
    """

    logits: Literal["fp64", "fp32", "bf16", "mxfp8"]
    sampling: Literal["float64", "float32", "machine"]


EXACT = Precision("fp64", "float64")
"""What all others are held against."""

PRECISIONS = (
    EXACT,
    Precision("fp32", "float32"),
    Precision("bf16", "float64"),
    Precision("mxfp8", "float64"),
    Precision("bf16", "machine"),
    Precision("mxfp8", "machine"),
)


def rounded(logits: Tensor, name: str) -> Tensor:
    """Logits [..., vocabulary] in a format of `Precision.logits`: float64 for `fp64`, else float32."""
    if name == "fp64":
        return logits.double()
    values = logits.float()
    if name == "bf16":
        return torch.from_numpy(bf16.round(values.numpy()))
    if name == "mxfp8":
        rows = mx.quantize(values.reshape(-1, values.shape[-1]).numpy(), name)
        return torch.from_numpy(mx.dequantize(rows)).reshape(values.shape)
    return values


class PreciseSampler:
    """LLaDA's sampler at a precision. The random words are the same at every precision."""

    def __init__(self, precision: Precision, policy: Policy) -> None:
        """Set the precision; the policy gives seed and cuts of the machine's sampler."""
        self._precision = precision
        self._sampler: Sampler = {"float64": FloatSampler, "float32": _Float32Sampler}.get(
            precision.sampling, lambda: MachineSampler(policy)
        )()

    def __call__(self, logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
        """See `Sampler`."""
        values = rounded(logits, self._precision.logits)
        return self._sampler(values.double() if self._precision.sampling == "float64" else values, sampling)


class _Float32Sampler(FloatSampler):
    """Gumbel-max in float32, of uniform numbers as a float32 generator gives them: multiples of 2^-24."""

    def scores(self, logits: Tensor, sampling: Sampling) -> Tensor:
        if sampling.temperature == 0:
            return logits
        batch, _, vocab_size = logits.shape
        uniform = sampling.noise.token_uniforms(sampling.step, sampling.positions, batch, vocab_size)
        coarse = ((uniform * 2**24).floor() / 2**24).float()
        return logits.exp() / (-coarse.log()) ** sampling.temperature

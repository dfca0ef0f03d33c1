"""From the largest magnitude of some keys or values to the scale that they are divided by."""

from __future__ import annotations

import torch
from torch import Tensor

_SMALLEST, _LARGEST = -126, 126
"""Exponents whose power and its reciprocal are both normal numbers of BF16."""

LEAST_PEAK = 2.0**-100
"""A channel of zeros counts as one of this magnitude, whose reciprocal is finite."""

FILL = 0.5703125
"""4 / 7 in BF16: a peak over its scale is 7 / 4, the largest element of MXINT4 under a block scale of 1."""


def peak(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """The largest magnitude along `dim`, which stays with size 1; a NaN counts as 0."""
    return x.abs().nan_to_num(nan=0.0, posinf=torch.inf).amax(dim=dim, keepdim=True)


def power_of_two_below(magnitude: Tensor) -> Tensor:
    """2^floor(log2(m)) of every non-negative number, in its dtype, exponents clamped to -126..126; 1 where it is zero or infinite.

    Dividing by such a scale and multiplying again changes no bit of a floating-point number, but where it leaves the range of its format.
    """
    exponent = torch.frexp(magnitude).exponent - 1
    power = torch.ldexp(torch.ones_like(magnitude), exponent.clamp(_SMALLEST, _LARGEST))
    return torch.where((magnitude == 0) | magnitude.isinf(), torch.ones_like(power), power)


def filling(magnitude: Tensor) -> Tensor:
    """4/7 of every non-negative number, or of `LEAST_PEAK` if that is more, in BF16; in its dtype.

    What is divided by its scale then fills the range of a block whose own scale is 1.
    """
    return magnitude.clamp(min=LEAST_PEAK).bfloat16().mul(FILL).to(magnitude.dtype)

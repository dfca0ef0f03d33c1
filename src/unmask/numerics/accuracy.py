"""How far the machine's functions are from the real ones, measured over every finite BF16 number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from unmask.numerics import bf16, functions
from unmask.numerics._arrays import Bool, Float32, Float64

_LEAST_NORMAL = 2.0**-126
"""Of BF16 and of FP32."""


@dataclass(frozen=True)
class Accuracy:
    """The largest errors of one function.

    Attributes:
        name: in `unmask.numerics.functions`. formula: what it approximates.
        result: `bf16` or `fp32`, what it rounds to.
        domain: which BF16 inputs count, besides that the exact result is in the range of `result`; count: how many those are.
        ulp: in spacings of `result` at the exact value; correct rounding is within 0.5.
        relative: relative to the exact value, where that is no subnormal number; 0 where it never is.
        absolute: as a difference.
        worst: an input with the largest `ulp`.
    """

    name: str
    formula: str
    result: str
    domain: str
    count: int
    ulp: float
    relative: float
    absolute: float
    worst: float


@dataclass(frozen=True)
class _Case:
    function: Callable[[Float32], Float32]
    formula: str
    exact: Callable[[Float64], Float64]
    domain: str
    inside: Callable[[Float64], Bool]


def _all(x: Float64) -> Bool:
    return np.ones(x.shape, np.bool_)


def _silu(x: Float64) -> Float64:
    y: Float64 = x / (1 + np.exp(-x))
    return y


def _power_of_two(x: Float64) -> Float64:
    y: Float64 = np.ldexp(1.0, np.clip(np.frexp(x)[1] - 1, -126, 126))
    return y


_LANES = (
    _Case(functions.exp, "e^x", np.exp, "all", _all),
    _Case(functions.xexp, "x e^x", lambda x: x * np.exp(x), "all", _all),
    _Case(functions.power_of_two, "2^floor(log2 |x|), from 2^-126 to 2^126", _power_of_two, "x is not 0", lambda x: x != 0),
    _Case(functions.reciprocal, "1 / x", lambda x: 1 / x, "all", _all),
    _Case(functions.silu, "x / (1 + e^-x)", _silu, "x > -88.5", lambda x: x > -88.5),
    _Case(functions.silu, "x / (1 + e^-x)", _silu, "x <= -88.5", lambda x: x <= -88.5),
)
_SCALARS = (
    _Case(functions.reciprocal_fp32, "1 / x", lambda x: 1 / x, "all", _all),
    _Case(functions.rsqrt_fp32, "1 / sqrt(x)", lambda x: 1 / np.sqrt(x), "x > 0", lambda x: x > 0),
    _Case(functions.log_fp32, "ln(x)", np.log, "x > 0", lambda x: x > 0),
)


def measure() -> list[Accuracy]:
    """Evaluate every function at all finite BF16 numbers, and compare with float64."""
    bits = np.arange(1 << 16, dtype=np.uint16)
    x = bf16.from_bits(bits[(bits & 0x7FFF) < bf16.INFINITY_BITS])
    with np.errstate(all="ignore"):
        return [_measure(case, x, "bf16", 8) for case in _LANES] + [_measure(case, x, "fp32", 24) for case in _SCALARS]


def _measure(case: _Case, x: Float32, result: str, precision: int) -> Accuracy:
    """`precision`: significant bits of the result's format."""
    largest = (2.0 - 2.0 ** (1 - precision)) * 2.0**127
    wide = x.astype(np.float64)
    exact = case.exact(wide)
    counts = case.inside(wide) & np.isfinite(exact) & (np.abs(exact) <= largest)
    exact, error = exact[counts], np.abs(case.function(x[counts]).astype(np.float64) - exact[counts])
    spacing = np.ldexp(1.0, np.maximum(np.frexp(exact)[1] - 1, -126) - (precision - 1))
    in_ulp, normal = error / spacing, np.abs(exact) >= _LEAST_NORMAL
    return Accuracy(
        name=case.function.__name__,
        formula=case.formula,
        result=result,
        domain=case.domain,
        count=int(counts.sum()),
        ulp=float(in_ulp.max()),
        relative=float((error[normal] / np.abs(exact[normal])).max(initial=0)),
        absolute=float(error.max()),
        worst=float(x[counts][in_ulp.argmax()]),
    )

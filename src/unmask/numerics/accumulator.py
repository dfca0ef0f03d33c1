"""The exact accumulators: 64-bit two's-complement fixed point.

A contribution enters by floor, sums wrap and are therefore associative, and a result leaves by one rounding to nearest even.
"""

import numpy as np

from unmask.numerics._arrays import Bool, Float32, Float64, Int64

MATRIX_FRACTION = 40
VECTOR_FRACTION = 32

_LIMITS = np.iinfo(np.int64)


def from_bf16(x: Float32, fraction: int) -> Int64:
    """floor(x * 2^fraction) as int64.

    x: float32, any shape (bf16-valued in the machine, but any float32 is exact here). Finite values outside the range saturate. NaN and
    infinities give 0: whoever adds them up reports them beside the sum, as `sum_rows` does.
    """
    with np.errstate(invalid="ignore"):
        scaled = np.floor(np.asarray(x, dtype=np.float64) * 2.0**fraction)
    scaled = np.where(np.isfinite(scaled), scaled, 0.0)
    inside = np.abs(scaled) < 2.0**63
    if inside.all():
        return scaled.astype(np.int64)
    saturated = np.where(scaled > 0, _LIMITS.max, _LIMITS.min)
    return np.where(inside, np.where(inside, scaled, 0.0).astype(np.int64), saturated)


def _to_float64_odd(acc: Int64) -> Float64:
    """acc as float64, rounded to odd where it needs more than 53 bits, so that any later rounding is the only one."""
    acc = np.asarray(acc, dtype=np.int64)
    small = (acc < 2**53) & (acc > -(2**53))
    if small.all():
        return acc.astype(np.float64)
    jammed = (acc >> 11) | ((acc & 0x7FF) != 0)
    return np.where(small, acc.astype(np.float64), jammed.astype(np.float64) * 2.0**11)


def to_fp32(acc: Int64, fraction: int) -> Float32:
    """acc * 2^-fraction rounded once to FP32, to nearest even. acc: int64, any shape; 0 <= fraction <= 126, so no result is subnormal."""
    return (_to_float64_odd(acc) * 2.0**-fraction).astype(np.float32)


def to_bf16(acc: Int64, fraction: int) -> Float32:
    """acc * 2^-fraction rounded once to BF16, to nearest even: bf16-valued float32. acc: int64, any shape; 0 <= fraction <= 126."""
    bits = _to_float64_odd(acc).view(np.int64)
    # A float64 has 45 significand bits more than a BF16; the carry runs into the exponent as it should.
    bits = (bits + ((1 << 44) - 1) + ((bits >> 45) & 1)) & -(1 << 45)
    return (bits.view(np.float64) * 2.0**-fraction).astype(np.float32)


def sum_rows(x: Float32) -> tuple[Int64, Bool]:
    """The exact sum of each row in the vector accumulator.

    x: float32 [rows, cols], bf16-valued. Returns the sums, int64 [rows] with `VECTOR_FRACTION` fraction bits, wrapping, and bool [rows],
    true where a row holds an element that the accumulator cannot: a NaN, an infinity or one of 2^31 or more. They count as 0 in the sum.
    """
    held = np.abs(x) < 2.0 ** (63 - VECTOR_FRACTION)
    invalid = np.asarray(~held.all(axis=1), dtype=np.bool_)
    kept = np.where(held, x, np.float32(0)) if invalid.any() else x
    acc: Int64 = from_bf16(kept, VECTOR_FRACTION).sum(axis=1, dtype=np.int64)
    return acc, invalid

"""BF16: rounding, bit patterns and the element-wise operations of a vector lane.

add, subtract and multiply round twice, to FP32 and then to BF16, and still return the correctly rounded BF16 result. With normal results,
24 >= 2 * 8 + 2 significand bits make the second rounding innocuous (Figueroa, "When is double rounding innocuous?", SIGNUM 1995). With
subnormal results (both formats share their smallest exponent) a sum of BF16 numbers is a multiple of 2^-133 and exact in FP32; a product
has at most 16 significant bits, so FP32 (lsb 2^-149) is exact from 2^-134 on, and below that both roundings agree on zero: the largest
product below 2^-134, 0xFE01 * 2^-150, does not reach it.
"""

import numpy as np

from unmask.numerics._arrays import Float32, Int64, Uint16

NAN_BITS = 0x7FC0
INFINITY_BITS = 0x7F80
SIGN_BIT = 0x8000

_LSB_EXPONENT = -133


def round(x: Float32) -> Float32:
    """Round FP32 to BF16, to nearest even.

    x: float32, any shape. Returns bf16-valued float32 of that shape. Magnitudes of 2^128 - 2^119 or more become infinite; every NaN becomes
    0x7FC0; subnormals are kept.
    """
    x = np.asarray(x, dtype=np.float32)
    bits = x.view(np.uint32)
    rounded = (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) & np.uint32(0xFFFF0000)
    rounded = np.where(np.isnan(x), np.uint32(NAN_BITS << 16), rounded)
    return rounded.view(np.float32)


def rounded(value: float) -> float:
    """A Python number rounded to BF16."""
    with np.errstate(over="ignore"):
        return float(round(np.array(value).astype(np.float32)))


def to_bits(x: Float32) -> Uint16:
    """The bit patterns (uint16) of a bf16-valued float32 array; the low half of a value that is not bf16-valued is cut off."""
    return (np.asarray(x, dtype=np.float32).view(np.uint32) >> np.uint32(16)).astype(np.uint16)


def from_bits(bits: Uint16) -> Float32:
    """The bf16-valued float32 array of a uint16 array of bit patterns, NaN payloads included."""
    return (np.asarray(bits, dtype=np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)


def ordered(x: Float32) -> Uint16:
    """Unsigned integers that compare as the values do: uint16 of a bf16-valued float32 array, any shape.

    The bits with the sign bit flipped if x is positive, all of them inverted if it is negative; zeros of either sign are 0x8000, and a NaN
    is 0, below minus infinity.
    """
    bits = to_bits(x)
    keys = np.where(bits & SIGN_BIT, ~bits, bits | np.uint16(SIGN_BIT))
    keys = np.where((bits & 0x7FFF) == 0, np.uint16(SIGN_BIT), keys)
    return np.where((bits & 0x7FFF) > INFINITY_BITS, np.uint16(0), keys).astype(np.uint16)


def add(a: Float32, b: Float32) -> Float32:
    """a + b, correctly rounded; bf16-valued float32 arrays that broadcast."""
    with np.errstate(all="ignore"):
        return round(np.add(a, b, dtype=np.float32))


def subtract(a: Float32, b: Float32) -> Float32:
    """a - b, correctly rounded; bf16-valued float32 arrays that broadcast."""
    with np.errstate(all="ignore"):
        return round(np.subtract(a, b, dtype=np.float32))


def multiply(a: Float32, b: Float32) -> Float32:
    """a * b, correctly rounded; bf16-valued float32 arrays that broadcast."""
    with np.errstate(all="ignore"):
        return round(np.multiply(a, b, dtype=np.float32))


def round_scaled(mantissa: Int64, exponent: Int64) -> Uint16:
    """The BF16 bit pattern nearest (ties to even) to mantissa * 2^exponent: what a leading-zero detector, a shifter and an incrementer do.

    mantissa: int64, 0 <= mantissa < 2^53. exponent: int64 of the same shape. Returns uint16 with a clear sign bit.
    """
    length = np.frexp(mantissa.astype(np.float64))[1].astype(np.int64)
    # Keep 8 significant bits, or fewer where the grid of the subnormals is coarser.
    drop = np.maximum(length - 8, _LSB_EXPONENT - exponent)
    right = np.clip(drop, 0, 62)
    left = np.clip(-drop, 0, 62)
    kept = (mantissa >> right) << left
    bias = np.where(right > 0, ((1 << right) >> 1) - 1 + (kept & 1), 0)
    rounded = ((mantissa + bias) >> right) << left
    # The hidden bit, and a carry out of the significand, add one to the exponent field.
    bits = ((exponent + drop - _LSB_EXPONENT) << 7) + rounded
    return np.where(mantissa == 0, 0, np.minimum(bits, INFINITY_BITS)).astype(np.uint16)

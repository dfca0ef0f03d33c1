"""The functions of the vector lanes (BF16 to BF16) and of the scalar unit (FP32 to FP32).

A lane function is an integer algorithm of one multiplier, one shifter and a small ROM, named `*_bits`. It has 65 536 possible inputs, so
the simulators run it once over all of them and look values up.
"""

import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from functools import cache

import numpy as np

from unmask.numerics import accumulator, bf16
from unmask.numerics._arrays import Bool, Float32, Int64, Uint16

#: log2(e) times x, the argument of exp, has EXP_ARGUMENT_FRACTION fraction bits; their top EXP_INDEX_BITS select a segment of the ROM.
EXP_ARGUMENT_FRACTION = 16
EXP_INDEX_BITS = 5
#: Fraction bits of the ROM, whose entries lie in [1, 2], and of the constant log2(e).
EXP_ROM_FRACTION = 16
LOG2E_FRACTION = 22


def _exp_constants() -> tuple[int, Int64]:
    # Decimal arithmetic is correctly rounded and the same on every platform; libm is neither.
    with localcontext() as context:
        context.prec = 40
        log2e = round(2**LOG2E_FRACTION / Decimal(2).ln())
        segments = 2**EXP_INDEX_BITS
        rom = [round(Decimal(2) ** (Decimal(i) / segments) * 2**EXP_ROM_FRACTION) for i in range(segments + 1)]
    return log2e, np.array(rom, dtype=np.int64)


#: |x| >= 128 is beyond overflow and underflow alike; capping the exponent field keeps such x beyond them.
_EXP_CAP = 134

#: The constant log2(e), and the ROM: 2^(i / 32) for i = 0..32. A segment's slope is the difference of neighbours.
LOG2E, EXP_ROM = _exp_constants()


#: Fraction bits of a logarithm and its ROM; bits of the significand that choose a segment; fraction bits of an inverse in the ROM.
LOG_FRACTION = 52
LOG_INDEX_BITS = 7
LOG_INVERSE_FRACTION = 10
_LOG_ARGUMENT_FRACTION = 23 + LOG_INVERSE_FRACTION


def _log_constants() -> tuple[int, Int64, Int64]:
    with localcontext() as context:
        context.prec = 40
        segments = 2**LOG_INDEX_BITS
        middles = [1 + (Decimal(i) + Decimal("0.5")) / segments for i in range(1, segments - 1)]
        inverses = [2**LOG_INVERSE_FRACTION, *(round(2**LOG_INVERSE_FRACTION / m) for m in middles), 2 ** (LOG_INVERSE_FRACTION - 1)]
        rom = [round(-(Decimal(c) / 2**LOG_INVERSE_FRACTION).ln() * 2**LOG_FRACTION) for c in inverses]
        return round(Decimal(2).ln() * 2**LOG_FRACTION), np.array(inverses, dtype=np.int64), np.array(rom, dtype=np.int64)


#: ln(2), and per segment the inverse c of its middle and -ln(c).
LN2, LOG_INVERSES, LOG_ROM = _log_constants()


def _fields(bits: Uint16) -> tuple[Int64, Int64, Int64]:
    """Sign, significand and exponent field of BF16 patterns; a finite value is +-significand * 2^(exponent - 134)."""
    b = np.asarray(bits, dtype=np.uint16).astype(np.int64)
    exponent = (b >> 7) & 0xFF
    significand = (b & 0x7F) | ((exponent > 0).astype(np.int64) << 7)
    return b >> 15, significand, np.maximum(exponent, 1)


def _is_nan(bits: Uint16) -> Bool:
    return (bits & 0x7FFF) > bf16.INFINITY_BITS


def _exp_parts(sign: Int64, significand: Int64, exponent: Int64) -> tuple[Int64, Int64]:
    """e^x before its rounding, as integers m and k of m * 2^k: m has EXP_ROM_FRACTION bits after the leading one.

    t = x log2(e) in fixed point; its integer part is the exponent of the result, its fraction is interpolated linearly between ROM entries.
    """
    shift = 134 - exponent + LOG2E_FRACTION - EXP_ARGUMENT_FRACTION
    magnitude = ((significand * LOG2E) >> np.clip(shift, 0, 62)) << np.clip(-shift, 0, 62)
    t = np.where(sign == 1, -magnitude, magnitude)
    low_bits = EXP_ARGUMENT_FRACTION - EXP_INDEX_BITS
    segment = (t >> low_bits) & (2**EXP_INDEX_BITS - 1)
    slope = EXP_ROM[segment + 1] - EXP_ROM[segment]
    mantissa = EXP_ROM[segment] + ((slope * (t & (2**low_bits - 1))) >> low_bits)
    return mantissa, (t >> EXP_ARGUMENT_FRACTION) - EXP_ROM_FRACTION


def exp_bits(bits: Uint16) -> Uint16:
    """e^x on BF16 patterns (uint16, any shape): see `_exp_parts`.

    Overflow gives infinity, underflow is gradual, exp(-inf) is 0.
    """
    sign, significand, exponent = _fields(bits)
    result = bf16.round_scaled(*_exp_parts(sign, significand, np.minimum(exponent, _EXP_CAP)))
    return np.where(_is_nan(bits), bf16.NAN_BITS, result).astype(np.uint16)


#: |x| >= 2^24 counts as the BF16 below it: no exponent of e^x is then beyond 26 bits.
_WEIGHT_CAP = 150


@cache
def _weights() -> tuple[Int64, Int64]:
    bits = np.arange(1 << 16, dtype=np.uint16)
    sign, significand, exponent = _fields(bits)
    significand = np.where(exponent > _WEIGHT_CAP, 255, significand)
    mantissa, scale = _exp_parts(sign, significand, np.minimum(exponent, _WEIGHT_CAP))
    drop = EXP_ROM_FRACTION - 7
    rounded = (mantissa + ((1 << (drop - 1)) - 1) + ((mantissa >> drop) & 1)) >> drop
    carried = rounded >> 8
    finite = (bits & 0x7FFF) < bf16.INFINITY_BITS
    return np.where(finite, rounded >> carried, 0), np.where(finite, scale + drop + carried, 0)


def weight(x: Float32) -> tuple[Int64, Int64]:
    """e^x as an integer of 8 bits times a power of two of any size: neither overflow nor underflow, and no maximum to subtract.

    x: bf16-valued float32, any shape. Returns int64 significands in 128..255 and exponents of their last bits, those of `_exp_parts`
    rounded to nearest even; 0 and 0 for infinities and NaN.
    """
    bits = bf16.to_bits(x)
    significand, exponent = _weights()
    return np.take(significand, bits), np.take(exponent, bits)


def xexp_bits(bits: Uint16) -> Uint16:
    """x e^x on BF16 patterns (uint16, any shape): the significand of x times that of e^x, an exact integer product, rounded once.

    Overflow gives infinity, underflow is gradual, xexp(-inf) is -0.
    """
    sign, significand, exponent = _fields(bits)
    exponent = np.minimum(exponent, _EXP_CAP)
    mantissa, scale = _exp_parts(sign, significand, exponent)
    result = bf16.round_scaled(significand * mantissa, scale + exponent - 134) | (sign << 15).astype(np.uint16)
    return np.where(_is_nan(bits), bf16.NAN_BITS, result).astype(np.uint16)


def power_of_two_bits(bits: Uint16) -> Uint16:
    """2^floor(log2 |x|) on BF16 patterns (uint16, any shape): the exponent field alone, at least 1 and at most 253, so that the result and
    its reciprocal are normal; 1 for zeros, infinities and NaN.
    """
    magnitude = np.asarray(bits, dtype=np.uint16) & np.uint16(0x7FFF)
    field = np.clip(magnitude >> 7, 1, 253)
    return np.where((magnitude == 0) | (magnitude >= bf16.INFINITY_BITS), 127 << 7, field << 7).astype(np.uint16)


def reciprocal_bits(bits: Uint16) -> Uint16:
    """1 / x on BF16 patterns (uint16, any shape), correctly rounded: one integer division by an 8-bit significand.

    1 / +-0 is +-inf and 1 / +-inf is +-0.
    """
    sign, significand, exponent = _fields(bits)
    normalize = 8 - np.frexp(significand.astype(np.float64))[1].astype(np.int64)
    divisor = np.where(significand == 0, 128, significand << normalize)
    # The remainder is not needed: 1 / x of an 8-bit x lies on a tie or 2^-17 of it away, which is within the quotient's bits.
    result = bf16.round_scaled((1 << 24) // divisor, 110 - (exponent - normalize)).astype(np.int64)
    magnitude = np.asarray(bits) & 0x7FFF
    result = np.where(magnitude == 0, bf16.INFINITY_BITS, np.where(magnitude == bf16.INFINITY_BITS, 0, result))
    return np.where(_is_nan(bits), bf16.NAN_BITS, result | (sign << 15)).astype(np.uint16)


def silu_bits(bits: Uint16) -> Uint16:
    """x / (1 + e^-x) on BF16 patterns (uint16, any shape): x * reciprocal(1 + exp(-x)), each of the four operations rounded to BF16.

    silu(-inf) is -0, the limit, as for every x below -88.7 (where exp(-x) overflows); silu(inf) is inf.
    """
    bits = np.asarray(bits, dtype=np.uint16)
    denominator = bf16.add(np.ones(1, dtype=np.float32), bf16.from_bits(exp_bits(bits ^ np.uint16(bf16.SIGN_BIT))))
    result = bf16.to_bits(bf16.multiply(bf16.from_bits(bits), bf16.from_bits(reciprocal_bits(bf16.to_bits(denominator)))))
    minus_infinity = bf16.SIGN_BIT | bf16.INFINITY_BITS
    return np.where(bits == minus_infinity, np.uint16(bf16.SIGN_BIT), result)


@cache
def _table(algorithm: Callable[[Uint16], Uint16]) -> Float32:
    return bf16.from_bits(algorithm(np.arange(1 << 16, dtype=np.uint16)))


def exp(x: Float32) -> Float32:
    """e^x, bf16-valued float32 in and out, any shape; see `exp_bits`. Within 0.512 ulp over all inputs."""
    return np.take(_table(exp_bits), bf16.to_bits(x))


def xexp(x: Float32) -> Float32:
    """x e^x, bf16-valued float32 in and out, any shape; see `xexp_bits`. Within 0.512 ulp over all inputs."""
    return np.take(_table(xexp_bits), bf16.to_bits(x))


def power_of_two(x: Float32) -> Float32:
    """2^floor(log2 |x|), bf16-valued float32 in and out, any shape; see `power_of_two_bits`."""
    return np.take(_table(power_of_two_bits), bf16.to_bits(x))


def reciprocal(x: Float32) -> Float32:
    """1 / x correctly rounded, bf16-valued float32 in and out, any shape; see `reciprocal_bits`."""
    return np.take(_table(reciprocal_bits), bf16.to_bits(x))


def silu(x: Float32) -> Float32:
    """x / (1 + e^-x), bf16-valued float32 in and out, any shape; see `silu_bits`.

    Within 2.09 ulp for x > -88.5; below, where exp(-x) nears overflow, within 2^-120.
    """
    return np.take(_table(silu_bits), bf16.to_bits(x))


def canonical(x: Float32) -> Float32:
    """x with every NaN replaced by 0x7FC00000, the only one that the machine makes; float32, any shape.

    Which NaN an addition or a multiplication gives differs between processors.
    """
    return np.where(np.isnan(x), np.uint32(0x7FC00000), x.view(np.uint32)).astype(np.uint32).view(np.float32)


def reciprocal_fp32(x: Float32) -> Float32:
    """1 / x, float32 in and out, any shape, correctly rounded; 1 / +-0 is +-inf.

    Rounding first to float64 is innocuous: a quotient 1 / x of a 24-bit x is exactly halfway between FP32 numbers, or at least 2^-49 away
    from halfway relative to its size; with a subnormal result too, whose halfway points have fewer bits.
    """
    with np.errstate(all="ignore"):
        return canonical((1.0 / np.asarray(x, dtype=np.float64)).astype(np.float32))


def rsqrt_fp32(x: Float32) -> Float32:
    """1 / sqrt(x), float32 in and out, any shape, correctly rounded; NaN for x < 0, +inf for either zero, 0 for +inf.

    Two float64 roundings stay within 2 units of the last place of float64. Of all 2^24 significands (an even and an odd exponent each) one
    comes that close to halfway between FP32 numbers, and falls on its right side; a test scans them all.
    """
    with np.errstate(all="ignore"):
        # Adding +0 turns -0 into +0.
        return canonical((1.0 / np.sqrt(np.asarray(x, dtype=np.float64) + 0.0)).astype(np.float32))


def log_fp32(x: Float32) -> Float32:
    """The natural logarithm, float32 in and out, any shape; within 0.51 ulp. -inf for either zero, NaN for x < 0, inf for inf.

    x = m 2^e with m in [1, 2) of 24 bits. A ROM entry chosen by the top 7 bits of m's fraction gives c near 1 / m and -ln(c); r = m c - 1
    is exact and below 2^-6.9, and ln x = e ln 2 - ln c + ln(1 + r), the last by the series r (1 - r (1/2 - r (1/3 - r / 4))) in integers.
    c is 1 in the first segment and 1/2 in the last, so nothing cancels near 1: there ln x = ln(1 + r).
    """
    x = np.asarray(x, dtype=np.float32)
    positive = np.isfinite(x) & (x > 0)
    # The bits of an exact float64 are the normalised significand and its exponent, for subnormal x too.
    bits = np.where(positive, x, np.float32(1)).astype(np.float64).view(np.int64)
    significand = ((bits >> 29) & ((1 << 23) - 1)) | (1 << 23)
    segment = (significand >> (23 - LOG_INDEX_BITS)) - (1 << LOG_INDEX_BITS)
    one = 1 << _LOG_ARGUMENT_FRACTION
    r = significand * LOG_INVERSES[segment] - one
    series = round(one / 3) - (r >> 2)
    series = one // 2 - ((r * series) >> _LOG_ARGUMENT_FRACTION)
    series = one - ((r * series) >> _LOG_ARGUMENT_FRACTION)
    small = (r * series) >> (2 * _LOG_ARGUMENT_FRACTION - LOG_FRACTION)
    total = ((bits >> 52) - 1023) * LN2 + LOG_ROM[segment] + small
    special = np.where(x == 0, np.float32(-np.inf), np.where(x > 0, x, np.float32(np.nan)))
    return canonical(np.where(positive, accumulator.to_fp32(total, LOG_FRACTION), special).astype(np.float32))


def softmax_scale(head_dim: int) -> float:
    """1 / sqrt(head_dim), the factor of attention scores, as the BF16 lanes multiply it."""
    return bf16.rounded(1 / math.sqrt(head_dim))


def mean_factor(length: int) -> float:
    """1 / length, which turns a sum over a row into its mean, in FP32."""
    return float(np.float32(1) / np.float32(length))

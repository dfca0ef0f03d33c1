"""FP32 arithmetic on bit patterns: sums, products, comparison, and the roundings that lead to FP32; NaN is 0x7FC00000."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Value

from unmask.rtl import floating
from unmask.rtl.bits import wire
from unmask.rtl.pipeline import Pipeline

FRACTION = 23
PRECISION = FRACTION + 1
PLACES = floating.ROUNDED_PLACES
"""Of `add`, `multiply`, `rounded_fixed`."""
NAN = 0x7FC00000
INFINITY = 0x7F800000
_SIGN = 1 << 31


def add(p: Pipeline, a: Value, b: Value) -> Value:
    """a + b, correctly rounded; `PLACES` places."""
    return floating.rounded(p, floating.add_terms(p.m, a, b), FRACTION, right=False)[0]


def multiply(p: Pipeline, a: Value, b: Value) -> Value:
    """a * b, correctly rounded; `PLACES` places."""
    return floating.rounded(p, floating.multiply_terms(p.m, a, b), FRACTION)[0]


def less(m: Module, a: Value, b: Value) -> Value:
    """Whether a < b; never where either is NaN; zeros are equal. No places."""
    left, right = floating.unpack(m, a), floating.unpack(m, b)
    ordered = wire(m, a[:31] < b[:31])
    equal = wire(m, a[:31] == b[:31])
    by_sign = Mux(left.sign, Mux(right.sign, ~ordered & ~equal, 1), Mux(right.sign, 0, ordered))
    return wire(m, (by_sign & ~(left.zero & right.zero) & ~left.nan & ~right.nan)[:1])


def fixed(m: Module, value: Value, fraction: int) -> floating.Unrounded:
    """A signed integer times 2^-fraction (0 <= fraction <= 126), ready for its rounding; a mantissa as long as the integer."""
    width = max(len(value), FRACTION + 3)
    sign = wire(m, value[-1])
    magnitude = wire(m, ((value ^ sign.replicate(len(value))).as_unsigned() + sign)[: len(value)])
    padded = Cat(Const(0, width - len(value)), magnitude)
    exponent = Const(floating.BIAS + len(value) - 2 - fraction, 10).as_signed()
    return floating.wired(m, floating.Unrounded(sign, padded, exponent, Const(0, 1), Const(0, 1)))


def rounded_fixed(p: Pipeline, value: Value, fraction: int) -> Value:
    """value * 2^-fraction (signed) rounded once: `unmask.numerics.accumulator.to_fp32`.

    `PLACES` places: before the leading zeros are counted, and before the shift.
    """
    result, _ = floating.cut(p, fixed(p.m, value, fraction))
    result, (shift,) = floating.cut(p, result, floating.normalising(p.m, result))
    return floating.packed(p.m, result, shift, FRACTION, right=False)


def from_bf16(bits: Value) -> Value:
    """The FP32 pattern of a BF16 one."""
    return Cat(Const(0, 16), bits)

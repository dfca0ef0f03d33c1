"""An accumulator's sum rounded to BF16."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Mux, Value

from unmask.numerics.bf16 import NAN_BITS
from unmask.rtl.bf16 import FRACTION
from unmask.rtl.bits import leading_zeros, shift_left, wire
from unmask.rtl.floating import BIAS
from unmask.rtl.pipeline import Pipeline

PLACES = 3
MOST_FRACTION = 126
"""Fraction bits of a sum, at most, so that no result is subnormal."""


def rounded_sum(p: Pipeline, total: Value, wrong: Value, width: int, fraction: int) -> Value:
    """total * 2^-fraction rounded to BF16 (`unmask.numerics.accumulator.to_bf16`); NaN where `wrong`, or where it leaves `width` bits.

    A negative sum is not negated first, which takes a carry through all of its bits. Its complement, which is one less than the magnitude,
    has the same leading zeros, or one more, which a carry out of the fraction makes up for; the missing one is added with the rounding.
    `PLACES` places: behind the adder, before the shift, before the rounding.

    Args:
        total: signed, `width` bits or more. fraction: `width` - 128 at least and `MOST_FRACTION` at most.
    """
    m = p.m
    sum_, high, wrong = p.cut(total[:width], total[width - 1 :], wrong)
    nan = wire(m, wrong | ~(high.all() | ~high.any()))
    complement = wire(m, sum_ ^ sum_[-1].replicate(width))
    # Without a one above the lowest bit the shift is by all the others.
    shift = wire(m, leading_zeros(m, Cat(Const(1, 1), complement[1:]))[: (width - 1).bit_length()])

    sum_, shift, nan = p.cut(sum_, shift, nan)
    sign = sum_[-1]
    shifted = shift_left(m, sum_, shift)
    first = width - FRACTION - 2
    kept = wire(m, shifted[first:] ^ sign.replicate(FRACTION + 2))
    some = wire(m, shifted[:first].any())
    # The leading one adds one to the field, and so does a carry into its place.
    field = wire(m, (Const(BIAS + width - 2 - fraction, 8) - shift)[:8] & (sign | kept[-1]).replicate(8))

    kept, some, field, sign, nan = p.cut(kept, some, field, sign, nan)
    # Nothing lost of a negative sum: the missing one is added at the bit to round by.
    carry = sign & ~some
    up = (kept[0] & carry) | ((kept[0] ^ carry) & (some | kept[1]))
    magnitude = wire(m, (Cat(Const(0, FRACTION), field) + kept[1:] + up)[: FRACTION + 8])
    return Mux(nan, NAN_BITS, Cat(magnitude, sign))

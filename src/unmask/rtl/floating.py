"""Addition, multiplication and rounding of BF16 and FP32 bit patterns, which differ in the length of their fraction alone.

A result is computed in three steps, between which registers may stand: the terms of a sum (of a product there is one), their total with the
count of its leading zeros, and the shift and rounding. An adder and a multiplier share the last two.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeVar

from amaranth.hdl import Cat, Const, Module, Mux, Value

from unmask.rtl.bits import leading_zeros, shift_left, shift_right_sticky, wire
from unmask.rtl.pipeline import Pipeline
from unmask.rtl.products import product

BIAS = 127
_FIELD = 8
_INFINITE = (1 << _FIELD) - 1
ROUNDED_PLACES = 2

_Parts = TypeVar("_Parts", "Number", "Terms", "Unrounded")


def cut(p: Pipeline, parts: _Parts, *beside: Value) -> tuple[_Parts, list[Value]]:
    """The same parts behind the next place of a pipeline, and what is needed beside them."""
    own = [getattr(parts, field.name) for field in fields(parts)]
    later = p.cut(*own, *beside)
    return type(parts)(*later[: len(own)]), later[len(own) :]


def wired(m: Module, parts: _Parts) -> _Parts:
    """The same parts, as signals."""
    return type(parts)(*(wire(m, getattr(parts, field.name), field.name) for field in fields(parts)))


def select(m: Module, condition: Value, parts: _Parts, other: _Parts) -> _Parts:
    """The one or the other, whose parts have the same shapes."""
    pairs = [(getattr(parts, field.name), getattr(other, field.name), field.name) for field in fields(parts)]
    return type(parts)(*(wire(m, Mux(condition, one, two), name) for one, two, name in pairs))


def where(m: Module, condition: Value, parts: _Parts) -> _Parts:
    """The same parts, or all bits clear."""
    own = [(getattr(parts, field.name), field.name) for field in fields(parts)]
    return type(parts)(*(wire(m, Mux(condition, value, 0), name) for value, name in own))


@dataclass(frozen=True)
class Number:
    """A pattern taken apart: a finite value is +-significand * 2^(exponent - BIAS), the significand having one bit before its point.

    Attributes:
        sign: 1 bit. exponent: 8 bits, at least 1. significand: its leading bit is clear where the number is subnormal or zero.
        nan, infinity, zero: 1 bit each.
    """

    sign: Value
    exponent: Value
    significand: Value
    nan: Value
    infinity: Value
    zero: Value


@dataclass(frozen=True)
class Terms:
    """A sum of two terms: sign (x +- y) 2^(exponent - BIAS), x and y having two bits before their points and x >= y.

    Attributes:
        sign: 1 bit. x, y: unsigned, twice as long as a significand; the last bit of y may stand for all below it. Of a product that is not
            added up yet they are two words with its sum, and either may be the larger.
        difference: whether y is subtracted. exponent: signed. nan, infinity: 1 bit each; NaN overrides infinity, and that the terms.
    """

    sign: Value
    x: Value
    y: Value
    difference: Value
    exponent: Value
    nan: Value
    infinity: Value


@dataclass(frozen=True)
class Unrounded:
    """A result before its rounding: sign mantissa 2^(exponent - BIAS), the mantissa having two bits before its point.

    Attributes:
        sign: 1 bit. mantissa: unsigned; its last bit may stand for all below it.
        exponent: signed. nan, infinity: 1 bit each; NaN overrides infinity, and that the mantissa.
    """

    sign: Value
    mantissa: Value
    exponent: Value
    nan: Value
    infinity: Value


def unpack(m: Module, bits: Value) -> Number:
    """The parts of a pattern of 16 or 32 bits."""
    bits = wire(m, bits, "bits")
    fraction, field = bits[: -1 - _FIELD], bits[-1 - _FIELD : -1]
    normal, top, some = field.any(), field.all(), fraction.any()
    exponent = Cat(field[0] | ~normal, field[1:])
    return wired(m, Number(bits[-1], exponent, Cat(fraction, normal), top & some, top & ~some, ~normal & ~some))


def is_nan(m: Module, bits: Value) -> Value:
    """Whether a pattern is a NaN."""
    return unpack(m, bits).nan


def negated(bits: Value) -> Value:
    """The pattern with its sign changed."""
    return Cat(bits[:-1], ~bits[-1])


def add_terms(m: Module, a: Value, b: Value) -> Terms:
    """The terms of a + b, aligned; add `negated(b)` to subtract."""
    a, b = wire(m, a), wire(m, b)
    swap = wire(m, b[:-1] > a[:-1])
    large, small = Mux(swap, b, a), Mux(swap, a, b)
    big, little = unpack(m, large[: len(a)]), unpack(m, small[: len(a)])
    precision = len(big.significand)
    # Two bits to round by, and one that stands for the rest, which is in place after a shift by at most precision + 2.
    distance = wire(m, (big.exponent - little.exponent)[:_FIELD])
    near = (precision + 2).bit_length()
    moved, lost = shift_right_sticky(m, Cat(Const(0, 2), little.significand), distance[:near])
    far = distance[near:].any()
    moved = moved & ~far.replicate(len(moved))
    lost = lost | (far & ~little.zero)
    difference = wire(m, big.sign ^ little.sign)
    nan = big.nan | little.nan | (big.infinity & little.infinity & difference)
    terms = Terms(
        sign=big.sign,
        x=Cat(Const(0, precision - 1), big.significand, Const(0, 1)),
        y=Cat(Const(0, precision - 4), lost, moved, Const(0, 1)),
        difference=difference,
        exponent=Cat(big.exponent, Const(0, 2)).as_signed(),
        nan=nan,
        infinity=big.infinity,
    )
    return wired(m, terms)


def multiply_terms(m: Module, a: Value, b: Value, *, apart: bool = False) -> Terms:
    """The product a * b as the first of two terms, the other 0; `apart`: as both, for a `total` of whole words to add up."""
    left, right = unpack(m, a), unpack(m, b)
    precision = len(left.significand)
    x, y = left.significand * right.significand, Value.cast(Const(0, 2 * precision))
    if apart:
        x, y = product(m, left.significand, right.significand)
    terms = Terms(
        sign=left.sign ^ right.sign,
        x=x,
        y=y,
        difference=Const(0, 1),
        exponent=(left.exponent + right.exponent - BIAS)[: _FIELD + 2].as_signed(),
        nan=left.nan | right.nan | (left.infinity & right.zero) | (left.zero & right.infinity),
        infinity=left.infinity | right.infinity,
    )
    return wired(m, terms)


def term(m: Module, bits: Value) -> Terms:
    """A number as the only term."""
    number = unpack(m, bits)
    precision = len(number.significand)
    terms = Terms(
        sign=number.sign,
        x=Cat(Const(0, precision - 1), number.significand, Const(0, 1)),
        y=Const(0, 2 * precision),
        difference=Const(0, 1),
        exponent=Cat(number.exponent, Const(0, 2)).as_signed(),
        nan=number.nan,
        infinity=number.infinity,
    )
    return wired(m, terms)


def total(m: Module, terms: Terms, *, whole: bool = False) -> Unrounded:
    """The sum. An exact 0 is positive unless both terms are negative. `whole`: the terms may be those of a product `apart`."""
    # The low bits of a y that is no product's are never set.
    idle = 0 if whole else len(terms.x) // 2 - 4
    width = len(terms.x) - idle
    y = terms.y[idle:]
    high = (terms.x[idle:] + (y ^ terms.difference.replicate(width)) + terms.difference)[:width]
    high = wire(m, high)
    mantissa = Cat(terms.x[:idle], high)
    sign = terms.sign & ~(terms.difference & ~high.any())
    return wired(m, Unrounded(sign, mantissa, terms.exponent, terms.nan, terms.infinity))


def normalising(m: Module, value: Unrounded, most: int | None = None) -> Value:
    """By how much to shift the mantissa left: to its leading one, or to the grid of the subnormals.

    most: the leading zeros that the mantissa of a normal result has at most; by default all but one of its bits.
    """
    most = len(value.mantissa) - 1 if most is None else most
    # A one where the grid ends stops the count there.
    marks = Cat(value.exponent == most - place for place in range(most + 1))
    return leading_zeros(m, value.mantissa[-most - 1 :] | marks)[: most.bit_length()]


def packed(m: Module, value: Unrounded, shift: Value, fraction: int, right: bool = True) -> Value:
    """The pattern nearest (ties to even) to an unrounded result, with gradual underflow.

    Args:
        value: the result; its mantissa has fraction + 3 bits or more.
        shift: from `normalising`.
        fraction: 7 gives a BF16, 23 an FP32.
        right: whether `value.exponent` may be negative.
    """
    mantissa, exponent, shift = wire(m, value.mantissa), wire(m, value.exponent), wire(m, shift)
    cut_off = len(mantissa) - fraction - 2
    shifted = shift_left(m, mantissa, shift)
    kept, lost = shifted[cut_off:], shifted[:cut_off].any()
    if right:
        small = exponent[-1]
        # -1 - exponent places beyond the first, and with more than fraction + 2 in all nothing is left.
        amount = ~exponent[:-1]
        near = (fraction + 1).bit_length()
        moved, gone = shift_right_sticky(m, Cat(mantissa[cut_off + 1 :], Const(0, 1)), amount[:near])
        moved = moved & ~amount[near:].any().replicate(len(moved))
        kept, lost = wire(m, Mux(small, moved, kept)), Mux(small, gone | mantissa[: cut_off + 1].any(), lost)
    result = kept[1:]
    up = kept[0] & (lost | result[0])
    # The leading one adds one to the field, and so may a carry out of the significand.
    field = (exponent - shift)[: len(exponent)] & result[-1].replicate(len(exponent))
    bits = wire(m, (Cat(Const(0, fraction), field) + result + up)[: fraction + len(exponent)])
    infinity = _INFINITE << fraction
    over = value.infinity | bits[fraction : fraction + _FIELD].all() | bits[fraction + _FIELD :].any()
    magnitude = Mux(over, infinity, bits[: fraction + _FIELD])
    return Mux(value.nan, infinity | 1 << (fraction - 1), Cat(magnitude[: fraction + _FIELD], value.sign))[: fraction + _FIELD + 1]


def rounded(p: Pipeline, terms: Terms, fraction: int, *beside: Value, right: bool = True, whole: bool = False) -> list[Value]:
    """The pattern nearest to a sum of terms, and `beside` as late; `ROUNDED_PLACES`, before the total and before the shift.

    right, whole: see `packed` and `total`.
    """
    terms, later = cut(p, terms, *beside)
    value = total(p.m, terms, whole=whole)
    value, (shift, *later) = cut(p, value, normalising(p.m, value), *later)
    return [packed(p.m, value, shift, fraction, right), *later]

"""The functions of a BF16 lane in gates: `unmask.numerics.functions` and `unmask.numerics.window`, bit for bit.

All share one road: e^x before its rounding, its rounding to 8 bits, 1 + e^-x, the reciprocal, a product of a significand and what came of
these, and one last rounding. The stages of the road are the functions here, and `unmask.rtl.lane` puts registers between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from amaranth.hdl import Cat, Const, Module, Mux, Value

from unmask.numerics import window
from unmask.numerics.functions import EXP_ARGUMENT_FRACTION, EXP_INDEX_BITS, EXP_ROM, EXP_ROM_FRACTION, LOG2E, LOG2E_FRACTION
from unmask.rtl import floating
from unmask.rtl.bits import leading_zeros, saturated, shift_left, shift_right, shift_right_sticky, table, wire
from unmask.rtl.floating import BIAS
from unmask.rtl.pipeline import Pipeline

LEVEL_BITS = 21
"""Of a window's level, signed."""
NO_LEVEL = -(1 << (LEVEL_BITS - 1))
"""The level of a row without terms, which stands for `window.LOWEST`: all others are higher by more than one."""

WEIGHT_CAP, EXP_CAP = 150, 134
"""Exponent fields beyond which arguments need not be told apart: of `weight`, whose result has any exponent, and of a rounded e^x."""
WEIGHT_PLACES = 3
_POINT = 134
_LOW_BITS = EXP_ARGUMENT_FRACTION - EXP_INDEX_BITS
_EXPONENT_BITS = 26
FIELD_BITS = 10
"""Of the signed exponent fields that a result has before it is rounded; beyond them it overflows or vanishes."""


@dataclass(frozen=True)
class Power:
    """e^x before its rounding: mantissa 2^exponent, the mantissa having its leading one before the point and 16 bits after it."""

    mantissa: Value
    exponent: Value


@dataclass(frozen=True)
class Weight:
    """e^x with 8 significant bits: significand 2^(exponent - 7), the exponent (signed) being that of the leading bit; 0 and 0 for none."""

    significand: Value
    exponent: Value


def exponential_product(m: Module, number: floating.Number, cap: int) -> tuple[Value, Value]:
    """|x| log2(e) before it is put in place, and by how much to shift it right.

    cap: `WEIGHT_CAP` or `EXP_CAP`; arguments of a larger exponent count as the largest below it.
    """
    over = wire(m, number.exponent > cap)
    significand = number.significand | over.replicate(len(number.significand))
    distance = Mux(over, 0, cap - number.exponent)[: cap.bit_length()]
    return wire(m, (significand * LOG2E)[: 8 + LOG2E.bit_length()]), wire(m, distance)


def exponential_argument(m: Module, sign: Value, product: Value, distance: Value, cap: int) -> Value:
    """x log2(e), signed with `EXP_ARGUMENT_FRACTION` fraction bits."""
    up = cap - _POINT - (LOG2E_FRACTION - EXP_ARGUMENT_FRACTION)
    placed = Cat(Const(0, up), product) if up > 0 else product[-up:]
    near = (len(placed) - 1).bit_length()
    moved = shift_right(m, placed, distance[:near])
    magnitude = wire(m, moved & ~distance[near:].any().replicate(len(moved)))
    width = len(magnitude) + 1
    return wire(m, ((magnitude ^ sign.replicate(width)) + sign)[:width].as_signed())


def exponential(m: Module, argument: Value) -> Power:
    """2^argument, interpolated between the entries of the ROM."""
    low, segment = argument[:_LOW_BITS], wire(m, argument[_LOW_BITS:EXP_ARGUMENT_FRACTION])
    entries = [int(entry) for entry in EXP_ROM]
    slopes = [after - before for before, after in pairwise(entries)]
    fractions = [entry - (1 << EXP_ROM_FRACTION) for entry in entries[:-1]]
    base = Cat(table(fractions, segment, EXP_ROM_FRACTION), Const(1, 1))
    slope = wire(m, table(slopes, segment, max(slopes).bit_length()))
    mantissa = base + ((slope * low) >> _LOW_BITS)
    return Power(wire(m, mantissa[: EXP_ROM_FRACTION + 1]), wire(m, argument[EXP_ARGUMENT_FRACTION:].as_signed()))


def rounded_weight(m: Module, power: Power, finite: Value) -> Weight:
    """The weight; `finite`: neither infinite nor NaN, which have none."""
    drop = len(power.mantissa) - 8
    up = power.mantissa[drop - 1] & (power.mantissa[: drop - 1].any() | power.mantissa[drop])
    total = wire(m, power.mantissa[drop:] + up)
    carried = total[8]
    significand = Cat(total[:7], total[7] | carried) & finite.replicate(8)
    exponent = (power.exponent + carried) & finite.replicate(len(power.exponent) + 1)
    return Weight(wire(m, significand), wire(m, exponent[: len(power.exponent)].as_signed()))


def weight(p: Pipeline, bits: Value) -> Weight:
    """`unmask.numerics.functions.weight` of a BF16 pattern, its exponent that of the leading bit; `WEIGHT_PLACES` places."""
    m = p.m
    number = floating.unpack(m, bits)
    sign, finite = number.sign, wire(m, ~(number.nan | number.infinity))
    sign, finite, product, distance = p.cut(sign, finite, *exponential_product(m, number, WEIGHT_CAP))
    finite, argument = p.cut(finite, exponential_argument(m, sign, product, distance, WEIGHT_CAP))
    power = exponential(m, argument)
    finite, mantissa, exponent = p.cut(finite, power.mantissa, power.exponent)
    return rounded_weight(m, Power(mantissa, exponent), finite)


def weight_level(m: Module, value: Weight) -> Value:
    """The level of a weight, signed `LEVEL_BITS`: `unmask.numerics.window.level`; `NO_LEVEL` without one."""
    level = value.exponent >> (window.BIN_BITS - 1).bit_length()
    return wire(m, Mux(value.significand.any(), level, NO_LEVEL)[:LEVEL_BITS].as_signed())


def relative(m: Module, exponent: Value, level: Value) -> Value:
    """An exponent of e^x (signed) less 32 (level + 1), in `FIELD_BITS`."""
    return wire(m, saturated(wire(m, exponent - (level + 1) * window.BIN_BITS), FIELD_BITS))


def scaled_field(m: Module, exponent: Value) -> Value:
    """The exponent field (signed, `FIELD_BITS`) of a weight whose exponent is `relative`: less than 1 where `window.scaled` is 0."""
    return wire(m, (Mux(exponent > 7, 7, exponent) + BIAS)[:FIELD_BITS].as_signed())


def one_plus(m: Module, value: Weight) -> tuple[Value, Value, Value]:
    """1 + e rounded to BF16: significand (8 bits, leading one), exponent field (8 bits), and whether it is infinite."""
    exponent = value.exponent
    large = wire(m, ~exponent[-1])
    distance = wire(m, (exponent ^ exponent[-1].replicate(len(exponent)))[:-1] + exponent[-1])
    one = Const(128, 8)
    big, small = wire(m, Mux(large, value.significand, one)), wire(m, Mux(large, one, value.significand))
    moved, lost = shift_right_sticky(m, Cat(Const(0, 2), small), distance[:4])
    near = ~distance[4:].any()
    # Two bits to round by, and one that stands for the rest, which no longer matters where the distance is large.
    total = wire(m, Cat(Const(0, 3), big) + (Cat(lost, moved) & near.replicate(11)))
    carried = total[11]
    kept = wire(m, Mux(carried, total[4:12], total[3:11]))
    guard = Mux(carried, total[3], total[2])
    rest = total[:2].any() | (carried & total[2])
    result = wire(m, kept + (guard & (rest | kept[0])))
    infinite = large & exponent[7:-1].any()
    field = wire(m, (Mux(large, exponent[:8], 0) + carried + result[8] + BIAS)[:8])
    return wire(m, Cat(result[:7], result[7] | result[8])), field, infinite


def normalised(m: Module, number: floating.Number) -> tuple[Value, Value]:
    """Significand with its leading one in place, and the exponent field (signed) that goes with it."""
    count = wire(m, leading_zeros(m, number.significand)[:3])
    return shift_left(m, number.significand, count), wire(m, (number.exponent - count).as_signed())


def reciprocal(m: Module, significand: Value, field: Value) -> tuple[Value, Value]:
    """1 / x of a normalised significand and its exponent field (signed), rounded to what BF16 holds: a normalised significand and field.

    The ROM has the quotient's first 9 bits, and a quotient that is no power of two never ends.
    """
    quotients = [(1 << 16) // divisor - 256 if divisor > 128 else 0 for divisor in range(128, 256)]
    quotient = wire(m, Cat(table(quotients, significand[:7], 8), Const(1, 1)))
    power_of_two = ~significand[:7].any()
    exponent = wire(m, (2 * BIAS - 1 - field + power_of_two))
    subnormal = wire(m, Cat(exponent == 0, exponent == -1))
    up = Mux(subnormal[1], 4, Mux(subnormal[0], 2, 1))
    total = wire(m, quotient + up)
    kept = wire(m, Cat(total[1] & ~subnormal.any(), total[2] & ~subnormal[1], total[3:10]))
    carried = kept[8]
    return wire(m, Cat(kept[:7], kept[7] | carried)), wire(m, exponent + carried)


def power_of_two_field(number: floating.Number) -> Value:
    """The exponent field of `unmask.numerics.functions.power_of_two_bits`."""
    usual = Mux(number.exponent == 254, 253, number.exponent)
    return Mux(number.zero | number.nan | number.infinity, BIAS, usual)[:8]

"""Correctly rounded FP32 reciprocals and reciprocal square roots, a digit after the other, and the logarithm."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed

from unmask.numerics.functions import LN2, LOG_FRACTION, LOG_INDEX_BITS, LOG_INVERSE_FRACTION, LOG_INVERSES, LOG_ROM
from unmask.rtl import floating, fp32
from unmask.rtl.bits import leading_zeros, shift_left, table, wire
from unmask.rtl.floating import BIAS
from unmask.rtl.pipeline import Pipeline
from unmask.rtl.products import carry_save, product

_DIGITS = fp32.PRECISION + 3
"""A quotient's: two to round by, and one before the point."""
_PER_PLACE = 2
_TRIALS = [min(_PER_PLACE, _DIGITS - first) for first in range(0, _DIGITS, _PER_PLACE)]
"""Digits between two places."""
RECIPROCAL_PLACES = RSQRT_PLACES = 1 + len(_TRIALS)
LOG_PLACES = 10 + fp32.PLACES
_ARGUMENT_FRACTION = 23 + LOG_INVERSE_FRACTION
_SERIES_BITS = _ARGUMENT_FRACTION + 1
"""Of a positive number below 2."""
_LOG_BITS = 64


def _normalised(m: Module, number: floating.Number) -> tuple[Value, Value]:
    """Significand with its leading one in place (of a 0: anything), and the signed exponent field that goes with it."""
    count = wire(m, leading_zeros(m, number.significand)[:5])
    return shift_left(m, number.significand, count), wire(m, (number.exponent - count).as_signed()[:10].as_signed())


def _rounded(m: Module, sign: Value, digits: Value, rest: Value, exponent: Value, nan: Value, infinity: Value) -> Value:
    value = floating.wired(m, floating.Unrounded(sign, Cat(rest.any(), digits), exponent, nan, infinity))
    return floating.packed(m, value, floating.normalising(m, value, 1), fp32.FRACTION)


def reciprocal(p: Pipeline, x: Value) -> Value:
    """1 / x, correctly rounded: `unmask.numerics.functions.reciprocal_fp32`; `RECIPROCAL_PLACES` places.

    Restoring division: a digit is whether the divisor fits into the rest. The second of two is found for either first one at once, whose
    rests are 2 rest - divisor and 2 (rest - divisor) - divisor.
    """
    m = p.m
    number = floating.unpack(m, x)
    divisor, field = _normalised(m, number)
    exponent = wire(m, (2 * BIAS - 1 - field)[:10].as_signed())
    exponent = wire(m, Mux(number.infinity, -BIAS, exponent)[:10].as_signed())
    sign, nan, infinity = number.sign, number.nan, number.zero
    rest: Value = Const(1 << fp32.FRACTION, fp32.PRECISION + 1)
    digits: Value = Const(0, 0)
    triple = wire(m, (divisor + Cat(Const(0, 1), divisor))[: fp32.PRECISION + 2])
    sign, nan, infinity, exponent, divisor, triple = p.cut(sign, nan, infinity, exponent, divisor, triple)
    for count in _TRIALS:
        trial = wire(m, rest - divisor)
        fits = wire(m, ~trial[-1])
        kept, found = Mux(fits, trial, rest)[: fp32.PRECISION], Cat(fits)
        if count == _PER_PLACE:
            double = Cat(Const(0, 1), rest)
            without, with_it = wire(m, double - divisor), wire(m, double - triple)
            digit = wire(m, ~Mux(fits, with_it[-1], without[-1]))
            kept = Mux(digit, Mux(fits, with_it, without), Cat(Const(0, 1), kept))[: fp32.PRECISION]
            found = Cat(digit, fits)
        rest, digits = wire(m, Cat(Const(0, 1), kept)), wire(m, Cat(found, digits))
        sign, nan, infinity, exponent, divisor, triple, rest, digits = p.cut(sign, nan, infinity, exponent, divisor, triple, rest, digits)
    return _rounded(m, sign, digits, rest, exponent, nan, infinity)


def _trial(m: Module, rest: Value, subtrahends: list[Value], width: int) -> Value:
    """rest less some words, all unsigned, and its sign as the highest of `width` bits."""
    complement = wire(m, ~Cat(rest, Const(0, width - len(rest))))
    return wire(m, ~wire(m, sum(carry_save(m, [complement, *subtrahends], width), Const(0, 1))[:width]))


def _times(value: Value, power: int) -> Value:
    return Cat(Const(0, power), value)


def rsqrt(p: Pipeline, x: Value) -> Value:
    """1 / sqrt(x), correctly rounded: `unmask.numerics.functions.rsqrt_fp32`; `RSQRT_PLACES` places.

    The largest y with s y^2 <= 1, digit after digit: of y so far, s y and 1 - s y^2 are kept as integers and neither is ever multiplied.
    The second of two digits is tried for either first one at once.
    """
    m = p.m
    number = floating.unpack(m, x)
    significand, field = _normalised(m, number)
    odd = ~field[0]
    square = wire(m, Mux(odd, Cat(Const(0, 1), significand), Cat(significand, Const(0, 1))))
    halved = wire(m, ((field - BIAS) >> 1).as_signed())
    exponent = wire(m, Mux(number.infinity, -BIAS, BIAS - 1 - halved)[:10].as_signed())
    nan = wire(m, number.nan | (number.sign & ~number.zero))
    infinity = number.zero
    # After n digits s y is below 2^n s, and the rest below s (2 y + 1), or y would be larger.
    rest: Value = Const(1 << (fp32.FRACTION - 2), len(square) + 1)
    multiple: Value = Const(0, len(square))
    digits: Value = Const(0, 0)
    nan, infinity, exponent, square = p.cut(nan, infinity, exponent, square)
    for count in _TRIALS:
        trial = _trial(m, _times(rest, 2), [_times(multiple, 2), square], len(rest) + 3)
        fits = wire(m, ~trial[-1])
        once = wire(m, (_times(multiple, 1) + square)[: len(multiple) + 1])
        kept, found = Mux(fits, trial, _times(rest, 2)), Cat(fits)
        following = Mux(fits, once, _times(multiple, 1))[: len(once)]
        if count == _PER_PLACE:
            wide, four = len(rest) + 5, _times(rest, 4)
            without = _trial(m, four, [_times(multiple, 3), square], wide)
            with_it = _trial(m, four, [_times(multiple, 4), _times(multiple, 3), _times(square, 3), square], wide)
            digit = wire(m, ~Mux(fits, with_it[-1], without[-1]))
            kept = Mux(digit, Mux(fits, with_it, without), Mux(fits, _times(trial, 2), four))
            found = Cat(digit, fits)
            double = _times(multiple, 2)
            one, both = (wire(m, sum(words, double)[: len(multiple) + 2]) for words in ([square], [square, _times(square, 1)]))
            following = Mux(digit, Mux(fits, both, one), Mux(fits, _times(once, 1), double))[: len(double)]
        rest, multiple = wire(m, kept[: len(rest) + count]), wire(m, following)
        digits = wire(m, Cat(found, digits))
        nan, infinity, exponent, square, rest, multiple, digits = p.cut(nan, infinity, exponent, square, rest, multiple, digits)
    return _rounded(m, Const(0, 1), digits, rest, exponent, nan, infinity)


def logarithm(p: Pipeline, x: Value) -> Value:
    """ln(x): `unmask.numerics.functions.log_fp32`, step for step; `LOG_PLACES` places."""
    m = p.m
    number = floating.unpack(m, x)
    significand, field = _normalised(m, number)
    nan = wire(m, number.nan | (number.sign & ~number.zero))
    minus, plus = number.zero, number.infinity
    power = wire(m, (field - BIAS)[:10].as_signed())
    minus, plus, nan, power, significand = p.cut(minus, plus, nan, power, significand)

    segment = wire(m, significand[-1 - LOG_INDEX_BITS : -1])
    inverse = wire(m, table([int(entry) for entry in LOG_INVERSES], segment, LOG_INVERSE_FRACTION + 1))
    constants = [int(entry) for entry in LOG_ROM]
    bits = max(max(constants).bit_length(), max(-entry for entry in constants).bit_length()) + 1
    constant = wire(m, table([entry % (1 << bits) for entry in constants], segment, bits).as_signed())
    one = 1 << _ARGUMENT_FRACTION
    minus, plus, nan, power, significand, inverse, constant = p.cut(minus, plus, nan, power, significand, inverse, constant)
    # |r| < 2^-6.9
    r = wire(m, (significand * inverse - one)[: _ARGUMENT_FRACTION - 4].as_signed())
    octaves = wire(m, power * Const(LN2))
    minus, plus, nan, octaves, constant, r = p.cut(minus, plus, nan, octaves, constant, r)

    series = wire(m, (round(one / 3) - (r >> 2))[:_SERIES_BITS])
    base: Value = Signal(signed(_LOG_BITS), name="log_base")
    m.d.comb += base.eq(octaves + constant)
    minus, plus, nan, base, r, series = p.cut(minus, plus, nan, base, r, series)
    # The partial products are a cycle's work down to two words, their sum the next one's.
    width = _ARGUMENT_FRACTION + _SERIES_BITS
    for term in (one // 2, one):
        minus, plus, nan, base, r, *words = p.cut(minus, plus, nan, base, r, *product(m, r, series, width))
        # term less the product's whole part: its negative is ~low + ~high + 2, and what is cut off is to be rounded up.
        known = Const((((term + 1) << _ARGUMENT_FRACTION) + 1) % (1 << width), width)
        low, high = carry_save(m, [known, *(~word for word in words)], width)
        series = wire(m, (low + high)[_ARGUMENT_FRACTION:width])
        minus, plus, nan, base, r, series = p.cut(minus, plus, nan, base, r, series)
    beyond = 2 * _ARGUMENT_FRACTION - LOG_FRACTION
    width = _LOG_BITS + beyond
    minus, plus, nan, base, *words = p.cut(minus, plus, nan, base, *product(m, r, series, width))
    low, high = carry_save(m, [Cat(Const(0, beyond), base), *words], width)
    total = wire(m, (low + high)[beyond:width].as_signed())
    minus, plus, nan, total = p.cut(minus, plus, nan, total)

    value = fp32.fixed(m, total, LOG_FRACTION)
    special = wire(m, minus | plus | nan)
    value, (minus, nan, special) = floating.cut(p, value, minus, nan, special)
    value, (shift, minus, nan, special) = floating.cut(p, value, floating.normalising(m, value), minus, nan, special)
    result = floating.packed(m, value, shift, fp32.FRACTION, right=False)
    return wire(m, Mux(special, Mux(nan, fp32.NAN, fp32.INFINITY | Mux(minus, 1 << 31, 0)), result)[:32])

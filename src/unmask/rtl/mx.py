"""MX elements and scales to BF16 and back, as `unmask.numerics.mx` and `unmask.numerics.formats` define them.

A decoded element, before its scale, is a `Small`: a sign and a normalised significand of 8 bits, which every element format fits. `decode`
makes it of a code, `scaled` rounds it, times its scale, to BF16. `scale_of` and `encode` are the way back, for blocks of BF16.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data

from unmask.numerics.bf16 import INFINITY_BITS, NAN_BITS
from unmask.numerics.formats import ElementFormat
from unmask.numerics.mx import NAN_SCALE
from unmask.rtl.largest import largest

SIGNIFICAND = 7
"""Bits of a BF16 significand behind the hidden one."""


class Class(IntEnum):
    """What a decoded element is."""

    ZERO = 0
    FINITE = 1
    INFINITE = 2
    NAN = 3


SMALL = data.StructLayout({"mantissa": SIGNIFICAND, "exponent": signed(6), "sign": 1, "kind": Class})
"""A decoded element: (-1)^sign * 1.mantissa * 2^exponent where it is finite."""


def _normalised(m: Module, integer: Value, lowest: int, small: data.View) -> None:
    """integer * 2^lowest, magnitude only: the leading one becomes the hidden bit."""
    m.d.comb += small.kind.eq(Class.ZERO)
    for place in range(len(integer)):
        with m.If(integer[place]):
            m.d.comb += [
                small.mantissa.eq(integer << (SIGNIFICAND - place)),
                small.exponent.eq(place + lowest),
                small.kind.eq(Class.FINITE),
            ]


def decode(m: Module, code: Value, element: ElementFormat, name: str) -> data.View:
    """The `SMALL` of an element's code."""
    small = data.View(SMALL, Signal(SMALL.size, name=name))
    top = code[element.bits - 1]
    m.d.comb += small.sign.eq(top)
    if element.kind == "int":
        magnitude = Signal(element.bits, name=f"{name}_magnitude")
        m.d.comb += magnitude.eq(Mux(top, -code, code))
        _normalised(m, magnitude, -element.fraction, small)
        return small
    magnitude = code[: element.bits - 1]
    mantissa, exponent = magnitude[: element.mantissa_bits], magnitude[element.mantissa_bits :]
    with m.If(exponent == 0):
        _normalised(m, mantissa, -element.fraction, small)
    with m.Else():
        m.d.comb += [
            small.mantissa.eq(mantissa << (SIGNIFICAND - element.mantissa_bits)),
            small.exponent.eq(exponent - element.bias),
            small.kind.eq(Class.FINITE),
        ]
    if element.specials != "none":
        with m.If(magnitude > element.max_code):
            m.d.comb += small.kind.eq(Class.NAN)
    if element.specials == "ieee":
        with m.If(magnitude == element.max_code + 1):
            m.d.comb += small.kind.eq(Class.INFINITE)
    return small


def _moved(m: Module, significand: Value, right: Value, name: str) -> tuple[Value, Value]:
    """An 8-bit significand shifted right by 0 to 9 or more places: 8 bits, and whether its rounding to nearest even adds one."""
    places = Signal(range(SIGNIFICAND + 3), name=f"{name}_places")
    shifted = Signal(2 * (SIGNIFICAND + 1) + 1, name=f"{name}_shifted")
    m.d.comb += [
        places.eq(Mux(right > SIGNIFICAND + 2, SIGNIFICAND + 2, right)),
        shifted.eq(Cat(Const(0, SIGNIFICAND + 2), significand) >> places),
    ]
    rest, kept = shifted[: SIGNIFICAND + 2], shifted[SIGNIFICAND + 2 :]
    return kept, rest[-1] & (rest[:-1].any() | kept[0])


def _rounded(kept: Value, up: Value) -> Value:
    return (kept + up)[: SIGNIFICAND + 1]


def scaled(m: Module, small: data.View, scale: Value, name: str) -> Value:
    """BF16 bits of a decoded element times the scale of code `scale`."""
    biased = Signal(signed(10), name=f"{name}_biased")
    result = Signal(16, name=name)
    below = _rounded(*_moved(m, Cat(small.mantissa, Const(1, 1)), (1 - biased)[:6], name))
    m.d.comb += biased.eq(small.exponent + scale)
    with m.If((small.kind == Class.NAN) | (scale == NAN_SCALE)):
        m.d.comb += result.eq(NAN_BITS)
    with m.Elif(small.kind == Class.ZERO):
        m.d.comb += result.eq(small.sign << 15)
    with m.Elif((small.kind == Class.INFINITE) | (biased > 254)):
        m.d.comb += result.eq(Cat(Const(INFINITY_BITS, 15), small.sign))
    with m.Elif(biased > 0):
        m.d.comb += result.eq(Cat(small.mantissa, biased[:8], small.sign))
    with m.Else():
        m.d.comb += result.eq(Cat(below, Const(0, 15 - len(below)), small.sign))
    return result


def largest_exponent(m: Module, patterns: list[Value]) -> Value:
    """The largest exponent field of BF16 patterns, 8 bits."""
    return largest(m, [pattern[SIGNIFICAND : SIGNIFICAND + 8] for pattern in patterns])


@dataclass(frozen=True)
class Coding:
    """An element format as the encoder needs it: Values, chosen among several formats.

    Attributes:
        emax, emin, mantissa_bits, max_code: as in `unmask.numerics.formats`. drop: significand bits that a normal element loses.
        integer: two's complement. sign_place: number of the sign bit.
    """

    emax: Value
    emin: Value
    mantissa_bits: Value
    drop: Value
    max_code: Value
    integer: Value
    sign_place: Value

    @classmethod
    def choose(cls, m: Module, elements: list[ElementFormat], number: Value, name: str) -> Coding:
        """The coding of `elements[number]`; the last one's for numbers beyond."""
        shapes = {"emax": 5, "emin": signed(6), "mantissa_bits": 3, "drop": 3, "max_code": 7, "integer": 1, "sign_place": 3}
        chosen = {field: Signal(shape, name=f"{name}_{field}") for field, shape in shapes.items()}
        with m.Switch(number):
            for index, element in enumerate(elements):
                values = (
                    element.emax,
                    element.emin,
                    element.mantissa_bits,
                    SIGNIFICAND - element.mantissa_bits,
                    element.max_code,
                    element.kind == "int",
                    element.bits - 1,
                )
                with m.Default() if index == len(elements) - 1 else m.Case(index):
                    m.d.comb += [signal.eq(int(value)) for signal, value in zip(chosen.values(), values, strict=True)]
        return cls(**chosen)

    def held(self, m: Module, name: str) -> Coding:
        """The same, a cycle later."""
        later = {field: Signal(value.shape(), name=f"{name}_{field}") for field, value in vars(self).items()}
        m.d.sync += [later[field].eq(value) for field, value in vars(self).items()]
        return Coding(**later)


def scale_of(top: Value, coding: Coding) -> Value:
    """Code of the scale of a block whose largest exponent field is `top`."""
    return Mux(top == NAN_SCALE, NAN_SCALE, Mux(top > coding.emax, top - coding.emax, 0))[:8]


def encode(m: Module, pattern: Value, scale: Value, coding: Coding, name: str) -> Value:
    """The code, 8 bits, of a BF16 element of a block with that scale; 0 under the NaN scale."""
    return coded(m, aligned(m, spread(m, pattern, coding, name), scale, coding, name), coding, name)


SPREAD = data.StructLayout({"significand": SIGNIFICAND + 1, "above": signed(10), "sign": 1})
"""A BF16 element: (-1)^sign * significand * 2^(above - 7), times the format's lowest normal power, biased; the significand's top bit is 0
for zero only."""


def spread(m: Module, pattern: Value, coding: Coding, name: str) -> data.View:
    """The first part of `encode`, which needs no scale: a `SPREAD`."""
    field, fraction, result = pattern[SIGNIFICAND:15], pattern[:SIGNIFICAND], Signal(SPREAD, name=f"{name}_spread")
    exponent = Signal(signed(10), name=f"{name}_exponent")
    m.d.comb += [
        result.significand.eq(Cat(fraction, field != 0)),
        exponent.eq(field),
        result.above.eq(exponent - coding.emin),
        result.sign.eq(pattern[15]),
    ]
    with m.If(field == 0):
        for place in range(SIGNIFICAND):
            with m.If(fraction[place]):
                m.d.comb += [result.significand.eq(fraction << (SIGNIFICAND - place)), exponent.eq(place + 1 - SIGNIFICAND)]
    return result


ALIGNED = data.StructLayout({"kept": SIGNIFICAND + 1, "up": 1, "binades": 5, "sign": 1, "zero": 1})
"""An element on the grid of its format: the significand there, whether rounding adds one, and binades above the lowest; or a zero."""


def aligned(m: Module, element: data.View, scale: Value, coding: Coding, name: str) -> data.View:
    """The second part of `encode`, of what `spread` has found, an `ALIGNED`; a register may stand before it and behind it."""
    below = Signal(signed(11), name=f"{name}_below")
    lost, binades = Signal(4, name=f"{name}_lost"), Signal(5, name=f"{name}_binades")
    m.d.comb += below.eq(scale - element.above)
    with m.If(below[-1]):
        m.d.comb += binades.eq(element.above[:5] - scale[:5])
    with m.Else():
        # More places than a significand has are as good as all of them.
        m.d.comb += lost.eq(below[:4] | below[4:-1].any().replicate(4))
    kept, up = _moved(m, element.significand, coding.drop + lost, name)
    nan, result = scale == NAN_SCALE, Signal(ALIGNED, name=f"{name}_aligned")
    m.d.comb += [
        result.kept.eq(kept),
        result.up.eq(up),
        result.binades.eq(binades),
        result.sign.eq(element.sign & ~nan),
        result.zero.eq(~element.significand[-1] | nan),
    ]
    return result


def coded(m: Module, element: data.View, coding: Coding, name: str) -> Value:
    """The last part of `encode`, of what `aligned` has found: the code, 8 bits."""
    sum_ = Signal(13, name=f"{name}_sum")
    m.d.comb += sum_.eq(_rounded(element.kept, element.up) + (element.binades << coding.mantissa_bits))
    code = Signal(7, name=f"{name}_magnitude")
    m.d.comb += code.eq(Mux(sum_ > coding.max_code, coding.max_code, sum_))
    magnitude, result = Mux(element.zero, 0, code), Signal(unsigned(8), name=name)
    m.d.comb += result.eq(Mux(element.sign, Mux(coding.integer, -magnitude, magnitude | (1 << coding.sign_place)), magnitude))
    return result

"""MX elements as the multipliers take them: a short signed integer and how far it is shifted to the left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data
from amaranth.utils import bits_for

from unmask.numerics.formats import ElementFormat
from unmask.rtl.bits import wire


def magnitude_bits(element: ElementFormat) -> int:
    """Bits of the magnitude without its exponent."""
    return element.bits if element.kind == "int" else element.mantissa_bits + 1


def largest_shift(element: ElementFormat) -> int:
    """The shift of the largest finite element."""
    return 0 if element.kind == "int" else (element.max_code >> element.mantissa_bits) - 1


def part_layout(elements: Sequence[ElementFormat]) -> data.StructLayout:
    """An element of any of these formats: mantissa * 2^shift is its significand."""
    mantissa = max(magnitude_bits(e) + (e.kind == "float") for e in elements)
    return data.StructLayout({"mantissa": signed(mantissa), "shift": bits_for(max(map(largest_shift, elements)))})


@dataclass(frozen=True)
class Decoded:
    """An element: +-magnitude * 2^shift; nan and infinite override it."""

    sign: Value
    magnitude: Value
    shift: Value
    nan: Value
    infinite: Value


def decode(m: Module, code: Value, element: ElementFormat) -> Decoded:
    """The parts of a code."""
    code = wire(m, code[: element.bits])
    sign = code[-1]
    if element.kind == "int":
        magnitude = wire(m, Mux(sign, -code, code)[: element.bits])
        return Decoded(sign, magnitude, Const(0, 1), Const(0, 1), Const(0, 1))
    low, field = code[: element.mantissa_bits], code[element.mantissa_bits : -1]
    normal = field.any()
    nan: Value = Const(0, 1)
    infinite: Value = Const(0, 1)
    if element.specials != "none":
        special = wire(m, code[:-1] > element.max_code)
        infinite = wire(m, code[:-1] == element.max_code + 1) if element.specials == "ieee" else Const(0, 1)
        nan = special & ~infinite
    return Decoded(sign, Cat(low, normal), wire(m, Mux(normal, field - 1, 0)[: len(field)]), nan, infinite)


def whole(m: Module, decoded: Decoded, layout: data.StructLayout) -> data.View:
    """The part of an element as it is; anything where it is NaN or infinite."""
    mantissa = Mux(decoded.sign, -decoded.magnitude, decoded.magnitude)
    return _view(m, mantissa, decoded.shift, layout)


def lowered(m: Module, decoded: Decoded, down: Value, element: ElementFormat, layout: data.StructLayout) -> data.View:
    """The part of an element times 2^-down, rounded to nearest even to an element of its format; it saturates symmetrically.

    Args:
        down: unsigned; `unmask.numerics.mx.reblock_transposed` has the rule.
    """
    bits = magnitude_bits(element)
    exact = wire(m, down <= decoded.shift)
    far = wire(m, (down - decoded.shift)[: len(down)])
    # Beyond the width and a bit to round by nothing is left.
    places = wire(m, Mux(exact, 0, Mux(far > bits + 1, bits + 1, far))[: bits_for(bits + 1)])
    moved = wire(m, Cat(Const(0, bits + 1), decoded.magnitude) >> places)
    rest, kept = moved[: bits + 1], moved[bits + 1 :]
    rounded = wire(m, (kept + (rest[-1] & (rest[:-1].any() | kept[0])))[:bits])
    if element.kind == "int":
        limit = element.max_code
        rounded = wire(m, Mux(rounded > limit, limit, rounded)[:bits])
    shift: Value = wire(m, Mux(exact, decoded.shift - down, 0)[: len(decoded.shift)])
    if element.specials == "ieee":
        top = (element.max_code & ((1 << element.mantissa_bits) - 1)) | 1 << element.mantissa_bits
        rounded = wire(m, Mux(decoded.infinite, top, rounded)[:bits])
        shift = wire(m, Mux(decoded.infinite, largest_shift(element), shift)[: len(decoded.shift)])
    return _view(m, Mux(decoded.sign, -rounded, rounded), shift, layout)


def _view(m: Module, mantissa: Value, shift: Value, layout: data.StructLayout) -> data.View:
    part = data.View(layout, Signal(layout.size, name="part"))
    m.d.comb += [part.mantissa.eq(mantissa), part.shift.eq(shift)]
    return part

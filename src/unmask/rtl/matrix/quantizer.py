"""The left operand on its way into the array: BF16 rows become MX parts and scales."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Any

from amaranth.hdl import Cat, Const, Module, Signal, Value, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from unmask.numerics.formats import ElementFormat
from unmask.numerics.mx import BLOCK
from unmask.rtl.bits import wire
from unmask.rtl.matrix.parts import decode, part_layout, whole
from unmask.rtl.mx import SIGNIFICAND, Coding, aligned, coded, scale_of
from unmask.rtl.pipeline import Pipeline

PLACES = 4
DIGIT = 4
"""Bits of an exponent that are compared at once."""


class Quantizer(wiring.Component):
    """`unmask.numerics.mx.quantize` of one row of `lanes` elements per cycle, in blocks of 32.

    `PLACES` places: behind the memory, when the largest exponent of each block is known, when its elements are aligned, before the array.

    Ports:
        row: BF16. inside: a bit per element that is there; the others count as 0.
        parts: of the elements, `part_layout` each. scales: a code per block.
    """

    def __init__(self, lanes: int, element: ElementFormat, registers: int) -> None:
        self._lanes, self._element, self._registers = lanes, element, registers
        self.layout = part_layout([element])
        super().__init__(
            {
                "row": In(data.ArrayLayout(unsigned(16), lanes)),
                "inside": In(lanes),
                "parts": Out(data.ArrayLayout(self.layout, lanes)),
                "scales": Out(data.ArrayLayout(unsigned(8), lanes // BLOCK)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        coding = Coding.choose(m, [self._element], Const(0, 1), "coding")
        for block in range(self._lanes // BLOCK):
            p = Pipeline(m, PLACES, self._registers, f"block_{block}")
            places = range(block * BLOCK, (block + 1) * BLOCK)
            row = p.cut(*(self.row[index] & self.inside[index].replicate(16) for index in places))
            top, *patterns = p.cut(largest(m, [pattern[SIGNIFICAND:-1] for pattern in row]), *row)
            scale = Signal(8, name=f"scale_{block}")
            m.d.comb += scale.eq(scale_of(top, coding))
            names = [f"code_{index}" for index in places]
            elements = [aligned(m, pattern, scale, coding, name) for pattern, name in zip(patterns, names, strict=True)]
            fields = len(elements[0])
            later, *flat = p.cut(scale, *(field for element in elements for field in element))
            parts = []
            for index, name in enumerate(names):
                code = coded(m, tuple(flat[index * fields : (index + 1) * fields]), coding, name)
                parts.append(whole(m, decode(m, code[: self._element.bits], self._element), self.layout).as_value())
            scales, *parts = p.cut(later, *parts)
            p.done()
            m.d.comb += [
                self.scales[block].eq(scales),
                Cat(self.parts[block * BLOCK + i].as_value() for i in range(BLOCK)).eq(Cat(parts)),
            ]
        return m


def largest(m: Module, values: list[Value]) -> Value:
    """The largest of unsigned values, digit by digit of `DIGIT` bits from the top, among those that have the largest so far.

    Of each digit stands there which thresholds it reaches; one that any value reaches, the largest does. That is half as deep as a tree of
    comparisons, of as many levels as values have bits, and as large.
    """
    found: list[Value] = []
    alive: list[Value] = [Const(1, 1)] * len(values)
    for low in reversed(range(0, len(values[0]), DIGIT)):
        digits = [wire(m, value[low : low + DIGIT]) for value in values]
        count = (1 << len(digits[0])) - 1
        every = Const((1 << count) - 1, count)
        reached = [wire(m, ~(every << digit)[:count] & one.replicate(count)) for digit, one in zip(digits, alive, strict=True)]
        while len(reached) > 1:
            reached = [wire(m, reduce(or_, reached[index : index + 2])) for index in range(0, len(reached), 2)]
        top = wire(m, _count(reached[0], len(digits[0])))
        found.insert(0, top)
        alive = [wire(m, one & (digit == top)) for digit, one in zip(digits, alive, strict=True)]
    return wire(m, Cat(found))


def _count(reached: Value, bits: int) -> Value:
    """How many ones a value has whose ones are its lowest bits."""
    # A bit is 1 if an odd multiple of its weight is reached, and not the even one after it.
    padded = Cat(reached, Const(0, 1))
    weights = [1 << bit for bit in range(bits)]
    return Cat(Cat(padded[at - 1] & ~padded[at + w - 1] for at in range(w, 1 << bits, 2 * w)).any() for w in weights)

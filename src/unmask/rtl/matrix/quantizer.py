"""The left operand on its way into the array: BF16 rows become MX parts and scales."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from unmask.numerics.formats import ElementFormat
from unmask.numerics.mx import BLOCK
from unmask.rtl.largest import largest
from unmask.rtl.matrix.parts import decode, part_layout, whole
from unmask.rtl.mx import ALIGNED, SIGNIFICAND, Coding, aligned, coded, scale_of, spread
from unmask.rtl.pipeline import Pipeline

PLACES = 4


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
            elements = [
                aligned(m, spread(m, pattern, coding, name), scale, coding, name) for pattern, name in zip(patterns, names, strict=True)
            ]
            later, *placed = p.cut(scale, *elements)
            parts = []
            for element, name in zip(placed, names, strict=True):
                code = coded(m, data.View(ALIGNED, element), coding, name)
                parts.append(whole(m, decode(m, code[: self._element.bits], self._element), self.layout).as_value())
            scales, *parts = p.cut(later, *parts)
            p.done()
            m.d.comb += [
                self.scales[block].eq(scales),
                Cat(self.parts[block * BLOCK + i].as_value() for i in range(BLOCK)).eq(Cat(parts)),
            ]
        return m

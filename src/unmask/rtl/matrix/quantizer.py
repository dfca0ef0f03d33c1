"""The left operand on its way into the array: BF16 rows become MX parts and scales."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from unmask.numerics.formats import ElementFormat
from unmask.numerics.mx import BLOCK
from unmask.rtl.matrix.parts import decode, part_layout, whole
from unmask.rtl.mx import Coding, encode, largest_exponent, scale_of
from unmask.rtl.pipeline import Pipeline

PLACES = 3


class Quantizer(wiring.Component):
    """`unmask.numerics.mx.quantize` of one row of `lanes` elements per cycle, in blocks of 32.

    `PLACES` places: when the largest exponent of each block is known, when the codes are, before the array.

    Ports:
        row: BF16. count: elements of it that are there; the others count as 0.
        parts: of the elements, `part_layout` each. scales: a code per block.
    """

    def __init__(self, lanes: int, element: ElementFormat, registers: int) -> None:
        self._lanes, self._element, self._registers = lanes, element, registers
        self.layout = part_layout([element])
        super().__init__(
            {
                "row": In(data.ArrayLayout(unsigned(16), lanes)),
                "count": In(range(lanes + 1)),
                "parts": Out(data.ArrayLayout(self.layout, lanes)),
                "scales": Out(data.ArrayLayout(unsigned(8), lanes // BLOCK)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        coding = Coding.choose(m, [self._element], Const(0, 1), "coding")
        for block in range(self._lanes // BLOCK):
            p = Pipeline(m, PLACES, self._registers, f"block_{block}")
            row = []
            for index in range(block * BLOCK, (block + 1) * BLOCK):
                kept = Signal(16, name=f"element_{index}")
                m.d.comb += kept.eq(Mux(self.count > index, self.row[index], 0))
                row.append(kept)
            top, *patterns = p.cut(largest_exponent(m, row, f"largest_{block}"), *row)
            scale = Signal(8, name=f"scale_{block}")
            m.d.comb += scale.eq(scale_of(top, coding))
            codes = [encode(m, pattern, scale, coding, f"code_{block}_{i}") for i, pattern in enumerate(patterns)]
            bits = self._element.bits
            later, *codes = p.cut(scale, *(code[:bits] for code in codes))
            parts = [whole(m, decode(m, code, self._element), self.layout).as_value() for code in codes]
            scales, *parts = p.cut(later, *parts)
            p.done()
            m.d.comb += [
                self.scales[block].eq(scales),
                Cat(self.parts[block * BLOCK + i].as_value() for i in range(BLOCK)).eq(Cat(parts)),
            ]
        return m

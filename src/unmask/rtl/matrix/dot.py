"""A block of a column: 32 elements of the right operand, and their exact dot product with 32 of the left one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Const, Module, Mux, Shape, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from unmask.numerics.accumulator import MATRIX_FRACTION
from unmask.numerics.formats import ElementFormat
from unmask.numerics.mx import BLOCK, NAN_SCALE, SCALE_BIAS
from unmask.rtl.bits import leading_zeros, wire
from unmask.rtl.matrix.parts import part_layout
from unmask.rtl.pipeline import Pipeline

WIDTH = 64
"""Bits of a contribution."""
PLACES = 4


class BlockDot(wiring.Component):
    """32 multipliers, each beside its element of the right operand; the elements of the next tile are collected meanwhile.

    `PLACES` places: the products, the first half of the tree, the dot product, the contribution.

    Ports:
        by_row: store a whole block, `row` and `row_scale`. by_column: store one element of it, `column`, at `index`; a transposed block's.
        scale, bad: of what is stored: its scale, and whether it makes the column's results NaN; `bad` adds up over a block's columns.
        exchange: what was collected is multiplied from the next cycle on.
        format: which of the right formats.
        left, left_scale: a row's block. contribution: of their product to the sum, exact. invalid: it leaves 64 bits, or is NaN.
    """

    def __init__(self, left: ElementFormat, right: Sequence[ElementFormat], registers: int) -> None:
        self._left, self._right, self._registers = left, list(right), registers
        self._left_layout, self._right_layout = part_layout([left]), part_layout(right)
        self.dot_bits = left.significand_bits + max(e.significand_bits for e in right) + 6
        super().__init__(
            {
                "by_row": In(1),
                "by_column": In(1),
                "index": In(5),
                "row": In(data.ArrayLayout(self._right_layout, BLOCK)),
                "column": In(self._right_layout),
                "scale": In(8),
                "bad": In(1),
                "exchange": In(1),
                "format": In(1),
                "left": In(data.ArrayLayout(self._left_layout, BLOCK)),
                "left_scale": In(8),
                "contribution": Out(signed(WIDTH)),
                "invalid": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        next_scale, scale = Signal(8), Signal(8)
        next_bad, bad = Signal(), Signal()
        with m.If(self.by_row | self.by_column):
            m.d.sync += next_scale.eq(self.scale)
            m.d.sync += next_bad.eq(self.bad | (self.by_column & (self.index != 0) & next_bad))
        with m.If(self.exchange):
            m.d.sync += [scale.eq(next_scale), bad.eq(next_bad)]
        products: list[Value] = []
        for index in range(BLOCK):
            waiting, held = (data.View(self._right_layout, Signal(self._right_layout.size, name=f"{n}_{index}")) for n in ("next", "held"))
            with m.If(self.by_row | (self.by_column & (self.index == index))):
                m.d.sync += waiting.eq(Mux(self.by_row, self.row[index].as_value(), self.column.as_value()))
            with m.If(self.exchange):
                m.d.sync += held.eq(waiting)
            left = self.left[index]
            product = Signal(signed(self.dot_bits - 5), name=f"product_{index}")
            m.d.comb += product.eq((left.mantissa * held.mantissa) << (left.shift + held.shift))
            products.append(product)

        p = Pipeline(m, PLACES, self._registers)
        fractions = [MATRIX_FRACTION - self._left.fraction - e.fraction - 2 * SCALE_BIAS for e in self._right]
        offset = Mux(self.format, fractions[-1], fractions[0]) if len(fractions) > 1 else Const(fractions[0])
        by = wire(m, self.left_scale + scale + offset)
        invalid = wire(m, bad | (self.left_scale == NAN_SCALE))
        by, invalid, *sums = p.cut(by, invalid, *products)
        while len(sums) > 8:
            sums = [wire(m, a + b) for a, b in zip(sums[::2], sums[1::2], strict=True)]
        by, invalid, *sums = p.cut(by, invalid, *sums)
        while len(sums) > 1:
            sums = [wire(m, a + b) for a, b in zip(sums[::2], sums[1::2], strict=True)]
        dot = wire(m, sums[0][: self.dot_bits].as_signed())
        dot, by, invalid = p.cut(dot, by, invalid)
        value, overflow = self._aligned(m, dot.as_signed(), by.as_signed())
        value, invalid = p.cut(value, invalid | overflow)
        p.done()
        m.d.comb += [self.contribution.eq(value), self.invalid.eq(invalid)]
        return m

    def _aligned(self, m: Module, dot: Value, by: Value) -> tuple[Value, Value]:
        """floor(dot * 2^by), and whether it leaves 64 bits."""
        bits = len(dot)
        down = wire(m, Mux(by < 0, Mux(-by > bits, bits, -by), 0)[: bits_for(bits)])
        up = wire(m, Mux(by < 0, 0, Mux(by > WIDTH, WIDTH, by))[: bits_for(WIDTH)])
        floored = Signal(Shape(max(bits, WIDTH), signed=True), name="floored")
        m.d.comb += floored.eq(dot >> down)
        sign = floored[-1]
        different = wire(m, floored[:bits] ^ sign.replicate(bits))
        length = wire(m, Mux(different.any(), bits - leading_zeros(m, different), 0)[: bits_for(bits)])
        value = wire(m, (floored[:WIDTH] << up[:-1])[:WIDTH].as_signed())
        overflow = (up + length > WIDTH - 1) & floored.any()
        return value, wire(m, overflow)

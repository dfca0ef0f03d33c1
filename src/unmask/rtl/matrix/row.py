"""A row of the array: `blen` columns of the result at a time, K split across blocks, an exact accumulator per result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from unmask.numerics.accumulator import MATRIX_FRACTION
from unmask.numerics.formats import ElementFormat
from unmask.numerics.mx import BLOCK
from unmask.rtl.bits import wire
from unmask.rtl.matrix.dot import PLACES, WIDTH, BlockDot
from unmask.rtl.matrix.parts import part_layout
from unmask.rtl.matrix.right import Feeder, step_ports
from unmask.rtl.matrix.rounding import PLACES as ROUND_PLACES
from unmask.rtl.matrix.rounding import rounded_sum
from unmask.rtl.matrix.timing import sum_places
from unmask.rtl.pipeline import Pipeline, delay


class ArrayRow(wiring.Component):
    """`blen` columns of mlen / 32 blocks of multipliers each; the results of a tile stay in their accumulators until K is over.

    Ports:
        those of `Feeder` for the right operand. left, left_scales: parts and scales of the left row.
        index, first, add: of a left row, a cycle before its products, `sum_registers` old, are added up: row of the tile; begin new sums;
            there is one. The next row with the same index comes two cycles later, or more.
        results: BF16, `round_registers` cycles after the sums.
    """

    def __init__(
        self,
        blen: int,
        lanes: int,
        left: ElementFormat,
        right: Sequence[ElementFormat],
        code_bits: int,
        positions: int,
        guard: int,
        sum_registers: int,
        round_registers: int,
    ) -> None:
        """Size it.

        Args:
            lanes: blocks of a left row.
            code_bits: of an element in the matrix SRAM.
            positions: longest beat.
            guard: bits of the accumulators beyond 64, so that no sum of contributions leaves them.
            sum_registers, round_registers: at most `sum_places` and `ROUND_PLACES` make sense.
        """
        self._blen, self._lanes, self._left, self._right = blen, lanes, left, list(right)
        self._guard, self._sums, self._rounds = guard, sum_registers, round_registers
        self._columns = min(blen, BLOCK)
        self._feeder = (lanes, self._columns, positions, code_bits, list(right))
        inputs = step_ports(lanes, self._columns, positions, code_bits)
        super().__init__(
            {
                **inputs,
                "left": In(data.ArrayLayout(part_layout([left]), lanes * BLOCK)),
                "left_scales": In(data.ArrayLayout(unsigned(8), lanes)),
                "index": In(range(max(blen, 2))),
                "first": In(1),
                "add": In(1),
                "results": Out(data.ArrayLayout(unsigned(16), blen)),
            }
        )
        self._inputs = tuple(inputs)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.feeder = feeder = Feeder(*self._feeder)
        m.d.comb += [Cat(getattr(feeder, name)).eq(Cat(getattr(self, name))) for name in self._inputs]
        before = self._sums * PLACES // sum_places(self._lanes)
        index, first, add = delay(m, self.index, 1, "index"), delay(m, self.first, 1, "first"), delay(m, self.add, 1, "add")
        waiting_format, held_format = Signal(), Signal()
        with m.If(feeder.by_row | feeder.by_column):
            m.d.sync += waiting_format.eq(feeder.store_format)
        with m.If(feeder.exchange):
            m.d.sync += held_format.eq(waiting_format)
        for column in range(self._blen):
            contributions, invalid = [], []
            by_row, by_column = Signal(name=f"by_row_{column}"), Signal(name=f"by_column_{column}")
            m.d.comb += [
                by_row.eq(feeder.by_row & (feeder.store == column)),
                by_column.eq(feeder.by_column & (feeder.store >> 5 == column >> 5)),
            ]
            for lane in range(self._lanes):
                block = m.submodules[f"column_{column}_block_{lane}"] = BlockDot(self._left, self._right, before)
                taken = column % BLOCK
                m.d.comb += [
                    block.by_row.eq(by_row),
                    block.by_column.eq(by_column),
                    block.index.eq(feeder.store),
                    Cat(block.row.as_value()).eq(feeder.rows[lane].as_value()),
                    Cat(block.column.as_value()).eq(feeder.taken[lane][taken].as_value()),
                    block.scale.eq(feeder.block_scales[lane]),
                    block.bad.eq(Mux(feeder.by_row, feeder.row_bad[lane], feeder.taken_bad[lane][taken])),
                    block.exchange.eq(feeder.exchange),
                    block.format.eq(held_format),
                    Cat(block.left.as_value()).eq(Cat(self.left[lane * BLOCK + i].as_value() for i in range(BLOCK))),
                    block.left_scale.eq(self.left_scales[lane]),
                ]
                contributions.append(block.contribution)
                invalid.append(block.invalid)
            total, wrong = self._total(m, column, contributions, Cat(invalid).any(), self._sums - before)
            memory = m.submodules[f"accumulators_{column}"] = Memory(shape=unsigned(len(total) + 1), depth=self._blen, init=[])
            read, write = memory.read_port(), memory.write_port()
            kept = wire(m, read.data & (~first).replicate(len(total) + 1))
            added = wire(m, _split_sum(m, kept[:-1], total))
            wrong = wire(m, kept[-1] | wrong)
            m.d.comb += [read.addr.eq(self.index), write.addr.eq(index), write.data.eq(Cat(added, wrong)), write.en.eq(add)]
            p = Pipeline(m, ROUND_PLACES, self._rounds, f"round_{column}")
            m.d.comb += self.results[column].eq(rounded_sum(p, added, wrong, WIDTH, MATRIX_FRACTION))
            p.done()
        return m

    def _total(self, m: Module, column: int, values: list[Any], wrong: Any, registers: int) -> tuple[Value, Value]:
        """The sum of a column's contributions, as long as an accumulator; a place after each level of the tree."""
        p = Pipeline(m, sum_places(self._lanes) - PLACES, registers, f"sum_{column}")
        while len(values) > 1:
            pairs = [wire(m, a.as_signed() + b.as_signed()) for a, b in zip(values[::2], values[1::2], strict=False)]
            wrong, *values = p.cut(wrong, *pairs, *values[len(values) & ~1 :])
        p.done()
        total = Signal(signed(WIDTH + self._guard), name=f"total_{column}")
        m.d.comb += total.eq(values[0].as_signed())
        return Cat(total), wrong


def _split_sum(m: Module, a: Value, b: Value) -> Value:
    """a + b, in their width: the upper half for either carry out of the lower one, which is half as far for a carry to go."""
    half = len(a) // 2
    low = wire(m, a[:half] + b[:half])
    high = [wire(m, (Cat(Const(c, 1), a[half:]) + Cat(Const(c, 1), b[half:]))[1 : len(a) - half + 1]) for c in (0, 1)]
    return Cat(low[:half], Mux(low[half], high[1], high[0]))

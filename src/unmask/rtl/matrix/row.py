"""A row of the array: `blen` columns of the result at a time, K split across blocks, an exact accumulator per result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from unmask.numerics import bf16
from unmask.numerics.accumulator import MATRIX_FRACTION
from unmask.numerics.formats import ElementFormat
from unmask.numerics.mx import BLOCK
from unmask.rtl import bf16 as rtl_bf16
from unmask.rtl import fp32
from unmask.rtl.bits import wire
from unmask.rtl.matrix.dot import PLACES, WIDTH, BlockDot, signed_sum
from unmask.rtl.matrix.parts import part_layout
from unmask.rtl.matrix.right import Feeder
from unmask.rtl.matrix.timing import ROUND_PLACES, SUM_PLACES
from unmask.rtl.pipeline import Pipeline


class ArrayRow(wiring.Component):
    """`blen` columns of mlen / 32 blocks of multipliers each; the results of a tile stay in their accumulators until K is over.

    Ports:
        those of `Feeder` for the right operand. left, left_scales: parts and scales of the left row.
        index, first, add: `sum_registers` cycles after a left row: its row of the tile; begin new sums; there is one.
        results: BF16, `round_registers` cycles after `add`.
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
            sum_registers, round_registers: at most `SUM_PLACES` and `ROUND_PLACES` make sense.
        """
        self._blen, self._lanes, self._left, self._right = blen, lanes, left, list(right)
        self._guard, self._sums, self._rounds = guard, sum_registers, round_registers
        self._columns = min(blen, BLOCK)
        self._feeder = Feeder(lanes, self._columns, positions, code_bits, right)
        ports = dict(self._feeder.signature.members)
        inputs = ("valid", "position", "last", "transposed", "format", "blocks", "scales", "inside", "part")
        super().__init__(
            {
                **{name: ports[name] for name in inputs},
                "left": In(data.ArrayLayout(part_layout([left]), lanes * BLOCK)),
                "left_scales": In(data.ArrayLayout(unsigned(8), lanes)),
                "index": In(range(max(blen, 2))),
                "first": In(1),
                "add": In(1),
                "results": Out(data.ArrayLayout(unsigned(16), blen)),
            }
        )
        self._inputs = inputs

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.feeder = feeder = self._feeder
        m.d.comb += [Cat(getattr(feeder, name)).eq(Cat(getattr(self, name))) for name in self._inputs]
        before = self._sums * PLACES // SUM_PLACES
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
            self._accumulate(m, column, contributions, Cat(invalid).any(), self._sums - before)
        return m

    def _accumulate(self, m: Module, column: int, contributions: list[Any], invalid: Any, registers: int) -> None:
        bits = WIDTH + self._guard
        p = Pipeline(m, 1, registers, f"sum_{column}")
        value, bad = p.cut(wire(m, signed_sum(m, contributions, bits)), invalid)
        p.done()
        memory = m.submodules[f"accumulators_{column}"] = Memory(shape=unsigned(bits + 1), depth=self._blen, init=[])
        read, write = memory.read_port(domain="comb"), memory.write_port()
        total, wrong = Signal(bits, name=f"total_{column}"), Signal(name=f"wrong_{column}")
        kept = read.data & (~self.first).replicate(bits + 1)
        m.d.comb += [
            read.addr.eq(self.index),
            total.eq(kept[:bits] + value),
            wrong.eq(kept[bits] | bad),
            write.addr.eq(self.index),
            write.data.eq(Cat(total, wrong)),
            write.en.eq(self.add),
        ]
        high = total[WIDTH - 1 :]
        outside = wire(m, wrong | ~(high.all() | ~high.any()))
        p = Pipeline(m, ROUND_PLACES, self._rounds, f"round_{column}")
        q = Pipeline(m, ROUND_PLACES, self._rounds, f"outside_{column}")
        (narrow,) = p.cut(total[:WIDTH])
        result = fp32.rounded_fixed(p, narrow, MATRIX_FRACTION, rtl_bf16.FRACTION)
        p.done()
        for _ in range(ROUND_PLACES):
            (outside,) = q.cut(outside)
        q.done()
        m.d.comb += self.results[column].eq(Mux(outside, bf16.NAN_BITS, result))

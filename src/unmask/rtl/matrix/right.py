"""The right operand on its way into the array: MX blocks become parts, row by row or down their columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from unmask.numerics.formats import ElementFormat
from unmask.numerics.mx import BLOCK, NAN_SCALE
from unmask.rtl.bits import wire
from unmask.rtl.matrix.parts import decode, lowered, part_layout, whole
from unmask.rtl.pipeline import delay

LATER = 2
"""Cycles from the memory's data to what is stored in the array; of a transposed block BLOCK more."""


def _places(positions: int) -> range:
    return range(max(positions, 2))


def step_ports(lanes: int, columns: int, positions: int, code_bits: int) -> dict[str, Any]:
    """The inputs of a `Feeder` of these sizes: members of a signature."""
    return {
        "valid": In(1),
        "position": In(_places(positions)),
        "last": In(1),
        "transposed": In(1),
        "format": In(1),
        "blocks": In(data.ArrayLayout(data.ArrayLayout(unsigned(code_bits), BLOCK), lanes)),
        "scales": In(data.ArrayLayout(unsigned(8), lanes)),
        "inside": In(lanes),
        "part": In(range(max(BLOCK // columns, 2))),
    }


class Feeder(wiring.Component):
    """What a row of the array stores of the blocks that it reads: a block per lane and cycle.

    Without `transposed` a step is a row of the right operand. With it, a step is one row of a tile of 32 x 32 in each lane, of which the
    columns `part` are needed; it waits until all 32 are there and the largest of their scales is known
    (`unmask.numerics.mx.reblock_transposed`).

    Ports:
        valid, position, last: a step, the cycle of its beat, the beat's last. transposed, format: of its instruction. Between the last
            step of a transposed instruction and the first of another one, 32 cycles pass.
        blocks, scales: codes and scales of the lanes. inside: the lanes whose block is there; the others count as 0.
        part: which `columns` of a block.
        by_row, by_column, store: what is stored, `LATER` cycles after: a row or a column, at that position.
        store_format: its format. exchange: a beat has been stored.
        rows: parts of a whole row. row_bad: each lane's block has a NaN or an infinity.
        taken: of each lane the parts of its columns. taken_bad: theirs.
        block_scales: each lane's scale.
    """

    def __init__(self, lanes: int, columns: int, positions: int, code_bits: int, elements: Sequence[ElementFormat]) -> None:
        self._lanes, self._columns, self._bits, self._elements = lanes, columns, code_bits, list(elements)
        self.layout = layout = part_layout(elements)
        super().__init__(
            {
                **step_ports(lanes, columns, positions, code_bits),
                "by_row": Out(1),
                "by_column": Out(1),
                "store": Out(_places(positions)),
                "store_format": Out(1),
                "exchange": Out(1),
                "rows": Out(data.ArrayLayout(data.ArrayLayout(layout, BLOCK), lanes)),
                "row_bad": Out(lanes),
                "taken": Out(data.ArrayLayout(data.ArrayLayout(layout, columns), lanes)),
                "taken_bad": Out(data.ArrayLayout(unsigned(columns), lanes)),
                "block_scales": Out(data.ArrayLayout(unsigned(8), lanes)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        step = Cat(self.valid & ~self.transposed, self.last, self.position)
        row_valid, row_last, *_ = late = delay(m, step, LATER, "row_step")
        row_position = late[2:]
        row_format = delay(m, self.format, 1, "row_format")
        row_scales, row_bad = self._rows(m, row_format)
        # What is stored is transposed, or not, from the first step of an instruction on.
        transposed = delay(m, self.transposed, LATER, "stored_transposed")

        turned = Cat(self.valid & self.transposed, self.last, self.format if len(self._elements) > 1 else Const(0, 0), self.position)
        waiting = [turned]
        largest = []
        for lane in range(self._lanes):
            codes, scale, common = self._collected(m, lane)
            waiting += [codes, scale]
            largest.append(common)
        out = self._wait(m, Cat(waiting))
        step_bits = len(turned)
        after = delay(m, out[:step_bits], 1, "column_step")
        scales, at = [], step_bits
        two = len(self._elements) > 1
        column_format = out[2] if two else Const(0, 1)
        for lane in range(self._lanes):
            size = self._columns * self._bits
            codes, scale = out[at : at + size], out[at + size : at + size + 8]
            at += size + 8
            self._lowered(m, lane, codes, scale, largest[lane], column_format)
            scales.append(delay(m, largest[lane], 1, f"column_scale_{lane}"))
        column_valid, column_last = after[0], after[1]
        m.d.comb += [
            self.by_row.eq(row_valid),
            self.by_column.eq(column_valid & transposed),
            self.store.eq(Mux(transposed, after[2 + two :], row_position)),
            self.store_format.eq(Mux(transposed, after[2] if two else 0, delay(m, row_format, 1, "stored_format"))),
            self.row_bad.eq(row_bad),
        ]
        for lane in range(self._lanes):
            m.d.comb += self.block_scales[lane].eq(Mux(transposed, scales[lane], row_scales[lane]))
        m.d.sync += self.exchange.eq(Mux(transposed, column_valid & column_last, row_valid & row_last))
        return m

    def _chosen(self, m: Module, values: list[Any], number: Value) -> Value:
        """Of a value per format that of the format with a number."""
        casts = [Value.cast(value) for value in values]
        return casts[0] if len(casts) == 1 else wire(m, Mux(number, casts[1], casts[0]))

    def _codes(self, m: Module, lane: int) -> tuple[list[Value], Value]:
        """A lane's codes and its scale, 0 where there is no block."""
        inside = self.inside[lane]
        codes = [wire(m, self.blocks[lane][i] & inside.replicate(self._bits)) for i in range(BLOCK)]
        return codes, wire(m, self.scales[lane] & inside.replicate(8))

    def _rows(self, m: Module, number: Value) -> tuple[list[Value], Value]:
        all_scales, bad = [], []
        for lane in range(self._lanes):
            masked, scale = self._codes(m, lane)
            codes = [delay(m, code, 1, f"row_code_{lane}_{i}") for i, code in enumerate(masked)]
            scale = delay(m, scale, 1, f"row_scale_{lane}")
            wrong: list[Any] = []
            for element in self._elements:
                parts = [decode(m, code, element) for code in codes]
                wrong.append((Cat(Cat(part.nan, part.infinite) for part in parts)).any())
            for i, code in enumerate(codes):
                parts = [whole(m, decode(m, code, element), self.layout) for element in self._elements]
                m.d.sync += self.rows[lane][i].eq(self._chosen(m, parts, number))
            bad.append(delay(m, self._chosen(m, wrong, number) | (scale == NAN_SCALE), 1, f"row_bad_{lane}"))
            all_scales.append(delay(m, scale, 1, f"row_scale_later_{lane}"))
        return all_scales, Cat(bad)

    def _collected(self, m: Module, lane: int) -> tuple[Value, Value, Value]:
        """A lane's columns of the step and their scale; and the largest scale of the 32 steps that went before it."""
        codes, scale = self._codes(m, lane)
        some = []
        for element in self._elements:
            used = element.bits if element.kind == "int" else element.bits - 1
            some.append(Cat(code[:used] for code in codes).any())
        counts = self._chosen(m, some, self.format) | (scale == NAN_SCALE)
        counted = wire(m, scale & counts.replicate(8))
        running, common, later = (Signal(8, name=f"{name}_{lane}") for name in ("running", "common", "common_later"))
        slot = self.position[: (BLOCK - 1).bit_length()]
        before = Mux(slot == 0, 0, running)
        now = wire(m, Mux(counted > before, counted, before)[:8])
        m.d.sync += [running.eq(now), later.eq(common)]
        with m.If(slot == BLOCK - 1):
            m.d.sync += common.eq(now)
        groups = [Cat(codes[start : start + self._columns]) for start in range(0, BLOCK, self._columns)]
        chosen = Signal(len(groups[0]), name=f"columns_{lane}")
        with m.Switch(self.part):
            for index, group in enumerate(groups):
                with m.Case(index):
                    m.d.comb += chosen.eq(group)
        return chosen, scale, later

    def _wait(self, m: Module, word: Value) -> Value:
        """The same, BLOCK + 1 cycles later, from a memory."""
        m.submodules.waiting = memory = Memory(shape=unsigned(len(word)), depth=BLOCK, init=[])
        write, read, slot = memory.write_port(), memory.read_port(), Signal(range(BLOCK))
        m.d.sync += slot.eq(slot + 1)
        m.d.comb += [write.addr.eq(slot), write.en.eq(1), write.data.eq(word), read.addr.eq(slot), read.en.eq(1)]
        return read.data

    def _lowered(self, m: Module, lane: int, codes: Value, scale: Value, common: Value, number: Value) -> None:
        down = wire(m, Mux(common > scale, common - scale, 0)[:8])
        bad = []
        for column in range(self._columns):
            code = codes[column * self._bits : (column + 1) * self._bits]
            decoded = [decode(m, code, element) for element in self._elements]
            parts = [lowered(m, d, down, element, self.layout) for d, element in zip(decoded, self._elements, strict=True)]
            m.d.sync += self.taken[lane][column].eq(self._chosen(m, parts, number))
            bad.append(self._chosen(m, [d.nan for d in decoded], number) | (common == NAN_SCALE))
        m.d.sync += self.taken_bad[lane].eq(Cat(bad))

"""Which elements an instruction of the vector engine works on in which cycle."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from unmask.isa.row import STRIDE_UNIT
from unmask.isa.table import BY_NAME
from unmask.machine.sequencer import REGISTER_BITS
from unmask.rtl.decode import places

_TILE = places(BY_NAME["V_ADD"])
ROW_BITS = _TILE["rows"].stop - _TILE["rows"].start
COLUMN_BITS = _TILE["cols"].stop - _TILE["cols"].start
STRIDE_BITS = _TILE["a_stride"].stop - _TILE["a_stride"].start
TILES = ("a", "b", "dst")
"""Operands that may be tiles of the vector SRAM."""


def step_layout(address_bits: int, lanes: int) -> data.StructLayout:
    """What is known of one cycle of an instruction.

    Fields: row and column of its first element; first, last_of_row, last: whether it begins the row, ends it, ends the instruction
    (of an instruction that walks down columns: begins and ends these columns);
    count: elements, at most `lanes`; a, b, dst: element addresses.
    """
    return data.StructLayout(
        {
            "row": ROW_BITS,
            "column": COLUMN_BITS,
            "first": 1,
            "last_of_row": 1,
            "last": 1,
            "count": range(lanes + 1),
            **dict.fromkeys(TILES, address_bits),
        }
    )


class Generator(wiring.Component):
    """Walks rows x columns, a step of columns a cycle, row after row, or down all rows before the next step of columns.

    Ports:
        start: load an instruction; the first step is there in the next cycle.
        rows, columns: at least 1. step: columns per cycle; interval: cycles per step.
        a_base, ...: 48-bit element addresses; a_stride, ...: of rows, in units of 32 elements.
        valid, step_now: a step, in the first cycle of its interval.
        last: the last cycle of the last interval.
        down: walk down the rows of a step of columns before the next; tiles but `a` are then one row.
        outside: a tile that the instruction uses (a_used, ...) leaves the SRAM in this step; misaligned: it does not start at the granule.
        stop: forget the instruction.
    """

    def __init__(self, elements: int, granule: int, lanes: int, longest_interval: int, *, columns: bool = False) -> None:
        """Size the addresses.

        Args:
            elements: capacity of the vector SRAM.
            granule: what addresses must be multiples of.
            lanes: most columns of a step.
            longest_interval: most cycles of a step.
            columns: it can walk `down`.
        """
        self._elements, self._granule, self._lanes, self._columns = elements, granule, lanes, columns
        # An address is checked before the next stride is added, so one more stride must fit.
        self.address_bits = max(elements.bit_length(), STRIDE_BITS + STRIDE_UNIT.bit_length()) + 1
        self.layout = step_layout(self.address_bits, lanes)
        super().__init__(
            {
                "start": In(1),
                "rows": In(ROW_BITS),
                "columns": In(COLUMN_BITS),
                "step": In(range(lanes + 1)),
                "interval": In(range(longest_interval + 1)),
                "down": In(1),
                **{f"{name}_base": In(REGISTER_BITS) for name in TILES},
                **{f"{name}_stride": In(STRIDE_BITS) for name in TILES},
                **{f"{name}_used": In(1) for name in TILES},
                "valid": Out(1),
                "now": Out(self.layout),
                "last": Out(1),
                "outside": Out(1),
                "misaligned": Out(1),
                "stop": In(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        busy, waited = Signal(), Signal.like(self.interval)
        rows, left = Signal(ROW_BITS), Signal(COLUMN_BITS)
        columns, step, interval = Signal(COLUMN_BITS), Signal.like(self.step), Signal.like(self.interval)
        row, column = Signal(ROW_BITS), Signal(COLUMN_BITS)
        done, down, ends_row = Signal(), Signal(), Signal()
        all_rows, origin = Signal(ROW_BITS), Signal(self.address_bits)
        m.d.comb += [
            self.valid.eq(busy & (waited == 0)),
            done.eq(waited + 1 == interval),
            ends_row.eq(left <= step),
            self.now.row.eq(row),
            self.now.column.eq(column),
            self.now.first.eq(Mux(down, row == 0, column == 0)),
            self.now.last_of_row.eq(Mux(down, rows == 1, ends_row)),
            self.now.last.eq(ends_row & (rows == 1)),
            self.now.count.eq(Mux(ends_row, left, step)),
            self.last.eq(busy & self.now.last & done),
        ]
        outside, misaligned = [], []
        for name in TILES:
            base, stride, far, used = (
                Signal(self.address_bits, name=f"{name}_row"),
                Signal(STRIDE_BITS, name=f"{name}_stride_held"),
                Signal(name=f"{name}_far"),
                Signal(name=f"{name}_used_held"),
            )
            given = getattr(self, f"{name}_base")
            m.d.comb += self.now[name].eq(base + column)
            outside.append(used & (far | (base + column + self.now.count > self._elements)))
            misaligned.append(used & ((base & (self._granule - 1)) != 0))
            with m.If(self.start):
                m.d.sync += [
                    base.eq(given),
                    far.eq(given >= self._elements),
                    stride.eq(getattr(self, f"{name}_stride")),
                    used.eq(getattr(self, f"{name}_used")),
                ]
            with m.Elif(busy & done & self.now.last_of_row & down):
                m.d.sync += base.eq(origin if name == "a" else base)
            with m.Elif(busy & done & (down | ends_row)):
                m.d.sync += base.eq(base + stride * STRIDE_UNIT)
        m.d.comb += [self.outside.eq(self.valid & sum(outside).bool()), self.misaligned.eq(self.valid & sum(misaligned).bool())]
        with m.If(busy):
            m.d.sync += waited.eq(Mux(done, 0, waited + 1))
            with m.If(done):
                with m.If(~down | (rows == 1)):
                    m.d.sync += [left.eq(left - step), column.eq(column + step)]
                with m.If(~down & ends_row):
                    m.d.sync += [left.eq(columns), column.eq(0)]
                with m.If(down | ends_row):
                    m.d.sync += [row.eq(row + 1), rows.eq(rows - 1)]
                with m.If(down & (rows == 1)):
                    m.d.sync += [row.eq(0), rows.eq(all_rows)]
                with m.If(self.now.last):
                    m.d.sync += busy.eq(0)
        with m.If(self.start):
            m.d.sync += [
                busy.eq(1),
                waited.eq(0),
                rows.eq(self.rows),
                columns.eq(self.columns),
                left.eq(self.columns),
                step.eq(self.step),
                interval.eq(self.interval),
                row.eq(0),
                column.eq(0),
            ]
            if self._columns:
                m.d.sync += [down.eq(self.down), all_rows.eq(self.rows), origin.eq(self.a_base)]
        with m.If(self.stop):
            m.d.sync += busy.eq(0)
        return m

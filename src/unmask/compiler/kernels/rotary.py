"""Rotary embedding in place (the rotate-half convention)."""

from __future__ import annotations

from unmask.compiler.context import Context, Tile
from unmask.compiler.emitter import Address, Value
from unmask.compiler.memory import ceil_to
from unmask.errors import UnmaskError
from unmask.isa.table import BF16_BYTES, STRIDE_UNIT

TABLES = 3
"""Factors of a position, each `head_dim` long: (cos, cos), (-sin, 0), (0, sin)."""


class Rotary:
    """Tables of some rows of positions, and what turns rows by them.

    A vector holds several heads side by side, and what each channel needs beside itself, the one half a head further or before: the
    first half times -sin from behind and the second one times sin from before; the other half of each of these meets a zero. Where there
    is no room for tables of several heads, each head's halves are turned by themselves.
    """

    SHARE = 6
    """Of the room that is left, one part in so many may be taken so that several heads turn at once."""

    def __init__(self, c: Context, rows: int, head_dim: int, heads: int) -> None:
        """Take the room.

        Args:
            rows: of the tables.
            heads: the most that a row to be turned has.

        Raises:
            UnmaskError: the second half of a head starts where the machine's vectors cannot.
        """
        self.c, self.rows, self.head_dim, self.half = c, rows, head_dim, head_dim // 2
        granule = c.machine.vector.granule
        if self.half % granule:
            raise UnmaskError(
                f"half of a head has {self.half} channels; machine {c.machine.name} needs a multiple of {granule} (vector.granule)"
            )
        fit = c.vector.free // self.SHARE // ((TABLES + 2) * rows * head_dim)
        self.heads = min(heads, max(c.machine.vector.vlen // head_dim, 1), fit)
        width = max(self.heads, 1) * head_dim
        self._tables = [c.tile(rows, width, "rotary tables") for _ in range(TABLES)]

    def stride(self, cols: int) -> int:
        """From row to row of what is turned: half a head or more lies between two."""
        return ceil_to(cols + self.half * (self.heads > 0), STRIDE_UNIT) // STRIDE_UNIT

    def tile(self, rows: int, cols: int, purpose: str) -> Tile:
        """A tile whose rows can be turned; before the first one, too, is half a head or more."""
        length = self.stride(cols) * STRIDE_UNIT
        if self.heads:
            self.c.tile(1, length - cols, purpose)
        tile = self.c.tile(rows, length, purpose)
        return Tile(tile.at, rows, cols, tile.stride)

    def load(self, at: Value) -> None:
        """The tables of the positions whose row in HBM is at `at`."""
        c = self.c
        row_bytes = TABLES * self.head_dim * BF16_BYTES
        source = c.e.var(at)
        for table in self._tables:
            place = c.e.var(table.at)
            with c.e.loop(max(self.heads, 1), {place: self.head_dim}):
                c.load(Tile(Address(place, 0), self.rows, self.head_dim, table.stride), source, row_bytes)
            c.e.advance(source, self.head_dim * BF16_BYTES)
            c.e.release(place)
        c.e.release(source)

    def turn(self, x: Tile, sequences: int) -> None:
        """Rotate every head of the rows of some sequences, each of the tables' rows; `x` is one of `tile`."""
        c = self.c
        step = self.rows * x.stride * STRIDE_UNIT
        start = c.e.var(x.at)
        if self.heads:
            self._clear(x)
        with c.e.loop(sequences, {start: step}):
            part = Tile(Address(start, 0), self.rows, x.cols, x.stride)
            if self.heads:
                self._turn(part)
            else:
                self._turn_heads(part)
        c.e.release(start)

    def _clear(self, x: Tile) -> None:
        """Zeros before the first row and after every row: what lies there meets a zero, which not every BF16 number bears."""
        gap = x.stride * STRIDE_UNIT - x.cols
        self.c.e.emit("V_FILL", dst=x.at + -gap, rows=x.rows + 1, cols=gap, dst_stride=x.stride, value=0.0)

    def _turn(self, x: Tile) -> None:
        c = self.c
        width = self.heads * self.head_dim
        column = c.e.var(x.at)
        with c.vector.scope():
            room = [c.tile(self.rows, width, "the products of a rotation") for _ in range(2)]

            def chunk(count: int) -> None:
                here = Tile(Address(column, 0), self.rows, count, x.stride)
                same, behind, before = (table.columns(0, count) for table in self._tables)
                first, second = (tile.columns(0, count) for tile in room)
                c.binary("V_MUL", first, here.columns(self.half, count), behind)
                c.binary("V_MUL", second, here.columns(-self.half, count), before)
                c.binary("V_ADD", first, first, second)
                c.binary("V_MUL", second, here, same)
                c.binary("V_ADD", here, second, first)

            c.e.tiles(x.cols, width, {column: width}, chunk)
        c.e.release(column)

    def _turn_heads(self, x: Tile) -> None:
        c, half = self.c, self.half
        same, _, before = self._tables
        cos, sin = same.columns(0, half), before.columns(half, half)
        with c.vector.scope():
            first_cos, second_sin, second_cos = (c.tile(x.rows, half, "the products of a rotation") for _ in range(3))
            start = c.e.var(x.at)
            head = x.moved(start)
            first, second = head.columns(0, half), head.columns(half, half)
            with c.e.loop(x.cols // self.head_dim, {start: self.head_dim}):
                c.binary("V_MUL", first_cos, first, cos)
                c.binary("V_MUL", second_sin, second, sin)
                c.binary("V_MUL", second_cos, second, cos)
                c.binary("V_MUL", second, first, sin)
                c.binary("V_SUB", first, first_cos, second_sin)
                c.binary("V_ADD", second, second_cos, second)
            c.e.release(start)

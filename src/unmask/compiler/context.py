"""What every kernel works with: the machine, the emitter, the memories and the row tile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from unmask.compiler.emitter import Address, Emitter, Ring, Value, address
from unmask.compiler.memory import Hbm, Sram, ceil_to
from unmask.isa.table import BY_NAME, STRIDE_UNIT, Engine
from unmask.machine.config import Machine
from unmask.numerics import mx

_FIELDS = {field.name: (1 << field.bits) - 1 for field in BY_NAME["V_ADD"].fields}
_LONGEST_ROW, _LARGEST_STRIDE = _FIELDS["cols"], _FIELDS["dst_stride"]


@dataclass(frozen=True)
class Tile:
    """A BF16 matrix in the vector SRAM; rows are `stride` units of 32 elements apart."""

    at: Address
    rows: int
    cols: int
    stride: int

    def columns(self, start: int, count: int) -> Tile:
        """The columns [start, start + count)."""
        return Tile(self.at + start, self.rows, count, self.stride)

    def moved(self, at: Value) -> Tile:
        """The same shape elsewhere."""
        return Tile(address(at), self.rows, self.cols, self.stride)


@dataclass(frozen=True)
class Tiling:
    """How many rows go through a layer at once: whole sequences, or some rows of one."""

    sequences: int
    rows: int

    @property
    def height(self) -> int:
        return self.sequences * self.rows


def matrix_capacity(machine: Machine) -> int:
    """MX blocks that the matrix SRAM holds in the wider of the formats of weights and KV cache."""
    return machine.matrix_blocks(max(mx.format_named(name).element.bits for name in (machine.formats.weights, machine.formats.kv)))


def capacities(machine: Machine) -> dict[str, int]:
    """What each on-chip memory holds, by the names of `Context.high_water`."""
    return {
        "vector_elements": machine.vector_elements,
        "matrix_blocks": matrix_capacity(machine),
        "float_words": machine.sram.float_words,
        "integer_words": machine.sram.integer_words,
    }


class Context:
    """State of one compilation.

    `lists` has the integer SRAM address and the length of every list of tiles of a mixture's experts that the program makes.

    The vector engine is home: a kernel finds its operands written or ordered before the vector engine's next instruction, and leaves its
    results so.
    """

    def __init__(self, machine: Machine, hbm: Hbm) -> None:
        self.machine, self.hbm, self.e = machine, hbm, Emitter()
        self.weights, self.kv = mx.format_named(machine.formats.weights), mx.format_named(machine.formats.kv)
        self.vector = Sram("vector", machine.vector_elements, "elements", STRIDE_UNIT)
        self.matrix = Sram("matrix", matrix_capacity(machine), "MX blocks", mx.BLOCK)
        self.floats = Sram("float", machine.sram.float_words, "words")
        self.integers = Sram("integer", machine.sram.integer_words, "words")
        slot = self.matrix.free // 2 // mx.BLOCK * mx.BLOCK
        self.lists: list[tuple[int, int]] = []
        self.ring = Ring(self.e, Engine.LOAD, Engine.MATRIX, self.matrix.take(2 * slot, "two tiles"), slot)

    @property
    def high_water(self) -> dict[str, int]:
        """The most that was used of each on-chip memory, by its name and unit."""
        return {
            "vector_elements": self.vector.high_water,
            "matrix_blocks": self.matrix.high_water,
            "float_words": self.floats.high_water,
            "integer_words": self.integers.high_water,
        }

    def tile(self, rows: int, cols: int, purpose: str) -> Tile:
        """A new tile in the vector SRAM."""
        stride = ceil_to(cols, STRIDE_UNIT) // STRIDE_UNIT
        return Tile(Address(None, self.vector.take(rows * stride * STRIDE_UNIT, purpose)), rows, cols, stride)

    def scalars(self, count: int, purpose: str) -> int:
        """A new row of scalars in the float SRAM."""
        return self.floats.take(count, purpose)

    def load(self, tile: Tile, src: Value, row_bytes: int) -> None:
        """HBM to a tile that the vector engine may still be using."""
        self.e.order(Engine.VECTOR, Engine.LOAD)
        self.e.emit("L_VEC", dst=tile.at, src=src, rows=tile.rows, cols=tile.cols, dst_stride=tile.stride, src_stride=row_bytes)
        self.e.order(Engine.LOAD, Engine.VECTOR)

    def store(self, tile: Tile, dst: Value, row_bytes: int) -> None:
        """A tile to HBM."""
        self.e.order(Engine.VECTOR, Engine.STORE)
        self.e.emit("ST_VEC", src=tile.at, dst=dst, rows=tile.rows, cols=tile.cols, src_stride=tile.stride, dst_stride=row_bytes)
        self.e.order(Engine.STORE, Engine.VECTOR)

    def binary(self, name: str, dst: Tile, a: Tile, b: Tile) -> None:
        """dst = a op b, tile by tile; `b` may be a single row."""
        b_stride = b.stride if b.rows == dst.rows else 0
        rows, cols, stride = _rows_together(dst, a, b)
        if stride:
            strides: dict[str, Any] = dict.fromkeys(("dst_stride", "a_stride", "b_stride"), stride)
        else:
            strides = {"dst_stride": dst.stride, "a_stride": a.stride, "b_stride": b_stride}
        self.e.emit(name, dst=dst.at, a=a.at, b=b.at, rows=rows, cols=cols, **strides)

    def unary(self, name: str, dst: Tile, a: Tile, *, wait: tuple[int, ...] = (), **operands: Value | float) -> None:
        """dst = op a, tile by tile; operands but a `value` say something of each row."""
        rows, cols, stride = (dst.rows, dst.cols, 0) if operands.keys() - {"value"} else _rows_together(dst, a)
        shape: dict[str, Any] = {"rows": rows, "cols": cols, "dst_stride": stride or dst.stride, "a_stride": stride or a.stride}
        self.e.emit(name, dst=dst.at, a=a.at, wait=wait, **shape | operands)

    def reduce(
        self, name: str, dst: Value, a: Tile, running: bool = False, *, wait: tuple[int, ...] = (), signal: tuple[int, ...] = ()
    ) -> None:
        """One scalar per row of `a`."""
        shape = {"rows": a.rows, "cols": a.cols, "a_stride": a.stride}
        self.e.emit(name, dst=dst, a=a.at, running=int(running), wait=wait, signal=signal, **shape)


def _rows_together(dst: Tile, *operands: Tile) -> tuple[int, int, int]:
    """Rows, columns and stride of an element-wise instruction over tiles; where all of them lie without gaps, few long rows instead of many
    short ones, so that no lanes idle at the end of each. Otherwise the tiles' own rows and columns, and a stride of 0.
    """
    if any((tile.rows, tile.stride * STRIDE_UNIT) != (dst.rows, dst.cols) for tile in (dst, *operands)):
        return dst.rows, dst.cols, 0
    for rows in range(1, dst.rows):
        cols = dst.rows // rows * dst.cols
        stride = dst.stride if rows == 1 else cols // STRIDE_UNIT
        if not dst.rows % rows and cols <= _LONGEST_ROW and stride <= _LARGEST_STRIDE:
            return rows, cols, stride
    return dst.rows, dst.cols, 0

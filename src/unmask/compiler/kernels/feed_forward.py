"""SwiGLU: down(silu(gate(x)) * up(x))."""

from __future__ import annotations

from unmask.compiler.context import Context, Tile
from unmask.compiler.emitter import Address, Var
from unmask.compiler.kernels.linear import columns_of, product, tile_width
from unmask.compiler.memory import MxMatrix, ceil_to
from unmask.isa.table import STRIDE_UNIT

_COLUMNS = 1024
"""Of a chunk of the up projection: enough that the array seldom waits for the lanes. It is the same for every machine, so that wider lanes
never make row tiles smaller."""


def feed_forward(c: Context, dst: Tile, x: Tile, gate: MxMatrix, up: MxMatrix, down: MxMatrix, layer: Var) -> None:
    """dst = feed-forward of the rows of `x`; `layer` holds the byte offset of the layer's weights. `dst` may be `x`.

    Where the vector SRAM has no room for gate and up projection both, the up projection comes in chunks of columns: row tiles can
    then be taller.
    """
    width = gate.rows
    if c.vector.free < 2 * x.rows * ceil_to(width, STRIDE_UNIT):
        width = _chunk_columns(c, gate)
    with c.vector.scope():
        hidden = c.tile(x.rows, gate.rows, "the gate of the feed-forward")
        other = c.tile(x.rows, width, "a chunk of the up projection of the feed-forward")
        elements, scales, column = c.e.var(layer), c.e.var(layer), c.e.var(hidden.at)

        def chunk(count: int) -> None:
            here, beside = Tile(Address(column, 0), x.rows, count, hidden.stride), Tile(other.at, x.rows, count, other.stride)
            for result, matrix in ((here, gate), (beside, up)):
                columns_of(c, result, x, matrix, Address(elements, matrix.elements), Address(scales, matrix.scales))
            c.unary("V_SILU", here, here)
            c.binary("V_MUL", here, here, beside)

        c.e.tiles(gate.rows, width, {elements: width * gate.row_bytes, scales: width * gate.blocks, column: width}, chunk)
        c.e.release(elements, scales, column)
        product(c, dst, hidden, down, layer)


def least_room(c: Context, rows: int, gate: MxMatrix) -> int:
    """Elements of the vector SRAM that `feed_forward` needs at least beside `dst` and `x`."""
    return rows * (ceil_to(gate.rows, STRIDE_UNIT) + ceil_to(_chunk_columns(c, gate), STRIDE_UNIT))


def _chunk_columns(c: Context, gate: MxMatrix) -> int:
    """Columns of a chunk, in whole tiles of weights where these are narrower."""
    tile = tile_width(c, gate.rows, gate.blocks)
    return min(gate.rows, max(_COLUMNS // tile * tile, min(_COLUMNS, tile)))

"""SwiGLU: down(silu(gate(x)) * up(x))."""

from __future__ import annotations

from unmask.compiler.context import Context, Tile
from unmask.compiler.emitter import Address, Var
from unmask.compiler.kernels.linear import columns_of, product, tile_width
from unmask.compiler.memory import MxMatrix, ceil_to
from unmask.isa.table import STRIDE_UNIT, Engine

_COLUMNS = 1024
"""Of a chunk of the up projection at least: enough that the array seldom waits for the lanes. It does not depend on them, so that wider
lanes never make row tiles smaller."""
_HIDDEN, _CHUNK = "the gate of the feed-forward", "a chunk of the up projection of the feed-forward"


def feed_forward(c: Context, dst: Tile, x: Tile, gate: MxMatrix, up: MxMatrix, down: MxMatrix, layer: Var) -> None:
    """dst = feed-forward of the rows of `x`; `layer` holds the byte offset of the layer's weights. `dst` may be `x`.

    Gate and up projection come in chunks of columns, the latter in two buffers if there is room: while the vector engine works on a
    chunk, the array works on the next one.
    """
    width = _chunk_columns(c, gate)
    room = c.vector.free - x.rows * ceil_to(gate.rows, STRIDE_UNIT)
    buffers = 2 if room >= 2 * x.rows * ceil_to(width, STRIDE_UNIT) else 1
    with (
        c.vector.scope(),
        c.e.handoff(Engine.MATRIX, Engine.VECTOR) as full,
        c.e.handoff(Engine.VECTOR, Engine.MATRIX) as free,
    ):
        hidden = c.tile(x.rows, gate.rows, _HIDDEN)
        others = [c.tile(x.rows, width, _CHUNK) for _ in range(buffers)]
        elements, scales, column = c.e.var(layer), c.e.var(layer), c.e.var(hidden.at)
        strides = {elements: width * gate.row_bytes, scales: width * gate.blocks, column: width}

        def chunk(count: int, number: int, beside: Tile) -> None:
            """The one `number` strides on from where the registers are."""
            places = {var: Address(var, number * stride) for var, stride in strides.items()}
            here, there = Tile(places[column], x.rows, count, hidden.stride), Tile(beside.at, x.rows, count, beside.stride)
            free.take()
            for result, matrix in ((here, gate), (there, up)):
                columns_of(c, result, x, matrix, places[elements] + matrix.elements, places[scales] + matrix.scales)
            full.give()
            full.take()
            c.unary("V_SILU", here, here)
            c.binary("V_MUL", here, here, there)
            free.give()

        for _ in others:
            free.give()
        whole, rest = divmod(gate.rows, width)
        rounds, odd = divmod(whole, buffers)
        if rounds:
            with c.e.loop(rounds, {var: buffers * stride for var, stride in strides.items()}):
                for number, other in enumerate(others):
                    chunk(width, number, other)
        if odd:
            chunk(width, rounds * buffers, others[0])
        if rest:
            chunk(rest, whole, others[whole % buffers])
        for _ in others:
            free.take()
        c.e.release(elements, scales, column)
        product(c, dst, hidden, down, layer)


def check_room(c: Context, rows: int, gate: MxMatrix) -> None:
    """Find out whether `feed_forward` of so many rows fits before anything is emitted that comes before it.

    Raises:
        SramOverflow: as `feed_forward` would.
    """
    with c.vector.scope():
        c.tile(rows, gate.rows, _HIDDEN)
        c.tile(rows, _chunk_columns(c, gate), _CHUNK)


def least_room(c: Context, rows: int, gate: MxMatrix) -> int:
    """Elements of the vector SRAM that `feed_forward` needs at least beside `dst` and `x`."""
    return rows * (ceil_to(gate.rows, STRIDE_UNIT) + ceil_to(_chunk_columns(c, gate), STRIDE_UNIT))


def most_room(c: Context, rows: int, gate: MxMatrix) -> int:
    """Elements of the vector SRAM that `feed_forward` makes use of."""
    return least_room(c, rows, gate) + rows * ceil_to(_chunk_columns(c, gate), STRIDE_UNIT)


def _chunk_columns(c: Context, gate: MxMatrix) -> int:
    """Columns of a chunk, in whole tiles of weights where these are narrower, and as many as the array's rows take together."""
    array, tile = c.machine.matrix, tile_width(c, gate.rows, gate.blocks)
    columns = max(_COLUMNS, ceil_to(array.blen * array.rows, STRIDE_UNIT))
    return min(gate.rows, max(columns // tile * tile, min(columns, tile)))

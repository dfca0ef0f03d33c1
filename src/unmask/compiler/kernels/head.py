"""The LM head: logits of the active block, tile by tile from the array to HBM."""

from __future__ import annotations

from typing import Any

from unmask.compiler.context import Context, Tile
from unmask.compiler.emitter import Ring, Var, address
from unmask.compiler.kernels.linear import Semaphores, load_tile, multiply, tile_width
from unmask.compiler.memory import MxMatrix
from unmask.compiler.sampling.logits import LOGITS_FORMAT, Logits
from unmask.isa.table import STRIDE_UNIT, Engine
from unmask.numerics import mx


def project_logits(c: Context, x: Tile, head: MxMatrix, logits: Logits, first_row: int) -> None:
    """Rows `first_row` and on of the logits in HBM = x head^T, in the logits' own format.

    Args:
        c: the matrix SRAM streams the head's tiles; two tiles of logits are kept in the vector SRAM.
        x: [rows, width] in the vector SRAM.
        head: [vocabulary, width] in HBM.
        logits: where they go; `first_row` is counted over all sequences.
    """
    with c.vector.scope():
        fit = c.vector.free // (2 * x.rows) // STRIDE_UNIT * STRIDE_UNIT
        width = tile_width(c, head.rows, head.blocks, fit)
        stride = -(-width // STRIDE_UNIT)
        size = x.rows * stride * STRIDE_UNIT
        ring = Ring(c.e, Engine.MATRIX, Engine.STORE, c.vector.take(2 * size, f"two tiles of logits of {x.rows} rows"), size)
        e, s, out = c.e.var(head.elements), c.e.var(head.scales), c.e.var(logits.at + first_row * logits.row_bytes)
        strides: dict[Var, int] = {e: width * head.row_bytes, s: width * head.blocks, out: logits.bytes_of(width)}
        scales = None
        if logits.form is not None:
            scales = c.e.var(logits.scales + first_row * logits.row_blocks)
            strides[scales] = width // mx.BLOCK
        c.e.order(Engine.VECTOR, Engine.MATRIX)

        def store(slot: Var, count: int, wait: Semaphores, signal: Semaphores) -> None:
            shape: dict[str, Any] = {"rows": x.rows, "cols": count, "src_stride": stride, "wait": wait, "signal": signal}
            if scales is None:
                c.e.emit("ST_VEC", src=slot, dst=out, dst_stride=logits.row_bytes, **shape)
            else:
                c.e.emit("ST_MX", src=slot, dst=out, scales=scales, dst_stride=logits.row_blocks, format=LOGITS_FORMAT, **shape)

        def tile(count: int) -> None:
            load_tile(c, head, e, s, count, x.cols, kv=False)
            with ring.produce() as (slot, wait, signal):
                multiply(c, Tile(address(slot), x.rows, count, stride), x, count, wait=wait, signal=signal)
            with ring.consume() as (slot, wait, signal):
                store(slot, count, wait, signal)

        c.e.tiles(head.rows, width, strides, tile)
        c.e.order(Engine.MATRIX, Engine.VECTOR)
        c.e.order(Engine.STORE, Engine.VECTOR)
        c.e.release(*strides)
        ring.release()

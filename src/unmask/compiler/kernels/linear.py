"""Matrix products: tiles of the right operand stream through a two-slot ring while the array works."""

from __future__ import annotations

from collections.abc import Callable

from unmask.compiler.context import Context, Tile
from unmask.compiler.emitter import Value, Var, address
from unmask.compiler.memory import MxMatrix, SramOverflow, ceil_to
from unmask.isa.table import STRIDE_UNIT, Engine
from unmask.numerics import mx

Semaphores = tuple[int, ...]


def tile_width(c: Context, n: int, blocks_per_row: int) -> int:
    """Rows of a right operand per tile: all of them, or a multiple of 32 that fits a slot of the ring and makes tiles of about one size:
    a small one would hold a slot while a large one could be loaded.

    Raises:
        SramOverflow: not even 32 rows fit.
    """
    fit = c.ring.size // blocks_per_row
    if fit < min(n, STRIDE_UNIT):
        raise SramOverflow(
            f"the matrix SRAM cannot hold two tiles of {min(n, STRIDE_UNIT)} rows of {blocks_per_row} MX blocks: a slot has {c.ring.size}"
        )
    if fit >= n:
        return n
    most = fit // STRIDE_UNIT * STRIDE_UNIT
    return ceil_to(-(-n // -(-n // most)), STRIDE_UNIT)


def load_tile(c: Context, b: MxMatrix, elements: Value, scales: Value, rows: int, cols: int, kv: bool) -> None:
    """The next tile of a right operand, from HBM to the ring."""
    with c.ring.produce() as (slot, wait, signal):
        c.e.emit(
            "L_MAT",
            dst=slot,
            src=elements,
            scales=scales,
            rows=rows,
            cols=cols,
            src_stride=b.blocks,
            format=int(kv),
            wait=wait,
            signal=signal,
        )


def multiply(
    c: Context,
    dst: Tile,
    a: Tile,
    n: int,
    *,
    kv: bool = False,
    transposed: bool = False,
    wait: Semaphores = (),
    signal: Semaphores = (),
) -> None:
    """`n` columns of the result, from the ring's next tile."""
    with c.ring.consume() as (slot, full, free):
        c.e.emit(
            "M_MM",
            dst=dst.at,
            a=a.at,
            b=slot,
            m=a.rows,
            n=n,
            k=a.cols,
            dst_stride=dst.stride,
            a_stride=a.stride,
            transposed=int(transposed),
            format=int(kv),
            wait=(*full, *wait),
            signal=(*free, *signal),
        )


def product(c: Context, dst: Tile, a: Tile, b: MxMatrix, offset: Value = 0, kv: bool = False) -> None:
    """dst [m, n] = a [m, k] b^T for the rows of `b` [n, k].

    Args:
        offset: bytes to add to the addresses of `b`, the same for elements and scales.
        kv: `b` is in the KV format.
    """
    start = address(offset)
    columns_of(c, dst, a, b, start + b.elements, start + b.scales, kv)


def columns_of(c: Context, dst: Tile, a: Tile, b: MxMatrix, elements: Value, scales: Value, kv: bool = False) -> None:
    """`product` for the rows of `b` that start at the given addresses, as many as `dst` has columns."""
    width = tile_width(c, dst.cols, mx_blocks(a.cols))
    e, s, column = c.e.var(elements), c.e.var(scales), c.e.var(dst.at)
    strides: dict[Var, int] = {e: width * b.row_bytes, s: width * b.blocks, column: width}
    c.e.order(Engine.VECTOR, Engine.MATRIX)

    def tile(count: int) -> None:
        load_tile(c, b, e, s, count, a.cols, kv)
        multiply(c, dst.moved(column), a, count, kv=kv)

    c.e.tiles(dst.cols, width, strides, tile)
    c.e.order(Engine.MATRIX, Engine.VECTOR)
    c.e.release(e, s, column)


def transposed_product(
    c: Context, dst: Tile, a: Tile, b: MxMatrix, elements: Value, scales: Value, meanwhile: Callable[[], None] = lambda: None
) -> None:
    """dst [m, n] = a [m, k] b for the first k rows and n columns of `b`, a KV matrix that is read down its columns.

    Args:
        elements, scales: addresses of the first block of columns.
        meanwhile: emits what the vector engine does beside the array; it neither reads `dst` nor writes `a` or `dst`.
    """
    fit = c.ring.size // a.cols * mx.BLOCK
    if fit < mx.BLOCK:
        raise SramOverflow(f"the matrix SRAM cannot hold two tiles of {a.cols} rows of one MX block of V: a slot has {c.ring.size} blocks")
    c.e.order(Engine.VECTOR, Engine.MATRIX)
    for first in range(0, dst.cols, fit):
        count, block = min(fit, dst.cols - first), first // mx.BLOCK
        block_bytes = mx.BLOCK * b.format.element.bits // 8
        load_tile(c, b, address(elements) + block * block_bytes, address(scales) + block, a.cols, count, kv=True)
        multiply(c, dst.columns(first, count), a, count, kv=True, transposed=True)
    meanwhile()
    c.e.order(Engine.MATRIX, Engine.VECTOR)


def mx_blocks(length: int) -> int:
    """MX blocks of a row of `length` elements."""
    return mx.padded(length) // mx.BLOCK

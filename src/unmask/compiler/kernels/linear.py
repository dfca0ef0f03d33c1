"""Matrix products: tiles of the right operand stream through a two-slot ring while the array works."""

from __future__ import annotations

from math import lcm
from typing import Any

from unmask.compiler.context import Context, Tile
from unmask.compiler.emitter import Value, Var, address
from unmask.compiler.memory import MxMatrix, SramOverflow, ceil_to
from unmask.isa.table import STRIDE_UNIT, Engine
from unmask.numerics import mx

Semaphores = tuple[int, ...]


def tile_width(c: Context, n: int, blocks_per_row: int, most: int | None = None) -> int:
    """Rows of a right operand per tile: all of them, or a multiple of 32 that fits a slot of the ring and makes tiles of about one size:
    a small one would hold a slot while a large one could be loaded. It is one of the columns that the array's rows take together, if as
    many fit: what is left of them would be idle.

    Args:
        most: rows, where something else than the ring limits them.

    Raises:
        SramOverflow: not even 32 rows fit.
    """
    fit = c.ring.size // blocks_per_row
    if fit < min(n, STRIDE_UNIT):
        raise SramOverflow(
            f"the matrix SRAM cannot hold two tiles of {min(n, STRIDE_UNIT)} rows of {blocks_per_row} MX blocks: a slot has {c.ring.size}"
        )
    if most is not None:
        fit = min(fit, max(most, STRIDE_UNIT))
    if fit >= n:
        return n
    array = c.machine.matrix
    unit = lcm(STRIDE_UNIT, array.blen * array.rows)
    if fit < unit:
        unit = STRIDE_UNIT
    return ceil_to(-(-n // -(-n // (fit // unit * unit))), unit)


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
        multiply_by(c, dst, a, slot, n, kv=kv, transposed=transposed, wait=(*full, *wait), signal=(*free, *signal))


def multiply_by(
    c: Context,
    dst: Tile,
    a: Tile,
    b: Value,
    n: int,
    *,
    kv: bool = False,
    transposed: bool = False,
    wait: Semaphores = (),
    signal: Semaphores = (),
) -> None:
    """`n` columns of the result, from a tile at address `b` of the matrix SRAM."""
    shape: dict[str, Any] = {"m": a.rows, "n": n, "k": a.cols, "dst_stride": dst.stride, "a_stride": a.stride}
    form: dict[str, Any] = {"transposed": int(transposed), "format": int(kv)}
    c.e.emit("M_MM", dst=dst.at, a=a.at, b=b, wait=wait, signal=signal, **shape, **form)


def product(c: Context, dst: Tile, a: Tile, b: MxMatrix, offset: Value = 0, kv: bool = False, *, ready: bool = False) -> None:
    """dst [m, n] = a [m, k] b^T for the rows of `b` [n, k].

    Args:
        offset: bytes to add to the addresses of `b`, the same for elements and scales.
        kv: `b` is in the KV format.
        ready: the array need not wait for the vector engine: `a` is written, and `dst` is free, as an earlier product found.
    """
    start = address(offset)
    if not ready:
        c.e.order(Engine.VECTOR, Engine.MATRIX)
    columns_of(c, dst, a, b, start + b.elements, start + b.scales, kv)
    c.e.order(Engine.MATRIX, Engine.VECTOR)


def columns_of(c: Context, dst: Tile, a: Tile, b: MxMatrix, elements: Value, scales: Value, kv: bool = False) -> None:
    """`product` for the rows of `b` that start at the given addresses, as many as `dst` has columns, whatever the vector engine does."""
    width = tile_width(c, dst.cols, mx_blocks(a.cols))
    e, s, column = c.e.var(elements), c.e.var(scales), c.e.var(dst.at)
    strides: dict[Var, int] = {e: width * b.row_bytes, s: width * b.blocks, column: width}

    def tile(count: int) -> None:
        load_tile(c, b, e, s, count, a.cols, kv)
        multiply(c, dst.moved(column), a, count, kv=kv)

    c.e.tiles(dst.cols, width, strides, tile)
    c.e.release(e, s, column)


def transposed_product(c: Context, dst: Tile, a: Tile, b: MxMatrix, elements: Value, scales: Value) -> None:
    """dst [m, n] = a [m, k] b for the first k rows and n columns of `b`, a KV matrix that is read down its columns, whatever the vector
    engine does.

    Args:
        elements, scales: addresses of the first block of columns.
    """
    fit = c.ring.size // a.cols * mx.BLOCK
    if fit < mx.BLOCK:
        raise SramOverflow(f"the matrix SRAM cannot hold two tiles of {a.cols} rows of one MX block of V: a slot has {c.ring.size} blocks")
    for first in range(0, dst.cols, fit):
        count, block = min(fit, dst.cols - first), first // mx.BLOCK
        block_bytes = mx.BLOCK * b.format.element.bits // 8
        load_tile(c, b, address(elements) + block * block_bytes, address(scales) + block, a.cols, count, kv=True)
        multiply(c, dst.columns(first, count), a, count, kv=True, transposed=True)


def mx_blocks(length: int) -> int:
    """MX blocks of a row of `length` elements."""
    return mx.padded(length) // mx.BLOCK

"""Bidirectional attention of a tile of queries over all positions, head by head."""

from __future__ import annotations

from dataclasses import dataclass

from unmask.compiler.context import Context, Tile
from unmask.compiler.emitter import Address
from unmask.compiler.kernels.linear import columns_of, mx_blocks, transposed_product
from unmask.compiler.memory import MxMatrix
from unmask.isa.table import Engine
from unmask.numerics import functions, mx


@dataclass(frozen=True)
class KvCache:
    """K and V of one layer in HBM: each head's rows are MX blocks of their own along the head dimension.

    `keys` and `values` are [positions, heads * padded head_dim]; `head_blocks` MX blocks belong to a head.
    """

    keys: MxMatrix
    values: MxMatrix
    heads: int
    head_dim: int

    @property
    def head_blocks(self) -> int:
        return mx_blocks(self.head_dim)

    @property
    def head_bytes(self) -> int:
        return self.head_blocks * mx.BLOCK * self.keys.format.element.bits // 8


def store_heads(c: Context, cache: KvCache, matrix: MxMatrix, x: Tile, elements: Address, scales: Address) -> None:
    """Pack the rows of `x` [rows, heads * head_dim] to the cache's rows that start at the given addresses."""
    c.e.order(Engine.VECTOR, Engine.STORE)
    whole_rows = cache.head_dim % mx.BLOCK == 0
    heads, cols = (1, x.cols) if whole_rows else (cache.heads, cache.head_dim)
    source, e, s = c.e.var(x.at), c.e.var(elements), c.e.var(scales)
    with c.e.loop(heads, {source: cols, e: cache.head_bytes, s: cache.head_blocks}):
        c.e.emit("ST_MX", src=source, dst=e, scales=s, rows=x.rows, cols=cols, src_stride=x.stride, dst_stride=matrix.blocks, format=1)
    c.e.order(Engine.STORE, Engine.VECTOR)
    c.e.release(source, e, s)


def attend(c: Context, context: Tile, queries: Tile, cache: KvCache, positions: int) -> None:
    """context [rows, heads * head_dim] = softmax(q k^T / sqrt(head_dim)) v over the first `positions` rows of the cache.

    Exponentials stay unnormalised until after the product with V; each row is then scaled by the reciprocal of its sum.
    """
    rows, head_dim = queries.rows, cache.head_dim
    group = queries.cols // head_dim // cache.heads
    with c.vector.scope(), c.floats.scope():
        scores = c.tile(rows, positions, f"the scores of {rows} x {positions} positions")
        top, total = c.scalars(rows, "row maxima"), c.scalars(rows, "row sums")
        q, out = c.e.var(queries.at), c.e.var(context.at)
        parts = [(matrix.elements, matrix.scales) for matrix in (cache.keys, cache.values)]
        (k_e, k_s), (v_e, v_s) = ((c.e.var(elements), c.e.var(scales)) for elements, scales in parts)
        query = Tile(Address(q, 0), rows, head_dim, queries.stride)
        result = Tile(Address(out, 0), rows, head_dim, context.stride)
        kv_strides = {k_e: cache.head_bytes, k_s: cache.head_blocks, v_e: cache.head_bytes, v_s: cache.head_blocks}
        with c.e.loop(cache.heads, {**kv_strides, q: group * head_dim, out: group * head_dim}):  # noqa: SIM117
            with c.e.loop(group, {q: head_dim, out: head_dim}):
                columns_of(c, scores, query, cache.keys, k_e, k_s, kv=True)
                c.unary("V_MUL_I", scores, scores, value=functions.softmax_scale(head_dim))
                c.reduce("V_RED_MAX", top, scores)
                c.unary("V_SUB_F", scores, scores, f=top)
                c.unary("V_EXP", scores, scores)
                c.reduce("V_RED_SUM", total, scores)
                c.e.emit("F_RECIP", dst=total, a=total, count=rows)
                transposed_product(c, result, scores, cache.values, v_e, v_s)
                c.unary("V_MUL_F", result, result, f=total)
        c.e.release(q, out, k_e, k_s, v_e, v_s)

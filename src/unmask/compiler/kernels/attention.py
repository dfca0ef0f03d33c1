"""Bidirectional attention of a tile of queries over all positions, head by head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from unmask.compiler.context import Context, Tile
from unmask.compiler.emitter import Address, Var
from unmask.compiler.kernels.linear import columns_of, transposed_product
from unmask.compiler.memory import MxMatrix
from unmask.isa.table import Engine
from unmask.numerics import functions


@dataclass(frozen=True)
class KvCache:
    """K and V in HBM, one image per layer, `layer_bytes` apart: sequence after sequence, head after head, rows of canvas positions, each of
    MX blocks of its own along the head dimension. A head's rows lie together, so that attention streams them.

    `keys` and `values` are those of layer 0 and of all sequences, [sequences * heads * positions, padded head_dim].
    """

    keys: MxMatrix
    values: MxMatrix
    positions: int
    heads: int
    head_dim: int
    layer_bytes: int

    @property
    def head_bytes(self) -> int:
        """Element bytes of one head's rows of a sequence, of either matrix."""
        return self.positions * self.keys.row_bytes

    @property
    def head_blocks(self) -> int:
        """Scale bytes of one head's rows of a sequence, of either matrix."""
        return self.positions * self.keys.blocks

    @property
    def sequence_bytes(self) -> int:
        """Element bytes of one sequence's rows, of either matrix."""
        return self.heads * self.head_bytes

    @property
    def sequence_blocks(self) -> int:
        """Scale bytes of one sequence's rows, of either matrix."""
        return self.heads * self.head_blocks


def store_heads(c: Context, cache: KvCache, x: Tile, elements: Address, scales: Address) -> None:
    """Pack the rows of `x` [rows, heads * head_dim] to the rows of the cache's first head that start at the given addresses, and so on."""
    c.e.order(Engine.VECTOR, Engine.STORE)
    source, e, s = c.e.var(x.at), c.e.var(elements), c.e.var(scales)
    with c.e.loop(cache.heads, {source: cache.head_dim, e: cache.head_bytes, s: cache.head_blocks}):
        shape: dict[str, Any] = {"rows": x.rows, "cols": cache.head_dim, "src_stride": x.stride, "dst_stride": cache.keys.blocks}
        c.e.emit("ST_MX", src=source, dst=e, scales=s, format=1, **shape)
    c.e.order(Engine.STORE, Engine.VECTOR)
    c.e.release(source, e, s)


def attend(c: Context, context: Var, queries: Var, shape: Tile, cache: KvCache, elements: Var, scales: Var, unseen: Tile | None) -> None:
    """context [rows, heads * head_dim] = softmax(q k^T / sqrt(head_dim)) v over one sequence's rows of the cache.

    Exponentials stay unnormalised until after the product with V; each row is then scaled by the reciprocal of its sum.

    Args:
        context, queries: registers with the vector SRAM addresses of two tiles, both of the `shape` of one; on return as they were.
        elements, scales: registers with what to add to the addresses of `cache.keys` and `cache.values` to come to the layer and the
            sequence; on return as they were.
        unseen: [rows or 1, positions], -inf where a key must not be seen, else 0; None if all are seen.
    """
    rows, head_dim = shape.rows, cache.head_dim
    group = shape.cols // head_dim // cache.heads
    query, result = (Tile(Address(at, 0), rows, head_dim, shape.stride) for at in (queries, context))
    with c.vector.scope(), c.floats.scope():
        scores = c.tile(rows, cache.positions, f"the scores of {rows} x {cache.positions} positions")
        top, total = c.scalars(rows, "row maxima"), c.scalars(rows, "row sums")
        heads = {
            elements: cache.head_bytes,
            scales: cache.head_blocks,
            queries: group * head_dim,
            context: group * head_dim,
        }
        (k_e, k_s), (v_e, v_s) = (
            (Address(elements, matrix.elements), Address(scales, matrix.scales)) for matrix in (cache.keys, cache.values)
        )

        def add_up() -> None:
            c.reduce("V_RED_SUM", total, scores)
            c.e.emit("F_RECIP", dst=total, a=total, count=rows)

        with c.e.loop(cache.heads, heads), c.e.loop(group, {queries: head_dim, context: head_dim}):
            columns_of(c, scores, query, cache.keys, k_e, k_s, kv=True)
            c.unary("V_MUL_I", scores, scores, value=functions.softmax_scale(head_dim))
            if unseen is not None:
                c.binary("V_ADD", scores, scores, unseen)
            c.reduce("V_RED_MAX", top, scores)
            c.unary("V_SUB_F", scores, scores, f=top)
            c.unary("V_EXP", scores, scores)
            transposed_product(c, result, scores, cache.values, v_e, v_s, add_up)
            c.unary("V_MUL_F", result, result, f=total)

"""K and V in HBM, and the way there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from unmask.compiler.context import Context, Tile
from unmask.compiler.emitter import Address
from unmask.compiler.memory import MxMatrix


@dataclass(frozen=True)
class KvCache:
    """K and V in HBM, one image per layer, `layer_bytes` apart: sequence after sequence, head after head, rows of canvas positions, each of
    MX blocks of its own along the head dimension. A head's rows lie together, so that attention streams them.

    `keys` and `values` are those of layer 0 and of all sequences, [sequences * heads * positions, padded head_dim]. `ones`, [positions,
    padded head_dim], is there where the array adds up what attention weighs values with.
    """

    keys: MxMatrix
    values: MxMatrix
    positions: int
    heads: int
    head_dim: int
    layer_bytes: int
    ones: MxMatrix | None = None

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
    """Pack the rows of `x` [rows, heads * head_dim] to the rows of the cache's first head that start at the given addresses, and so on.
    The store engine has to wait for whoever wrote `x`, and whoever writes it again for the store engine.
    """
    source, e, s = c.e.var(x.at), c.e.var(elements), c.e.var(scales)
    with c.e.loop(cache.heads, {source: cache.head_dim, e: cache.head_bytes, s: cache.head_blocks}):
        shape: dict[str, Any] = {"rows": x.rows, "cols": cache.head_dim, "src_stride": x.stride, "dst_stride": cache.keys.blocks}
        c.e.emit("ST_MX", src=source, dst=e, scales=s, format=1, **shape)
    c.e.release(source, e, s)

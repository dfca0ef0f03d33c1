"""From the residual stream to queries, keys and values: norm, projections, rotary embedding, and the way into the cache."""

from __future__ import annotations

from dataclasses import dataclass

from unmask.compiler.context import Context, Tile
from unmask.compiler.emitter import Address, Var
from unmask.compiler.kernels.attention import KvCache, store_heads
from unmask.compiler.kernels.linear import columns_of
from unmask.compiler.kernels.norm import head_norm, rms_norm
from unmask.compiler.kernels.rotary import Rotary
from unmask.compiler.kernels.smoothing import KvSmoothing, Operand
from unmask.compiler.network import NetworkImage
from unmask.isa.table import STRIDE_UNIT, Engine
from unmask.models.layers import Architecture

_NORM = "attention_norm"


@dataclass(frozen=True)
class Place:
    """Where rows go in the cache.

    Attributes:
        sequences: whose rows there are, the same number of each.
        elements, scales: what to add to the addresses of the cache to come to the layer and the first row.
    """

    sequences: int
    elements: Address
    scales: Address


class Projection:
    """Emits the first half of a layer's attention."""

    def __init__(
        self,
        c: Context,
        network: NetworkImage,
        layer: Var,
        vectors: dict[str, Tile],
        cache: KvCache,
        smoothing: KvSmoothing | None,
    ) -> None:
        """Set what to emit; `vectors` are those of `vectors` that the network has."""
        self.c, self.network, self.layer, self.of, self.cache, self.smoothing = c, network, layer, vectors, cache, smoothing
        self.shape = network.architecture

    @staticmethod
    def vectors(shape: Architecture) -> dict[str, int]:
        """Names and lengths of the vectors that a network of this shape may need."""
        widths = Projection._widths(shape)
        return {_NORM: shape.width, **{f"{name}_norm": shape.head_dim for name in ("query", "key")}} | {
            f"{name}.bias": width for name, width in widths.items()
        }

    @staticmethod
    def _widths(shape: Architecture) -> dict[str, int]:
        kv_width = shape.kv_heads * shape.head_dim
        return {"key": kv_width, "value": kv_width, "query": shape.width}

    def emit(self, stream: Tile, rotary: Rotary, place: Place, queries: Tile | None = None) -> Tile:
        """The queries of the rows of a tile, whose keys and values go to the cache; to `queries`, a tile of `rotary`, or to a new one.

        Where there is room for all three, the array projects one while the vector engine rotates another.
        """
        c, height, widths = self.c, stream.rows, self._widths(self.shape)
        normed = c.tile(height, self.shape.width, "a tile of activations")
        rms_norm(c, normed, stream, self.of[_NORM], self.shape.norm_eps)
        new = {name: width for name, width in widths.items() if name != "query" or queries is None}
        each = height * sum(rotary.stride(width) * STRIDE_UNIT for width in new.values()) + len(new) * rotary.stride(self.shape.width) * STRIDE_UNIT
        if each > c.vector.free:
            shared = queries or rotary.tile(height, max(widths.values()), "a projection")
            return self._in_turn(normed, shared, rotary, place)
        tiles = {name: rotary.tile(height, width, f"the projection to {name}") for name, width in new.items()}
        if queries is not None:
            tiles["query"] = queries
        self._together(normed, tiles, rotary, place)
        return tiles["query"]

    def _in_turn(self, normed: Tile, shared: Tile, rotary: Rotary, place: Place) -> Tile:
        c = self.c
        for name, width in self._widths(self.shape).items():
            tile = Tile(shared.at, shared.rows, width, shared.stride)
            c.e.order(Engine.VECTOR, Engine.MATRIX)
            self._multiply(name, tile, normed)
            c.e.order(Engine.MATRIX, Engine.VECTOR)
            self._finish(name, tile, rotary, place)
            c.e.order(Engine.STORE, Engine.VECTOR)
        return Tile(shared.at, shared.rows, self.shape.width, shared.stride)

    def _together(self, normed: Tile, tiles: dict[str, Tile], rotary: Rotary, place: Place) -> None:
        c = self.c
        c.e.order(Engine.VECTOR, Engine.MATRIX)
        with c.e.handoff(Engine.MATRIX, Engine.VECTOR) as projected:
            for name in self._widths(self.shape):
                self._multiply(name, tiles[name], normed)
                projected.give()
            for name in self._widths(self.shape):
                projected.take()
                self._finish(name, tiles[name], rotary, place)
        c.e.order(Engine.STORE, Engine.VECTOR)

    def _multiply(self, name: str, dst: Tile, normed: Tile) -> None:
        matrix = self.network.matrices[name]
        columns_of(self.c, dst, normed, matrix, Address(self.layer, matrix.elements), Address(self.layer, matrix.scales))

    def _finish(self, name: str, x: Tile, rotary: Rotary, place: Place) -> None:
        """Bias, norm of heads, rotary embedding, and the way to the cache, as far as there are any."""
        if f"{name}.bias" in self.of:
            self.c.binary("V_ADD", x, x, self.of[f"{name}.bias"])
        if f"{name}_norm" in self.of:
            head_norm(self.c, x, self.of[f"{name}_norm"], self.shape.norm_eps)
        if name != "value":
            rotary.turn(x, place.sequences)
        if name != "query":
            self._store(Operand.KEYS if name == "key" else Operand.VALUES, x, place)

    def _store(self, operand: Operand, x: Tile, place: Place) -> None:
        """Rows of K or V to the cache."""
        c, cache, rows = self.c, self.cache, x.rows // place.sequences
        matrix = cache.keys if operand is Operand.KEYS else cache.values
        elements, scales = place.elements + matrix.elements, place.scales + matrix.scales
        if self.smoothing is not None:
            self.smoothing.store(operand, x, place.sequences, elements, scales)
            return
        source, e, s = c.e.var(x.at), c.e.var(elements), c.e.var(scales)
        with c.e.loop(place.sequences, {source: rows * x.stride * STRIDE_UNIT, e: cache.sequence_bytes, s: cache.sequence_blocks}):
            store_heads(c, cache, Tile(Address(source, 0), rows, x.cols, x.stride), Address(e, 0), Address(s, 0))
        c.e.release(source, e, s)

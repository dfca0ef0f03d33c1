"""From the residual stream to queries, keys and values: norm, projections, rotary embedding, and the way into the cache."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from unmask.compiler.context import Context, Tile
from unmask.compiler.emitter import Address, Value, Var
from unmask.compiler.kernels.cache import KvCache, store_heads
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

    def room(self, height: int, rotary: Rotary) -> int:
        """Elements of the vector SRAM that tiles for queries, keys and values take."""
        return sum((height + 1) * rotary.stride(width) * STRIDE_UNIT for width in self._widths(self.shape).values())

    def tiles(self, height: int, rotary: Rotary, names: Iterable[str]) -> dict[str, Tile]:
        """A tile for each of some of queries, keys and values."""
        widths = self._widths(self.shape)
        return {name: rotary.tile(height, widths[name], f"the projection to {name}") for name in names}

    def emit(self, stream: Tile, rotary: Rotary, place: Place, tiles: dict[str, Tile] | None = None) -> Tile:
        """The queries of the rows of a tile of the residual stream; keys and values go to the cache.

        Where there is room for all three, the array projects one while the vector engine rotates another.

        Args:
            tiles: where all three stay, nothing being stored yet.
        """
        c, height = self.c, stream.rows
        normed = c.tile(height, self.shape.width, "a tile of activations")
        rms_norm(c, normed, stream, self.of[_NORM], self.shape.norm_eps)
        if tiles is None and self.room(height, rotary) > c.vector.free:
            return self._in_turn(normed, rotary.tile(height, max(self._widths(self.shape).values()), "a projection"), rotary, place)
        of = tiles or self.tiles(height, rotary, self._widths(self.shape))
        c.e.order(Engine.VECTOR, Engine.MATRIX)
        with c.e.handoff(Engine.MATRIX, Engine.VECTOR) as projected:
            for name in of:
                self._multiply(name, of[name], normed)
                projected.give()
            for name in of:
                projected.take()
                self._finish(name, of[name], rotary, place)
        if tiles is None:
            for name in ("key", "value"):
                self.store(name, of[name], place)
            c.e.order(Engine.STORE, Engine.VECTOR)
        return of["query"]

    def _in_turn(self, normed: Tile, shared: Tile, rotary: Rotary, place: Place) -> Tile:
        c = self.c
        for name, width in self._widths(self.shape).items():
            tile = Tile(shared.at, shared.rows, width, shared.stride)
            c.e.order(Engine.VECTOR, Engine.MATRIX)
            self._multiply(name, tile, normed)
            c.e.order(Engine.MATRIX, Engine.VECTOR)
            self._finish(name, tile, rotary, place)
            if name != "query":
                self.store(name, tile, place)
                c.e.order(Engine.STORE, Engine.VECTOR)
        return Tile(shared.at, shared.rows, self.shape.width, shared.stride)

    def _multiply(self, name: str, dst: Tile, normed: Tile) -> None:
        matrix = self.network.matrices[name]
        columns_of(self.c, dst, normed, matrix, Address(self.layer, matrix.elements), Address(self.layer, matrix.scales))

    def _finish(self, name: str, x: Tile, rotary: Rotary, place: Place) -> None:
        """Bias, norm of heads and rotary embedding, as far as there are any."""
        if f"{name}.bias" in self.of:
            self.c.binary("V_ADD", x, x, self.of[f"{name}.bias"])
        if f"{name}_norm" in self.of:
            head_norm(self.c, x, self.of[f"{name}_norm"], self.shape.norm_eps)
        if name != "value":
            rotary.turn(x, place.sequences)

    def store(self, name: str, x: Tile, place: Place) -> None:
        """Rows of keys or values to the cache."""
        c, cache, rows = self.c, self.cache, x.rows // place.sequences
        matrix = cache.keys if name == "key" else cache.values
        elements, scales = place.elements + matrix.elements, place.scales + matrix.scales
        c.e.order(Engine.VECTOR, Engine.STORE)
        if self.smoothing is not None:
            self.smoothing.store(Operand.KEYS if name == "key" else Operand.VALUES, x, place.sequences, elements, scales)
            return
        source, e, s = c.e.var(x.at), c.e.var(elements), c.e.var(scales)
        with c.e.loop(place.sequences, {source: rows * x.stride * STRIDE_UNIT, e: cache.sequence_bytes, s: cache.sequence_blocks}):
            store_heads(c, cache, Tile(Address(source, 0), rows, x.cols, x.stride), Address(e, 0), Address(s, 0))
        c.e.release(source, e, s)


class FreshRows:
    """Keys and values that `Projection` left in the vector SRAM, an `unmask.compiler.kernels.attention.Fresh`."""

    def __init__(self, c: Context, cache: KvCache, tiles: dict[str, Tile], rows: int, elements: Value, scales: Value) -> None:
        """Set what is stored.

        Args:
            rows: of a sequence.
            elements, scales: what to add to the addresses of the cache to come to the layer and the first row of the first sequence.
        """
        self.c, self.cache, self._tiles, self._rows = c, cache, (tiles["key"], tiles["value"]), rows
        self._source, self._elements, self._scales = c.e.var(0), c.e.var(elements), c.e.var(scales)
        step = rows * tiles["key"].stride * STRIDE_UNIT
        self.strides = {self._source: step, self._elements: cache.sequence_bytes, self._scales: cache.sequence_blocks}

    def store(self, sequences: int) -> None:
        """See `Fresh`."""
        source, elements, scales = (Address(var, sequences * stride) for var, stride in self.strides.items())
        for tile, matrix in zip(self._tiles, (self.cache.keys, self.cache.values), strict=True):
            part = Tile(source + tile.at.offset, self._rows, tile.cols, tile.stride)
            store_heads(self.c, self.cache, part, elements + matrix.elements, scales + matrix.scales)

    def release(self) -> None:
        """Give the registers back."""
        self.c.e.release(*self.strides)

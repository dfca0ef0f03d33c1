"""The transformer of a denoising step: token ids in HBM to the residual stream of the rows that are fed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from unmask.compiler.context import Context, Tile, Tiling
from unmask.compiler.emitter import Address, Var
from unmask.compiler.kernels.attention import KvCache, attend
from unmask.compiler.kernels.experts import add_mixture
from unmask.compiler.kernels.feed_forward import feed_forward, most_room
from unmask.compiler.kernels.linear import product
from unmask.compiler.kernels.norm import rms_norm
from unmask.compiler.kernels.projection import Place, Projection
from unmask.compiler.kernels.rotary import TABLES, Rotary
from unmask.compiler.kernels.smoothing import KvSmoothing, SmoothingBuffers, Strides
from unmask.compiler.memory import ceil_to
from unmask.compiler.network import NetworkImage
from unmask.isa.table import BF16_BYTES, INT32_BYTES, STRIDE_UNIT, Engine


@dataclass(frozen=True)
class Feed:
    """The rows that a step feeds: `rows` consecutive ones of each of `sequences` canvases of `positions` positions."""

    sequences: int
    rows: int
    positions: int


@dataclass(frozen=True)
class Unseen:
    """What to add to attention scores, BF16 in HBM: -inf where a key must not be seen, else 0.

    Attributes:
        at: of the first row.
        row_bytes: between rows.
        causal: the rows belong to the fed rows, and column `positions` to the first of these; otherwise there is one row per sequence, and
            column 0 belongs to position 0.
    """

    at: int
    row_bytes: int
    causal: bool


@dataclass(frozen=True)
class StreamBuffers:
    """HBM addresses of what the layers read and write.

    Attributes:
        canvas: INT32 [sequences, positions].
        x: the residual stream of the fed rows, BF16 [sequences * rows, width].
        queries: of the same shape.
        cache: K and V of all positions.
        unseen: None if every position sees every other.
        smoothing: None if K and V are packed as they are.
    """

    canvas: int
    x: int
    queries: int
    cache: KvCache
    unseen: Unseen | None
    smoothing: SmoothingBuffers | None = None


@dataclass(frozen=True)
class _Resident:
    """What stays in the vector SRAM from layer to layer where one tile holds all rows that are fed: the residual stream, queries, and
    the rotary tables.
    """

    stream: Tile
    queries: Tile
    rotary: Rotary


class Transformer:
    """Emits the layers of one step."""

    def __init__(self, c: Context, network: NetworkImage, feed: Feed, tiling: Tiling, at: StreamBuffers, first: Var) -> None:
        """Set what to emit.

        Args:
            first: register with the canvas position of the first row fed.
        """
        self.c, self.network, self.shape = c, network, network.architecture
        self.feed, self.tiling, self.at, self.first = feed, tiling, at, first
        self.row_bytes = self.shape.width * BF16_BYTES
        self.angle_bytes = TABLES * self.shape.head_dim * BF16_BYTES
        self.smoothing: KvSmoothing | None = None
        if at.smoothing is not None:
            warm = feed.rows == feed.positions
            self.smoothing = KvSmoothing(c, at.smoothing, at.cache, feed.sequences, warm=warm, tile_rows=tiling.rows)

    def build(self) -> None:
        """Emit embedding and layers; the stream is left in HBM."""
        c = self.c
        with c.vector.scope():
            with c.e.phase("embedding"):
                self._resident = self._reside() if self._fits() else None
                self._embed()
            layer, kv = c.e.var(0), c.e.var(0)
            strides = {layer: self.network.layer_bytes, kv: self.at.cache.layer_bytes}
            if self.smoothing is not None:
                strides[self.smoothing.layer] = self.smoothing.at.layer_bytes
            with c.e.loop(self.shape.layers, strides):
                with c.e.phase("attention"):
                    self._keys_and_values(layer, kv)
                self._attention_and_feed_forward(layer, kv)
                if self.shape.experts:
                    with c.e.phase("feed-forward"):
                        add_mixture(c, self.network, layer, self.at.x, self.feed.sequences * self.feed.rows)
            c.e.release(*strides)
            if self._resident is not None:
                with c.e.phase("feed-forward"):
                    c.store(self._resident.stream, self.at.x, self.row_bytes)

    def _fits(self) -> bool:
        """Whether one tile holds all rows, and leaves room for what a layer needs beside it."""
        c, shape, height = self.c, self.shape, self.tiling.height
        if shape.experts or height < self.feed.sequences * self.feed.rows:
            return False
        width = ceil_to(shape.width + shape.head_dim, STRIDE_UNIT)
        layer = max(3 * height * width, most_room(c, height, self.network.matrices["gate"]))
        return 2 * height * width + layer <= c.vector.free - c.vector.free // Rotary.SHARE

    def _reside(self) -> _Resident:
        c, shape, height = self.c, self.shape, self.tiling.height
        rotary = self._rotary(self.feed.rows)
        stream = c.tile(height, shape.width, "the residual stream")
        angle = c.e.multiply_add(self.first, self.angle_bytes, self.network.rotary)
        rotary.load(angle)
        c.e.release(angle)
        return _Resident(stream, rotary.tile(height, shape.width, "queries"), rotary)

    def _rotary(self, rows: int) -> Rotary:
        return Rotary(self.c, rows, self.shape.head_dim, self.shape.width // self.shape.head_dim)

    def _each_tile(self, strides: Mapping[Var, tuple[int, int]], body: Callable[[int, int], None]) -> None:
        """`body(sequences, rows)` for every tile; a variable's strides are those from row to row and from sequence to sequence."""
        e, feed, tiling = self.c.e, self.feed, self.tiling
        if tiling.sequences > 1:
            steps = {var: tiling.sequences * sequence for var, (_, sequence) in strides.items()}
            e.tiles(feed.sequences, tiling.sequences, steps, lambda count: body(count, feed.rows))
            return
        steps = {var: tiling.rows * row for var, (row, _) in strides.items()}
        with e.loop(feed.sequences, {var: sequence for var, (_, sequence) in strides.items()}):
            e.tiles(feed.rows, tiling.rows, steps, lambda count: body(1, count))

    def _stream(self) -> tuple[int, int]:
        """Strides of an address in the residual stream."""
        return self.row_bytes, self.feed.rows * self.row_bytes

    def _stream_tile(self, x: Var, height: int) -> Tile:
        """Rows of the residual stream in the vector SRAM."""
        if self._resident is not None:
            return self._resident.stream
        stream = self.c.tile(height, self.shape.width, "a tile of activations")
        self.c.e.order(Engine.STORE, Engine.LOAD)
        self.c.load(stream, x, self.row_bytes)
        return stream

    def _embed(self) -> None:
        c, positions = self.c, self.feed.positions
        x, ids = c.e.var(self.at.x), c.e.multiply_add(self.first, INT32_BYTES, self.at.canvas)
        words = c.integers.take(self.tiling.height, "the ids of a tile")

        def body(sequences: int, rows: int) -> None:
            word = c.e.var(words)
            c.e.order(Engine.VECTOR, Engine.LOAD)
            with c.e.loop(sequences, {word: rows, ids: positions * INT32_BYTES}):
                c.e.emit("L_INT", dst=word, src=ids, count=rows)
            c.e.order(Engine.LOAD, Engine.LOAD)
            with c.vector.scope():
                kept = self._resident and self._resident.stream
                tile = kept or c.tile(sequences * rows, self.shape.width, "a tile of embeddings")
                c.e.emit(
                    "L_GATHER",
                    dst=tile.at,
                    table=self.network.embedding,
                    ids=words,
                    rows=tile.rows,
                    cols=tile.cols,
                    dst_stride=tile.stride,
                    table_stride=self.row_bytes,
                    limit=self.shape.embedding_rows,
                )
                c.e.order(Engine.LOAD, Engine.VECTOR)
                if kept is None:
                    c.store(tile, x, self.row_bytes)
            c.e.release(word)

        self._each_tile({x: self._stream(), ids: (INT32_BYTES, positions * INT32_BYTES)}, body)
        c.e.release(x, ids)

    def _vector(self, name: str, layer: Var, length: int) -> Tile:
        """A norm's weight or a bias in the vector SRAM."""
        tile = self.c.tile(1, length, f"the vector {name}")
        self.c.load(tile, Address(layer, self.network.vectors[name]), length * BF16_BYTES)
        return tile

    def _keys_and_values(self, layer: Var, kv: Var) -> None:
        """Norm, projections and rotary embedding of every row; keys and values go to HBM, and queries unless they stay."""
        c, shape, cache = self.c, self.shape, self.at.cache
        x, angle = c.e.var(self.at.x), c.e.multiply_add(self.first, self.angle_bytes, self.network.rotary)
        elements = c.e.multiply_add(self.first, cache.keys.row_bytes, 0)
        scales = c.e.multiply_add(self.first, cache.keys.blocks, 0)
        c.e.add(elements, kv)
        c.e.add(scales, kv)
        with c.vector.scope():
            lengths = Projection.vectors(shape)
            vectors = {name: self._vector(name, layer, length) for name, length in lengths.items() if name in self.network.vectors}
            project = Projection(c, self.network, layer, vectors, cache, self.smoothing)

            def body(sequences: int, rows: int) -> None:
                with c.vector.scope():
                    stream, kept = self._stream_tile(x, sequences * rows), self._resident
                    place = Place(sequences, Address(elements, 0), Address(scales, 0))
                    if kept is not None:
                        project.emit(stream, kept.rotary, place, kept.queries)
                        return
                    rotary = self._rotary(rows)
                    rotary.load(angle)
                    queries = project.emit(stream, rotary, place)
                    c.store(queries, Address(x, self.at.queries - self.at.x), self.row_bytes)

            strides = {
                x: self._stream(),
                angle: (self.angle_bytes, 0),
                elements: (cache.keys.row_bytes, cache.sequence_bytes),
                scales: (cache.keys.blocks, cache.sequence_blocks),
            }
            storing: AbstractContextManager[Strides] = nullcontext({})
            if self.smoothing is not None:
                storing = self.smoothing.storing(elements, scales, self.tiling.height)
            with storing as more:
                self._each_tile(strides | more, body)
        c.e.release(x, angle, elements, scales)

    def _attention_and_feed_forward(self, layer: Var, kv: Var) -> None:
        """Of every row, but for the feed-forward of a network that has experts."""
        c, shape, cache, matrices, unseen = self.c, self.shape, self.at.cache, self.network.matrices, self.at.unseen
        x, elements, scales = c.e.var(self.at.x), c.e.var(kv), c.e.var(kv)
        strides = {x: self._stream(), elements: (0, cache.sequence_bytes), scales: (0, cache.sequence_blocks)}
        hidden: Var | None = None
        if unseen is not None and unseen.causal:
            hidden = c.e.multiply_add(self.first, -BF16_BYTES, unseen.at + self.feed.positions * BF16_BYTES)
            strides[hidden] = (unseen.row_bytes, 0)
        elif unseen is not None:
            hidden = c.e.var(unseen.at)
            strides[hidden] = (0, unseen.row_bytes)
        with c.vector.scope():
            with c.e.phase("feed-forward"):
                weight = None if shape.experts else self._vector("feed_forward_norm", layer, shape.width)

            def body(sequences: int, rows: int) -> None:
                with c.vector.scope():
                    with c.e.phase("attention"):
                        stream, queries = self._stream_tile(x, sequences * rows), self._queries(x, sequences * rows)
                        with c.vector.scope():
                            c.e.order(Engine.STORE, Engine.LOAD)
                            mixed = c.tile(queries.rows, queries.cols, "mixed values")
                            self._attend(mixed, queries, sequences, elements, scales, hidden)
                            product(c, queries, mixed, matrices["output"], layer)
                        c.binary("V_ADD", stream, stream, queries)
                    with c.e.phase("feed-forward"):
                        if weight is not None:
                            rms_norm(c, queries, stream, weight, shape.norm_eps)
                            feed_forward(c, queries, queries, matrices["gate"], matrices["up"], matrices["down"], layer)
                            c.binary("V_ADD", stream, stream, queries)
                        if self._resident is None:
                            c.store(stream, x, self.row_bytes)

            reading: AbstractContextManager[Strides] = nullcontext({}) if self.smoothing is None else self.smoothing.reading()
            with reading as more:
                self._each_tile(strides | more, body)
        c.e.release(x, elements, scales)
        if hidden is not None:
            c.e.release(hidden)

    def _queries(self, x: Var, height: int) -> Tile:
        if self._resident is not None:
            return self._resident.queries
        queries = self.c.tile(height, self.shape.width, "a tile of queries")
        self.c.load(queries, Address(x, self.at.queries - self.at.x), self.row_bytes)
        return queries

    def _attend(self, context: Tile, queries: Tile, sequences: int, elements: Var, scales: Var, hidden: Var | None) -> None:
        c, cache, rows, unseen = self.c, self.at.cache, queries.rows // sequences, self.at.unseen
        q, out = c.e.var(queries.at), c.e.var(context.at)
        asked, mixed = (Tile(Address(at, 0), rows, x.cols, x.stride) for at, x in ((q, queries), (out, context)))
        of_sequence = {at: rows * x.stride * STRIDE_UNIT for at, x in ((q, asked), (out, mixed))}
        if self.smoothing is not None:
            self.smoothing.multiply_queries(asked, sequences, {q: of_sequence[q]})
        if hidden is None or unseen is None:
            attend(c, mixed, asked, sequences, cache, elements, scales, None)
        else:
            steps = {**of_sequence, elements: cache.sequence_bytes, scales: cache.sequence_blocks, hidden: unseen.row_bytes}
            with c.vector.scope(), c.e.loop(sequences, steps):
                bias = c.tile(rows if unseen.causal else 1, self.feed.positions, "what a tile of queries must not see")
                c.load(bias, hidden, unseen.row_bytes)
                attend(c, mixed, asked, 1, cache, elements, scales, bias)
        if self.smoothing is not None:
            self.smoothing.multiply_mixture(mixed, sequences, {out: of_sequence[out]})
        c.e.release(q, out)

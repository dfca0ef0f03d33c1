"""The transformer of a denoising step: token ids in HBM to the residual stream of the rows that are fed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from unmask.compiler.context import Context, Tile, Tiling
from unmask.compiler.emitter import Address, Var
from unmask.compiler.kernels.attention import KvCache, attend, store_heads
from unmask.compiler.kernels.experts import add_mixture
from unmask.compiler.kernels.feed_forward import feed_forward
from unmask.compiler.kernels.linear import product
from unmask.compiler.kernels.norm import head_norm, rms_norm
from unmask.compiler.kernels.rotary import rotate
from unmask.compiler.kernels.smoothing import KvSmoothing, Operand, SmoothingBuffers, Strides
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
        self.angle_bytes = self.shape.head_dim // 2 * BF16_BYTES
        self.smoothing: KvSmoothing | None = None
        if at.smoothing is not None:
            warm = feed.rows == feed.positions
            self.smoothing = KvSmoothing(c, at.smoothing, at.cache, feed.sequences, warm=warm, tile_rows=tiling.rows)

    def build(self) -> None:
        """Emit embedding and layers; the stream is left in HBM."""
        c = self.c
        with c.e.phase("embedding"):
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
                tile = c.tile(sequences * rows, self.shape.width, "a tile of embeddings")
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
        """Norm, projections and rotary embedding of every row; queries, keys and values go to HBM."""
        c, shape, cache, matrices = self.c, self.shape, self.at.cache, self.network.matrices
        kv_width, half = shape.kv_heads * shape.head_dim, shape.head_dim // 2
        x, angle = c.e.var(self.at.x), c.e.multiply_add(self.first, self.angle_bytes, 0)
        elements = c.e.multiply_add(self.first, cache.keys.row_bytes, 0)
        scales = c.e.multiply_add(self.first, cache.keys.blocks, 0)
        c.e.add(elements, kv)
        c.e.add(scales, kv)
        with c.vector.scope():
            weight = self._vector("attention_norm", layer, shape.width)
            norms = {name: self._vector(f"{name}_norm", layer, shape.head_dim) for name in ("query", "key") if shape.qk_norm}
            widths = {"query": shape.width, "key": kv_width, "value": kv_width}
            biases = {
                name: self._vector(f"{name}.bias", layer, width) for name, width in widths.items() if f"{name}.bias" in self.network.vectors
            }

            def body(sequences: int, rows: int) -> None:
                with c.vector.scope():
                    height = sequences * rows
                    stream, normed = (c.tile(height, shape.width, "a tile of activations") for _ in range(2))
                    cos, sin = (c.tile(rows, half, "rotary tables") for _ in range(2))
                    projected = c.tile(height, max(shape.width, kv_width), "a projection")
                    c.e.order(Engine.STORE, Engine.LOAD)
                    c.load(stream, x, self.row_bytes)
                    c.load(cos, Address(angle, self.network.cos), self.angle_bytes)
                    c.load(sin, Address(angle, self.network.sin), self.angle_bytes)
                    rms_norm(c, normed, stream, weight, shape.norm_eps)

                    def project(name: str) -> Tile:
                        result = Tile(projected.at, height, widths[name], projected.stride)
                        product(c, result, normed, matrices[name], layer)
                        if name in biases:
                            c.binary("V_ADD", result, result, biases[name])
                        if name in norms:
                            head_norm(c, result, norms[name], shape.norm_eps)
                        return result

                    queries = project("query")
                    self._rotate(queries, sequences, cos, sin)
                    c.store(queries, Address(x, self.at.queries - self.at.x), self.row_bytes)
                    keys = project("key")
                    self._rotate(keys, sequences, cos, sin)
                    place = Address(elements, cache.keys.elements), Address(scales, cache.keys.scales)
                    self._store(Operand.KEYS, keys, sequences, *place)
                    values = project("value")
                    place = Address(elements, cache.values.elements), Address(scales, cache.values.scales)
                    self._store(Operand.VALUES, values, sequences, *place)

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

    def _rotate(self, x: Tile, sequences: int, cos: Tile, sin: Tile) -> None:
        c = self.c
        start = c.e.var(x.at)
        with c.e.loop(sequences, {start: cos.rows * x.stride * STRIDE_UNIT}):
            rotate(c, Tile(Address(start, 0), cos.rows, x.cols, x.stride), cos, sin, self.shape.head_dim)
        c.e.release(start)

    def _store(self, operand: Operand, x: Tile, sequences: int, elements: Address, scales: Address) -> None:
        """Rows of K or V to the cache."""
        if self.smoothing is not None:
            self.smoothing.store(operand, x, sequences, elements, scales)
            return
        c, cache, rows = self.c, self.at.cache, x.rows // sequences
        source, e, s = c.e.var(x.at), c.e.var(elements), c.e.var(scales)
        with c.e.loop(sequences, {source: rows * x.stride * STRIDE_UNIT, e: cache.sequence_bytes, s: cache.sequence_blocks}):
            store_heads(c, cache, Tile(Address(source, 0), rows, x.cols, x.stride), Address(e, 0), Address(s, 0))
        c.e.release(source, e, s)

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
                    height = sequences * rows
                    stream, other = (c.tile(height, shape.width, "a tile of activations") for _ in range(2))
                    with c.e.phase("attention"), c.vector.scope():
                        c.e.order(Engine.STORE, Engine.LOAD)
                        queries = c.tile(height, shape.width, "a tile of queries")
                        c.load(queries, Address(x, self.at.queries - self.at.x), self.row_bytes)
                        c.load(stream, x, self.row_bytes)
                        self._attend(other, queries, sequences, elements, scales, hidden)
                        product(c, queries, other, matrices["output"], layer)
                        c.binary("V_ADD", stream, stream, queries)
                    with c.e.phase("feed-forward"):
                        if weight is not None:
                            rms_norm(c, other, stream, weight, shape.norm_eps)
                            feed_forward(c, other, other, matrices["gate"], matrices["up"], matrices["down"], layer)
                            c.binary("V_ADD", stream, stream, other)
                        c.store(stream, x, self.row_bytes)

            reading: AbstractContextManager[Strides] = nullcontext({}) if self.smoothing is None else self.smoothing.reading()
            with reading as more:
                self._each_tile(strides | more, body)
        c.e.release(x, elements, scales)
        if hidden is not None:
            c.e.release(hidden)

    def _attend(self, context: Tile, queries: Tile, sequences: int, elements: Var, scales: Var, hidden: Var | None) -> None:
        c, cache, rows = self.c, self.at.cache, queries.rows // sequences
        q, out = c.e.var(queries.at), c.e.var(context.at)
        tile_bytes = rows * queries.stride * STRIDE_UNIT
        steps: dict[Var, int] = {q: tile_bytes, out: tile_bytes, elements: cache.sequence_bytes, scales: cache.sequence_blocks}
        if self.smoothing is not None:
            steps |= self.smoothing.to_next_sequence
        with c.vector.scope():
            bias: Tile | None = None
            if hidden is not None and self.at.unseen is not None:
                bias = c.tile(rows if self.at.unseen.causal else 1, self.feed.positions, "what a tile of queries must not see")
                steps[hidden] = self.at.unseen.row_bytes
            with c.e.loop(sequences, steps):
                if bias is not None and hidden is not None and self.at.unseen is not None:
                    c.load(bias, hidden, self.at.unseen.row_bytes)
                asked, mixed = (Tile(Address(at, 0), rows, x.cols, x.stride) for at, x in ((q, queries), (out, context)))
                smoothed = nullcontext() if self.smoothing is None else self.smoothing.around_attention(asked, mixed)
                with smoothed:
                    attend(c, out, q, asked, cache, elements, scales, bias)
        c.e.release(q, out)

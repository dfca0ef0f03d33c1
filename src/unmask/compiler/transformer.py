"""The transformer of a denoising step: token ids in HBM to the residual stream of the rows that are fed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from unmask.compiler.context import Context, Tile, Tiling
from unmask.compiler.emitter import Address, Var
from unmask.compiler.kernels.experts import add_mixture
from unmask.compiler.kernels.projection import FreshRows, Place
from unmask.compiler.kernels.rotary import TABLES, Rotary
from unmask.compiler.kernels.smoothing import KvSmoothing, Operand, Strides
from unmask.compiler.layer import Layer
from unmask.compiler.network import NetworkImage
from unmask.compiler.stream import Feed, StreamBuffers, Unseen
from unmask.isa.table import BF16_BYTES, INT32_BYTES, STRIDE_UNIT, Engine


@dataclass(frozen=True)
class _Resident:
    """What stays in the vector SRAM from layer to layer where one tile holds all rows that are fed: the rotary tables, the residual
    stream, and room for queries.
    """

    rotary: Rotary
    stream: Tile
    queries: Tile


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
            number, kv = c.e.var(0), c.e.var(0)
            self.layer = Layer(c, self.network, number, self.at.cache, self.smoothing)
            with c.e.phase("embedding"):
                self._resident = self._reside() if self._fits() else None
                self._embed()
            strides = {number: self.network.layer_bytes, kv: self.at.cache.layer_bytes}
            if self.smoothing is not None:
                strides[self.smoothing.layer] = self.smoothing.at.layer_bytes
            with c.e.loop(self.shape.layers, strides):
                if self._resident is not None:
                    self._whole_layer(self._resident, kv)
                else:
                    self._tiled_layer(number, kv)
            c.e.release(*strides)
            if self._resident is not None:
                with c.e.phase("feed-forward"):
                    c.store(self._resident.stream, self.at.x, self.row_bytes)

    def _fits(self) -> bool:
        """Whether one tile holds all rows, and leaves room for what a layer makes use of beside it."""
        c, height = self.c, self.tiling.height
        if self.shape.experts or height < self.feed.sequences * self.feed.rows:
            return False
        kept = 2 * height * (self.shape.width + self.shape.head_dim + 2 * STRIDE_UNIT)
        return kept + self.layer.room(height) <= c.vector.free - c.vector.free // Rotary.SHARE

    def _reside(self) -> _Resident:
        c, shape, height = self.c, self.shape, self.tiling.height
        rotary = self.layer.rotary(self.feed.rows)
        angle = c.e.multiply_add(self.first, self.angle_bytes, self.network.rotary)
        rotary.load(angle)
        c.e.release(angle)
        return _Resident(rotary, c.tile(height, shape.width, "the residual stream"), rotary.tile(height, shape.width, "queries"))

    def _whole_layer(self, kept: _Resident, kv: Var) -> None:
        """A layer of all rows, whose stream stays where it is."""
        c, sequences = self.c, self.feed.sequences
        reading: AbstractContextManager[object] = nullcontext() if self.smoothing is None else self.smoothing.reading()
        with c.vector.scope(), reading:
            with c.e.phase("feed-forward"):
                weight = self.layer.norm()
            assert weight is not None
            with c.e.phase("attention"), c.vector.scope():
                project = self.layer.projection()
                tiles = {**project.tiles(kept.stream.rows, kept.rotary, ("key", "value")), "query": kept.queries}
                elements, scales = self._first_rows(kv)
                place = Place(sequences, Address(elements, 0), Address(scales, 0))
                with c.vector.scope():
                    project.emit(kept.stream, kept.rotary, place, tiles)
                fresh, unseen = None, self._unseen()
                if unseen is None and (self.smoothing is None or self.smoothing.known):
                    if self.smoothing is not None:
                        for name, operand in (("key", Operand.KEYS), ("value", Operand.VALUES)):
                            self.smoothing.divide(operand, tiles[name], sequences)
                    fresh = FreshRows(c, self.at.cache, tiles, self.feed.rows, elements, scales)
                else:
                    for name in ("key", "value"):
                        project.store(name, tiles[name], place)
                c.e.release(elements, scales)
                elements, scales = c.e.var(kv), c.e.var(kv)
                self.layer.attention(kept.stream, kept.queries, sequences, elements, scales, unseen, fresh)
                c.e.release(elements, scales)
                if fresh is not None:
                    fresh.release()
                if unseen is not None:
                    c.e.release(unseen[1])
            with c.e.phase("feed-forward"):
                self.layer.feed_forward(kept.stream, kept.queries, weight)

    def _tiled_layer(self, number: Var, kv: Var) -> None:
        """A layer of tiles of rows, from HBM to HBM: all keys and values, then all the rest."""
        self.layer.check_room(self.tiling.height)
        with self.c.e.phase("attention"):
            self._project(kv)
        self._attend_and_feed_forward(kv)
        if self.shape.experts:
            with self.c.e.phase("feed-forward"):
                add_mixture(self.c, self.network, number, self.at.x, self.feed.sequences * self.feed.rows)

    def _first_rows(self, kv: Var) -> tuple[Var, Var]:
        """Registers with what to add to the addresses of elements and scales of the cache to come to the first row that is fed."""
        e, keys = self.c.e, self.at.cache.keys
        elements, scales = e.multiply_add(self.first, keys.row_bytes, 0), e.multiply_add(self.first, keys.blocks, 0)
        e.add(elements, kv)
        e.add(scales, kv)
        return elements, scales

    def _unseen(self) -> tuple[Unseen, Var] | None:
        """With a register with the HBM address of what the first row must not see."""
        unseen, e = self.at.unseen, self.c.e
        if unseen is None:
            return None
        if unseen.causal:
            return unseen, e.multiply_add(self.first, -BF16_BYTES, unseen.at + self.feed.positions * BF16_BYTES)
        return unseen, e.var(unseen.at)

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

    def _tile(self, at: Address, height: int, purpose: str) -> Tile:
        """Rows of the width of the stream, from HBM."""
        tile = self.c.tile(height, self.shape.width, purpose)
        self.c.e.order(Engine.STORE, Engine.LOAD)
        self.c.load(tile, at, self.row_bytes)
        return tile

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

    def _project(self, kv: Var) -> None:
        """Norm, projections and rotary embedding of every row; queries, keys and values go to HBM."""
        c, cache = self.c, self.at.cache
        x, angle = c.e.var(self.at.x), c.e.multiply_add(self.first, self.angle_bytes, self.network.rotary)
        elements, scales = self._first_rows(kv)
        with c.vector.scope():
            project = self.layer.projection()

            def body(sequences: int, rows: int) -> None:
                with c.vector.scope():
                    stream = self._tile(Address(x, 0), sequences * rows, "a tile of activations")
                    rotary = self.layer.rotary(rows)
                    rotary.load(angle)
                    queries = project.emit(stream, rotary, Place(sequences, Address(elements, 0), Address(scales, 0)))
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

    def _attend_and_feed_forward(self, kv: Var) -> None:
        """Of every row, but for the feed-forward of a network that has experts."""
        c, cache = self.c, self.at.cache
        x, elements, scales = c.e.var(self.at.x), c.e.var(kv), c.e.var(kv)
        strides = {x: self._stream(), elements: (0, cache.sequence_bytes), scales: (0, cache.sequence_blocks)}
        unseen = self._unseen()
        if unseen is not None:
            row_bytes = unseen[0].row_bytes
            strides[unseen[1]] = (row_bytes, 0) if unseen[0].causal else (0, row_bytes)
        with c.vector.scope():
            with c.e.phase("feed-forward"):
                weight = self.layer.norm()

            def body(sequences: int, rows: int) -> None:
                with c.vector.scope():
                    with c.e.phase("attention"):
                        stream = self._tile(Address(x, 0), sequences * rows, "a tile of activations")
                        queries = self._tile(Address(x, self.at.queries - self.at.x), sequences * rows, "a tile of queries")
                        self.layer.attention(stream, queries, sequences, elements, scales, unseen, None)
                    with c.e.phase("feed-forward"):
                        if weight is not None:
                            self.layer.feed_forward(stream, queries, weight)
                        c.store(stream, x, self.row_bytes)

            reading: AbstractContextManager[Strides] = nullcontext({}) if self.smoothing is None else self.smoothing.reading()
            with reading as more:
                self._each_tile(strides | more, body)
        c.e.release(x, elements, scales)
        if unseen is not None:
            c.e.release(unseen[1])

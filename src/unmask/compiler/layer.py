"""A layer of the transformer over one tile of rows."""

from __future__ import annotations

from unmask.compiler.context import Context, Tile
from unmask.compiler.emitter import Address, Var
from unmask.compiler.kernels.attention import Fresh, attend
from unmask.compiler.kernels.cache import KvCache
from unmask.compiler.kernels.feed_forward import check_room, feed_forward, most_room
from unmask.compiler.kernels.linear import product
from unmask.compiler.kernels.norm import rms_norm
from unmask.compiler.kernels.projection import Projection
from unmask.compiler.kernels.rotary import Rotary
from unmask.compiler.kernels.smoothing import KvSmoothing
from unmask.compiler.network import NetworkImage
from unmask.compiler.stream import Unseen
from unmask.isa.table import BF16_BYTES, STRIDE_UNIT, Engine

_NORM = "feed_forward_norm"


class Layer:
    """Emits parts of a layer.

    Attributes:
        number: register with what to add to the addresses of layer 0's weights to come to the layer's.
    """

    def __init__(self, c: Context, network: NetworkImage, number: Var, cache: KvCache, smoothing: KvSmoothing | None) -> None:
        """Set what to emit."""
        self.c, self.network, self.number, self.cache, self.smoothing = c, network, number, cache, smoothing
        self.shape = network.architecture

    def projection(self) -> Projection:
        """Norm and projections, with their vectors in the vector SRAM."""
        lengths = {name: length for name, length in Projection.vectors(self.shape).items() if name in self.network.vectors}
        vectors = {name: self._vector(name, length) for name, length in lengths.items()}
        return Projection(self.c, self.network, self.number, vectors, self.cache, self.smoothing)

    def norm(self) -> Tile | None:
        """The weight of the feed-forward's norm in the vector SRAM; None of a mixture of experts."""
        return None if self.shape.experts else self._vector(_NORM, self.shape.width)

    def _vector(self, name: str, length: int) -> Tile:
        tile = self.c.tile(1, length, f"the vector {name}")
        self.c.load(tile, Address(self.number, self.network.vectors[name]), length * BF16_BYTES)
        return tile

    def rotary(self, rows: int) -> Rotary:
        """Tables of as many positions."""
        return Rotary(self.c, rows, self.shape.head_dim, self.shape.width // self.shape.head_dim)

    def room(self, height: int) -> int:
        """Elements of the vector SRAM that the parts of a layer make use of, beside the stream and the queries of `height` rows."""
        width = self.shape.width + 2 * STRIDE_UNIT + self.shape.head_dim
        return max(3 * height * width, most_room(self.c, height, self.network.matrices["gate"]))

    def check_room(self, height: int) -> None:
        """Find out whether the feed-forward of `height` rows fits beside the stream and the queries.

        Raises:
            SramOverflow: it does not.
        """
        if self.shape.experts:
            return
        with self.c.vector.scope():
            self.c.tile(2 * height, self.shape.width, "a tile of activations and one of queries")
            check_room(self.c, height, self.network.matrices["gate"])

    def attention(
        self,
        stream: Tile,
        queries: Tile,
        sequences: int,
        elements: Var,
        scales: Var,
        unseen: tuple[Unseen, Var] | None,
        fresh: Fresh | None,
    ) -> None:
        """Attention of a tile of some sequences' rows, projected and added to the stream; the queries are lost.

        Args:
            elements, scales: registers with what to add to the addresses of the cache to come to the layer and the first sequence.
            unseen: and a register with the HBM address of what the first row must not see.
            fresh: keys and values that are not stored yet.
        """
        c = self.c
        with c.vector.scope():
            c.e.order(Engine.STORE, Engine.LOAD)
            mixed = c.tile(queries.rows, queries.cols, "mixed values")
            self._attend(mixed, queries, sequences, elements, scales, unseen, fresh)
            product(c, queries, mixed, self.network.matrices["output"], self.number)
        c.binary("V_ADD", stream, stream, queries)

    def _attend(
        self,
        context: Tile,
        queries: Tile,
        sequences: int,
        elements: Var,
        scales: Var,
        unseen: tuple[Unseen, Var] | None,
        fresh: Fresh | None,
    ) -> None:
        c, cache, rows = self.c, self.cache, queries.rows // sequences
        q, out = c.e.var(queries.at), c.e.var(context.at)
        asked, mixed = (Tile(Address(at, 0), rows, x.cols, x.stride) for at, x in ((q, queries), (out, context)))
        steps = {at: rows * x.stride * STRIDE_UNIT for at, x in ((q, asked), (out, mixed))}
        if self.smoothing is not None:
            self.smoothing.multiply_queries(asked, sequences, {q: steps[q]})
        if unseen is None:
            attend(c, mixed, asked, sequences, cache, elements, scales, fresh=fresh)
        else:
            hidden, at = unseen
            strides = {**steps, elements: cache.sequence_bytes, scales: cache.sequence_blocks, at: hidden.row_bytes}
            with c.vector.scope(), c.e.loop(sequences, strides):
                bias = c.tile(rows if hidden.causal else 1, cache.positions, "what a tile of queries must not see")
                c.load(bias, at, hidden.row_bytes)
                attend(c, mixed, asked, 1, cache, elements, scales, bias)
        if self.smoothing is not None:
            self.smoothing.multiply_mixture(mixed, sequences, {out: steps[out]})
        c.e.release(q, out)

    def feed_forward(self, stream: Tile, spare: Tile, weight: Tile) -> None:
        """Norm and feed-forward, added to the stream; `spare` is of its shape."""
        c, matrices = self.c, self.network.matrices
        rms_norm(c, spare, stream, weight, self.shape.norm_eps)
        feed_forward(c, spare, spare, matrices["gate"], matrices["up"], matrices["down"], self.number)
        c.binary("V_ADD", stream, stream, spare)

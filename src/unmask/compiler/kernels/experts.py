"""A mixture of experts: a router's choice, then every expert over the rows that took it, gathered tile by tile and scattered back.

How many tiles there are depends on the sizes alone (docs/decisions/0008-expert-routing.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from unmask.compiler.context import Context, Tile
from unmask.compiler.emitter import Address, Value, Var
from unmask.compiler.kernels.feed_forward import feed_forward, least_room
from unmask.compiler.kernels.linear import product
from unmask.compiler.kernels.norm import rms_norm
from unmask.compiler.memory import ceil_to
from unmask.compiler.network import NetworkImage
from unmask.compiler.routing import WORDS_PER_TILE
from unmask.isa.table import BF16_BYTES, STRIDE_UNIT, Engine
from unmask.machine.config import Machine
from unmask.machine.costs import matrix_cycles


def most_tiles(rows: int, height: int, experts: int, chosen: int) -> int:
    """The most tiles of `height` rows that `experts` of which every one of `rows` takes `chosen` can need, if each has at least one.

    An expert has at most `rows` rows. An expert of c > 0 rows needs at most 1 + (c - 1) / height tiles, and at least `chosen` have some.
    """
    return min(experts * -(-rows // height), experts + chosen * (rows - 1) // height)


@dataclass(frozen=True)
class ExpertTiling:
    """How a mixture goes over its rows.

    Attributes:
        rows: that are routed at once.
        height: of an expert's tile.
    """

    rows: int
    height: int


def expert_tiling(c: Context, network: NetworkImage, total: int) -> ExpertTiling:
    """The tiling of `total` rows that takes least time among those that fit; the smallest, if none does."""
    best, least, blen = ExpertTiling(1, 1), float("inf"), c.machine.matrix.blen
    for rows in dict.fromkeys(-(-total // parts) for parts in range(1, total + 1)):
        for height in (*range(blen, rows, blen), rows):
            tiling = ExpertTiling(rows, height)
            if _fits(c, network, tiling) and (time := _cycles(c.machine, network, tiling, total)) < least:
                best, least = tiling, time
    return best


def _fits(c: Context, network: NetworkImage, tiling: ExpertTiling) -> bool:
    shape = network.architecture
    width, weights = ceil_to(shape.width, STRIDE_UNIT), ceil_to(shape.experts, STRIDE_UNIT)
    routing = tiling.rows * weights * (1 + shape.normalised_routing)
    tile = tiling.height * width + least_room(c, tiling.height, network.matrices["gate"])
    vector = width + tiling.rows * (2 * width + weights) + max(routing, tile)
    listed = tiling.height < tiling.rows
    words = listed * WORDS_PER_TILE * most_tiles(tiling.rows, tiling.height, shape.experts, shape.experts_per_token)
    rows = min(c.machine.vector.accumulators, c.floats.free)
    return vector <= c.vector.free and words <= c.integers.free and tiling.rows <= rows


def _cycles(machine: Machine, network: NetworkImage, tiling: ExpertTiling, total: int) -> float:
    """About how long all rows take: an expert's tile those of the array or of the memory, whichever are more."""
    shape = network.architecture
    memory = network.expert_bytes * machine.clock_ghz / machine.memory_gbps

    def product(outputs: int, inputs: int) -> int:
        return matrix_cycles(tiling.height, outputs, inputs, False, machine).occupancy

    busy = 2 * product(shape.feed_forward, shape.width) + product(shape.width, shape.feed_forward)
    whole, rest = divmod(total, tiling.rows)
    count = whole * most_tiles(tiling.rows, tiling.height, shape.experts, shape.experts_per_token)
    if rest:
        count += most_tiles(rest, min(tiling.height, rest), shape.experts, shape.experts_per_token)
    return count * max(busy, memory)


def add_mixture(c: Context, network: NetworkImage, layer: Var, stream: int, total: int) -> None:
    """Norm and mixture of a layer, added to the residual stream in HBM.

    Args:
        layer: holds the byte offset of the layer's weights.
        stream: HBM address of `total` rows, BF16.
    """
    shape = network.architecture
    row_bytes = shape.width * BF16_BYTES
    tiling = expert_tiling(c, network, total)
    mixture = _Mixture(c, network, tiling.height, layer)
    with c.vector.scope():
        weight = c.tile(1, shape.width, "a norm's weight")
        c.load(weight, Address(layer, network.vectors["feed_forward_norm"]), row_bytes)
        at = c.e.var(stream)

        def body(rows: int) -> None:
            with c.vector.scope():
                mixed, x = (c.tile(rows, shape.width, "a tile of activations") for _ in range(2))
                c.e.order(Engine.STORE, Engine.LOAD)
                c.load(mixed, at, row_bytes)
                rms_norm(c, x, mixed, weight, shape.norm_eps)
                mixture.add_up(mixed, x)
                c.load(x, at, row_bytes)  # the stream again: it had to make room
                c.binary("V_ADD", mixed, x, mixed)
                c.store(mixed, at, row_bytes)

        c.e.tiles(total, tiling.rows, {at: tiling.rows * row_bytes}, body)
        c.e.release(at)


class _Mixture:
    """Emits the experts of a layer, in tiles of `height` rows."""

    def __init__(self, c: Context, network: NetworkImage, height: int, layer: Var) -> None:
        self.c, self.network, self.shape, self.height, self.layer = c, network, network.architecture, height, layer

    def add_up(self, total: Tile, x: Tile) -> None:
        """total = what the experts that the rows of `x` take make of them, weighted."""
        c, shape = self.c, self.shape
        with c.vector.scope(), c.integers.scope():
            weights = c.tile(x.rows, shape.experts, "the weights of the experts")
            self._route(weights, x)
            c.e.emit("V_FILL", dst=total.at, rows=total.rows, cols=total.cols, dst_stride=total.stride, value=0.0)
            part = c.tile(min(self.height, x.rows), shape.width, "the rows of an expert")
            if part.rows == x.rows:
                self._one_tile_each(total, x, weights, part)
            else:
                self._listed(total, x, weights, part)

    def _route(self, weights: Tile, x: Tile) -> None:
        """weights = the softmax of the router's scores at the experts that each row takes, else 0."""
        c, shape = self.c, self.shape
        with c.vector.scope(), c.floats.scope():
            scores = c.tile(x.rows, shape.experts, "the scores of the experts")
            words = c.scalars(x.rows, "row maxima and row sums of a router")
            router = self.network.matrices["router"]
            product(c, scores, x, router, self.layer, kv=router.format is not c.weights)
            c.reduce("V_RED_MAX", words, scores)
            c.unary("V_SUB_F", weights, scores, f=words)
            c.unary("V_EXP", weights, weights)
            if shape.normalised_routing:
                kept = c.tile(x.rows, shape.experts, "the exponentials of the experts taken")
                self._keep(kept, weights, scores)
                c.reduce("V_RED_SUM", words, kept)
            else:
                c.reduce("V_RED_SUM", words, weights)
            c.e.emit("F_RECIP", dst=words, a=words, count=x.rows)
            c.unary("V_MUL_F", weights, weights, f=words)
            self._keep(weights, weights, scores)

    def _keep(self, dst: Tile, a: Tile, scores: Tile) -> None:
        shape: dict[str, Any] = {"k": self.shape.experts_per_token, "rows": a.rows, "cols": a.cols}
        strides: dict[str, Any] = {"dst_stride": dst.stride, "a_stride": a.stride, "b_stride": scores.stride}
        self.c.e.emit("V_TOPK_ROW", dst=dst.at, a=a.at, b=scores.at, **shape, **strides)

    def _one_tile_each(self, total: Tile, x: Tile, weights: Tile, part: Tile) -> None:
        """A tile holds all rows of an expert, so there is nothing to look up."""
        c = self.c
        offset, expert = c.e.var(self.layer), c.e.var(0)
        with c.e.loop(self.shape.experts, {offset: self.network.expert_bytes, expert: 1}):
            self._tile(total, x, weights, part, offset, expert, 0)
        c.e.release(offset, expert)

    def _listed(self, total: Tile, x: Tile, weights: Tile, part: Tile) -> None:
        """The sequencer reads from a list which tile comes next."""
        c, shape = self.c, self.shape
        tiles = most_tiles(x.rows, part.rows, shape.experts, shape.experts_per_token)
        words = c.integers.take(WORDS_PER_TILE * tiles, "the tiles of the experts")
        c.lists.append((words, tiles))
        c.e.emit(
            "V_EXPERT_TILES", dst=words, b=weights.at, span=x.rows, cols=shape.experts, b_stride=weights.stride, rows=part.rows, tiles=tiles
        )
        c.e.order(Engine.VECTOR, Engine.SEQUENCER)
        word, expert, skip = c.e.var(words), c.e.var(0), c.e.var(0)
        with c.e.loop(tiles, {word: WORDS_PER_TILE}):
            c.e.emit("S_LD", rd=expert, a=word)
            c.e.emit("S_LD", rd=skip, a=Address(word, 1))
            offset = c.e.multiply_add(expert, self.network.expert_bytes, 0)
            c.e.add(offset, self.layer)
            self._tile(total, x, weights, part, offset, expert, skip)
            c.e.release(offset)
        c.e.release(word, expert, skip)

    def _tile(self, total: Tile, x: Tile, weights: Tile, part: Tile, offset: Var, expert: Var, skip: Value) -> None:
        c, matrices = self.c, self.network.matrices
        shape: dict[str, Any] = {"rows": part.rows, "span": x.rows, "cols": x.cols, "stride": x.stride, "b_stride": weights.stride}
        c.e.emit("V_GATHER_ROWS", dst=part.at, a=x.at, b=weights.at, expert=expert, skip=skip, **shape)
        feed_forward(c, part, part, matrices["gate"], matrices["up"], matrices["down"], offset)
        c.e.emit("V_SCATTER_ADD", dst=total.at, a=part.at, b=weights.at, expert=expert, skip=skip, **shape)

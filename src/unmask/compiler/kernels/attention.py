"""Bidirectional attention of tiles of queries over all positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from unmask.compiler.context import Context, Tile
from unmask.compiler.emitter import Address, Handoff, Value, Var, address
from unmask.compiler.kernels.cache import KvCache
from unmask.compiler.kernels.linear import columns_of, load_tile, multiply_by, transposed_product
from unmask.compiler.memory import MxMatrix, ceil_to
from unmask.isa.table import BY_NAME, STRIDE_UNIT, Engine
from unmask.numerics import functions

_LONGEST_LOAD = (1 << next(field.bits for field in BY_NAME["L_MAT"].fields if field.name == "rows")) - 1
_AHEAD = 2
"""Units before its own that a sequence's keys and values are stored."""
_UNITS = 4
"""So many units are enough for what the array and the vector engine do not share, the first scores and the last mixture, to be little."""


@dataclass(frozen=True)
class _Unit:
    """What goes through scores, softmax and mixture at once: all rows of some heads of a sequence.

    Attributes:
        heads: of K and V.
        group: heads of queries, of those that share one of K and V.
        rows: of every head.
        whole: a slot of the ring holds the keys of all heads.
        overlap: the array works on one unit while the vector engine works on another.
    """

    heads: int
    group: int
    rows: int
    whole: bool
    overlap: bool

    @property
    def queries(self) -> int:
        """Heads of queries."""
        return self.heads * self.group

    @property
    def height(self) -> int:
        """Rows of scores."""
        return self.queries * self.rows


def _unit(c: Context, cache: KvCache, rows: int, group: int, sequences: int) -> _Unit:
    """The largest unit that fits the memories, as long as there are enough of them to overlap."""
    width, most = ceil_to(cache.positions, STRIDE_UNIT), c.machine.vector.accumulators
    for heads in range(cache.heads, 0, -1):
        keys = heads * cache.positions
        unit = _Unit(heads, group, rows, keys * cache.keys.blocks <= c.ring.size and keys <= _LONGEST_LOAD, True)
        units = sequences if heads == cache.heads else cache.heads // heads
        columns = unit.queries * cache.head_dim if cache.ones else 0
        fits = 2 * (unit.height * width + rows * columns) <= c.vector.free and 3 * unit.height <= c.floats.free and unit.height <= most
        if unit.whole and fits and cache.heads % heads == 0 and (units >= _UNITS or heads == 1):
            return unit
    return _Unit(1, 1, rows, cache.positions * cache.keys.blocks <= c.ring.size, False)


class Fresh(Protocol):
    """Keys and values that are still to be stored, while attention to others goes on."""

    @property
    def strides(self) -> dict[Var, int]:
        """From one sequence to the next, of registers of its own."""
        ...

    def store(self, sequences: int) -> None:
        """Store those of the sequence that is so many after the one that the registers say."""
        ...


def attend(
    c: Context,
    context: Tile,
    queries: Tile,
    sequences: int,
    cache: KvCache,
    elements: Var,
    scales: Var,
    unseen: Tile | None = None,
    fresh: Fresh | None = None,
) -> None:
    """context [rows, heads * head_dim] = softmax(q k^T / sqrt(head_dim)) v over the rows of the cache, of one sequence after the other.

    Exponentials stay unnormalised until after the product with V; each row is then scaled by the reciprocal of its sum: a scalar or, of a
    cache with ones, the product with these, which brings a row's sum to all columns of the mixture. Where memories
    allow, the array computes scores of some heads and mixes V for others while the vector engine works on theirs.

    Args:
        context, queries: the rows of one sequence, at what a register of their own says; those of the next sequence follow.
        elements, scales: registers with what to add to the addresses of `cache.keys` and `cache.values` to come to the layer and the
            first sequence; on return as they were.
        unseen: [rows or 1, positions], -inf where a key must not be seen, else 0; None if all are seen.
        fresh: what of every sequence has to be in the cache before; None if it is there.
    """
    e, group = c.e, queries.cols // cache.head_dim // cache.heads
    unit = _unit(c, cache, queries.rows, group, sequences)
    asked, mixture = queries.at.var, context.at.var
    assert asked is not None
    assert mixture is not None
    with (
        c.vector.scope(),
        c.floats.scope(),
        e.handoff(Engine.MATRIX, Engine.VECTOR) as scored,
        e.handoff(Engine.VECTOR, Engine.MATRIX) as weighed,
        e.handoff(Engine.MATRIX, Engine.VECTOR) as mixed,
        e.handoff(Engine.STORE, Engine.LOAD) as stored,
    ):
        at = _Attention(c, unit, cache, context, queries, elements, scales, unseen, scored, weighed, mixed)
        e.order(Engine.VECTOR, Engine.MATRIX)
        if fresh is not None:
            e.order(Engine.VECTOR, Engine.STORE)
        rows = {var: tile.rows * tile.stride * STRIDE_UNIT for var, tile in ((asked, queries), (mixture, context))}
        rows |= {elements: cache.sequence_bytes, scales: cache.sequence_blocks}
        if unit.heads == cache.heads and unit.overlap:
            if fresh is not None:
                rows |= fresh.strides
                at.store_ahead(fresh, stored)
            at.overlapped(sequences, rows)
            return
        if fresh is not None:
            with e.loop(sequences, fresh.strides):
                fresh.store(0)
            e.order(Engine.STORE, Engine.LOAD)
        columns = unit.heads * group * cache.head_dim
        heads = {asked: columns, mixture: columns, elements: unit.heads * cache.head_bytes, scales: unit.heads * cache.head_blocks}
        with e.loop(sequences, rows):
            if unit.overlap:
                at.overlapped(cache.heads // unit.heads, heads)
                return
            with e.loop(cache.heads, heads), e.loop(group, {asked: cache.head_dim, mixture: cache.head_dim}):
                at.alone()


class _Attention:
    """Emits the parts of a unit; addresses of the first one are in registers, those of others a number of strides further."""

    def __init__(
        self,
        c: Context,
        unit: _Unit,
        cache: KvCache,
        context: Tile,
        queries: Tile,
        elements: Var,
        scales: Var,
        unseen: Tile | None,
        scored: Handoff,
        weighed: Handoff,
        mixed: Handoff,
    ) -> None:
        self.c, self.unit, self.cache, self.unseen = c, unit, cache, unseen
        self.context, self.queries, self.elements, self.scales = context, queries, elements, scales
        self.scored, self.weighed, self.mixed = scored, weighed, mixed
        self._strides: dict[Var, int] = {}
        self._fresh: tuple[Fresh, Handoff] | None = None
        count = 1 + unit.overlap
        self._top = c.scalars(unit.height, "row maxima")
        self._totals: list[int] = []
        self._sums: list[Tile] = []
        if cache.ones is None:
            self._totals = [c.scalars(unit.height, "row sums") for _ in range(count)]
        else:
            self._sums = [c.tile(unit.rows, unit.queries * cache.head_dim, "row sums beside the mixture") for _ in range(count)]
        self._scores = [c.tile(unit.height, cache.positions, f"{unit.height} x {cache.positions} scores") for _ in range(count)]

    def alone(self) -> None:
        """One unit, one part after the other."""
        self._score(0, 0)
        self._weigh(0)
        self._mix(0, 0)
        self._scale(0, 0)

    def store_ahead(self, fresh: Fresh, stored: Handoff) -> None:
        """Let `overlapped` store what is fresh of each unit, a sequence, two units before it is read."""
        self._fresh = fresh, stored

    def overlapped(self, units: int, strides: dict[Var, int]) -> None:
        """All units; while the vector engine weighs the scores of one, the array scores the next and mixes V for the one before."""
        self._strides = strides
        for unit in range(min(units, _AHEAD)):
            self._store(unit)
        self._score(0, 0)
        self._weigh(0)
        storing = max(units - _AHEAD, 0)
        self._steps(0, storing, storing=True)
        self._steps(storing, units - 1 - storing, storing=False)
        self._mix(units - 1, (units - 1) % 2)
        self._scale(units - 1, (units - 1) % 2)

    def _steps(self, first: int, count: int, *, storing: bool) -> None:
        """From the unit `first` on, which is scored and weighed, each to its end, with the first half of the next one."""
        e = self.c.e

        def step(now: int) -> None:
            if storing:
                self._store(now + _AHEAD)
            self._score(now + 1, (now + 1) % 2)
            self._weigh((now + 1) % 2)
            self._mix(now, now % 2)
            self._scale(now, now % 2)

        pairs, odd = divmod(count, 2)
        if pairs:
            with e.loop(pairs, {var: 2 * stride for var, stride in self._strides.items()}):
                step(first)
                step(first + 1)
        if odd:
            step(first + 2 * pairs)

    def _store(self, number: int) -> None:
        if self._fresh is not None:
            fresh, stored = self._fresh
            fresh.store(number)
            stored.give()

    def _place(self, place: Value, number: int) -> Address:
        """What is there of a unit, `number` units after the one that registers say."""
        start = address(place)
        return start if start.var is None else start + number * self._strides.get(start.var, 0)

    def _head(self, tile: Tile, number: int) -> Tile:
        """The first head's columns of queries or mixture."""
        return Tile(self._place(tile.at, number), self.unit.rows, self.cache.head_dim, tile.stride)

    def _score(self, number: int, slot: int) -> None:
        """Scores of a unit, unscaled."""
        c, cache, unit, scores = self.c, self.cache, self.unit, self._scores[slot]
        if self._fresh is not None:
            self._fresh[1].take()
        place = self._place(self.elements, number) + cache.keys.elements, self._place(self.scales, number) + cache.keys.scales
        query = self._head(self.queries, number)
        if not unit.whole:
            columns_of(c, scores, query, cache.keys, *place, kv=True)
        else:
            head = Tile(scores.at, unit.rows, cache.positions, scores.stride)
            step = unit.rows * scores.stride * STRIDE_UNIT
            self._heads(cache.keys, place, head, query, step, cache.head_dim, unit.heads, transposed=False)
        self.scored.give()

    def _mix(self, number: int, slot: int) -> None:
        """V, weighed by the exponentials of a unit."""
        cache, unit = self.cache, self.unit
        self.weighed.take()
        place = self._place(self.elements, number) + cache.values.elements, self._place(self.scales, number) + cache.values.scales
        result = self._head(self.context, number)
        self._weighed(cache.values, place, result, slot, unit.heads)
        if cache.ones is not None:
            sums = self._sums[slot]
            result = Tile(sums.at, unit.rows, cache.head_dim, sums.stride)
            self._weighed(cache.ones, (address(cache.ones.elements), address(cache.ones.scales)), result, slot, 1)
        self.mixed.give()

    def _weighed(self, b: MxMatrix, place: tuple[Address, Address], dst: Tile, slot: int, matrices: int) -> None:
        """dst = exponentials b of every head, the first head's columns of `dst` given."""
        c, cache, unit, scores = self.c, self.cache, self.unit, self._scores[slot]
        weights = Tile(scores.at, unit.rows, cache.positions, scores.stride)
        if not unit.whole:
            transposed_product(c, dst, weights, b, *place)
        else:
            step = unit.rows * scores.stride * STRIDE_UNIT
            self._heads(b, place, dst, weights, cache.head_dim, step, matrices, transposed=True)

    def _heads(
        self,
        b: MxMatrix,
        place: tuple[Address, Address],
        dst: Tile,
        a: Tile,
        dst_step: int,
        a_step: int,
        matrices: int,
        *,
        transposed: bool,
    ) -> None:
        """dst = a b^T, or a b if `transposed`, of every head; one load brings `matrices` of `b`: one of each head, or the same for all."""
        c, e, cache, unit = self.c, self.c.e, self.cache, self.unit
        load_tile(c, b, *place, matrices * cache.positions, cache.head_dim, kv=True)
        with c.ring.consume() as (slot, full, free):
            if unit.queries == 1:
                multiply_by(c, dst, a, slot, dst.cols, kv=True, transposed=transposed, wait=full, signal=free)
                return
            e.sync(Engine.MATRIX, wait=full)
            right, left, out = e.var(slot), e.var(a.at), e.var(dst.at)
            heads = {right: cache.positions * b.blocks * (matrices > 1), left: unit.group * a_step, out: unit.group * dst_step}
            with e.loop(unit.heads, heads), e.loop(unit.group, {left: a_step, out: dst_step}):
                multiply_by(c, dst.moved(out), a.moved(left), right, dst.cols, kv=True, transposed=transposed)
            e.sync(Engine.MATRIX, signal=free)
            e.release(right, left, out)

    def _weigh(self, slot: int) -> None:
        """Scores to exponentials and, if the array does not add them up, the reciprocals of their sums."""
        c, unit, scores = self.c, self.unit, self._scores[slot]
        self.scored.take()
        c.unary("V_MUL_I", scores, scores, value=functions.softmax_scale(self.cache.head_dim))
        self._hide(scores)
        c.reduce("V_RED_MAX", self._top, scores)
        c.unary("V_SUB_F", scores, scores, f=self._top)
        c.unary("V_EXP", scores, scores)
        if self._sums:
            self.weighed.give()
            return
        total = self._totals[slot]
        c.reduce("V_RED_SUM", total, scores)
        self.weighed.give()
        c.e.emit("F_RECIP", dst=total, a=total, count=unit.height)

    def _hide(self, scores: Tile) -> None:
        """Scores of what must not be seen become minus infinity."""
        c, unit = self.c, self.unit
        if self.unseen is None:
            return
        if self.unseen.rows == 1:
            c.binary("V_ADD", scores, scores, self.unseen)
            return
        start = c.e.var(scores.at)
        with c.e.loop(unit.queries, {start: unit.rows * scores.stride * STRIDE_UNIT}):
            head = Tile(Address(start, 0), unit.rows, scores.cols, scores.stride)
            c.binary("V_ADD", head, head, self.unseen)
        c.e.release(start)

    def _scale(self, number: int, slot: int) -> None:
        """The mixture of a unit times the reciprocals of its sums."""
        c, cache, unit = self.c, self.cache, self.unit
        self.mixed.take()
        first = self._head(self.context, number)
        if self._sums:
            sums = self._sums[slot]
            mixture = Tile(first.at, unit.rows, sums.cols, first.stride)
            c.unary("V_RECIP", sums, sums)
            c.binary("V_MUL", mixture, mixture, sums)
            return
        start, total = c.e.var(first.at), c.e.var(self._totals[slot])
        with c.e.loop(unit.queries, {start: cache.head_dim, total: unit.rows}):
            head = first.moved(start)
            c.unary("V_MUL_F", head, head, f=total)
        c.e.release(start, total)

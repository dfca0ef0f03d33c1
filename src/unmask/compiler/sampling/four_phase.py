"""The published sampling program (arXiv 2601.20706): position after position, chunk after chunk, vector after vector of VLEN."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby, pairwise
from typing import Any, NamedTuple

from unmask.compiler.context import Context, Tile
from unmask.compiler.emitter import Address, Value, Var, address
from unmask.compiler.memory import ceil_to
from unmask.compiler.sampling.logits import LOGITS_FORMAT, Logits, choose, drop
from unmask.compiler.sampling.streamed import Sampler
from unmask.errors import UnmaskError
from unmask.isa.table import STRIDE_UNIT, Engine
from unmask.numerics import mx

DEFAULT_CHUNK = 8192
"""Logits of a chunk, more than those from which on the published latency no longer depends on it (docs/sampling.md)."""
UNDER_WAY = 4
"""Loads of a vector under way at once: the outstanding reads of the published machine."""
_RING, _WINDOW = (Engine.LOAD, Engine.VECTOR, (0, 0)), (Engine.LOAD, Engine.LOAD, (UNDER_WAY,))


class _Part(NamedTuple):
    """Vectors of a chunk that are alike.

    Attributes:
        start, stop: its columns.
        more: whether a vector of the row came before it.
        other: columns of the vector of another chunk at the same place, 0 where that chunk has none.
    """

    start: int
    stop: int
    more: bool
    other: int


def _parts(size: int, other: int, vector: int, first: bool) -> Iterator[_Part]:
    """A chunk of `size` columns, another one of `other` beside it: the first vector of a row, whole ones, and what is left, apart."""
    whole = other // vector * vector
    borders = {0, min(vector, size) if first else 0, whole, min(whole + vector, size) if other > whole else 0, size}
    for start, stop in pairwise(sorted(borders)):
        yield _Part(start, stop, not first or start > 0, max(min(vector, other - start), 0))


class FourPhase:
    """Two buffers of a chunk each: a chunk is loaded, a vector at a time, while the one before it is worked on.

    The running maximum of a chunk with its index is found, vector by vector; then its exponentials overwrite it and are summed; then the
    next chunk's turn comes. No vector instruction begins before the one before it has ended, and no load of a position before the scalars
    of the position before it are there.
    """

    def __init__(self, c: Context, logits: Logits, s: Sampler, chunk: int | None = None) -> None:
        """Take the buffers, within the context's current scopes.

        Args:
            chunk: logits of a buffer, a multiple of 32; by default `DEFAULT_CHUNK`, or VLEN where that is more.

        Raises:
            SramOverflow: two chunks do not fit.
            UnmaskError: no such chunk.
        """
        self._c, self._logits, self._s = c, logits, s
        vlen = ceil_to(c.machine.vector.vlen, STRIDE_UNIT)
        if chunk is not None and (chunk < STRIDE_UNIT or chunk % STRIDE_UNIT):
            raise UnmaskError(f"chunk {chunk}: expected a positive multiple of {STRIDE_UNIT}")
        width = min(chunk or max(DEFAULT_CHUNK, vlen), ceil_to(logits.vocabulary, STRIDE_UNIT))
        self._vector, self._width = min(vlen, width), width
        self._sizes = [min(width, logits.vocabulary - at) for at in range(0, logits.vocabulary, width)]
        base = c.vector.take(min(len(self._sizes), 2) * width, f"two chunks of {width} logits")
        self._base, self._toggle = base, base ^ (base + width)
        self._noisy = c.vector.take(self._vector, "a vector of noisy logits") if s.temperature else None
        self._best, self._top, self._total = (c.scalars(1, "maxima and the sum of a row") for _ in range(3))
        self._full, self._free = c.e.take_semaphores(*_RING)
        (self._window,) = c.e.take_semaphores(*_WINDOW)
        with c.e.phase("sampling-1-confidence"):
            self._words = s.words(c, 1)

    def emit(self, first: Var, confidence: int) -> Value:
        """Sample the sequence whose rows start at register `first`; returns where its confidences are in the float SRAM."""
        e = self._c.e
        with e.phase("sampling-1-confidence"):
            row, position, score = e.var(first), e.var(self._s.p.block_start), e.var(confidence)
            with e.loop(self._s.length, {row: 1, position: 1, score: 1}):
                self._row(row, position, score)
            e.release(row, position, score)
        self._s.draw(self._c, confidence)
        return confidence

    def _row(self, row: Var, position: Var, score: Var) -> None:
        c, logits, sizes = self._c, self._logits, self._sizes
        source = c.e.multiply_add(row, logits.row_bytes, logits.at)
        scale = None if logits.form is None else c.e.multiply_add(row, logits.row_blocks, logits.scales)
        at, to, token = c.e.var(self._base), c.e.var(self._base), c.e.var(0)
        best, total, index = c.e.var(self._best), c.e.var(self._total), c.e.var(Address(row, self._s.tokens))
        top = best if self._noisy is None else c.e.var(self._top)

        def fetch(count: int, wait: tuple[int, ...] = ()) -> None:
            self._fetch(to, count, source, scale, wait)

        c.e.order(Engine.VECTOR, Engine.LOAD)
        self._vectors(0, sizes[0], fetch)
        # A chunk, the one that is fetched beside its maximum, the one that is fetched into what it leaves, and whether it is the first.
        beside = zip(sizes, [*sizes[1:], 0], [*sizes[2:], 0, 0], [True, *[False] * len(sizes)], strict=False)
        for (size, following, later, first), alike in groupby(beside):
            with c.e.loop(len(list(alike)), {}):
                for part in _parts(size, following, self._vector, first):

                    def find(count: int, part: _Part = part, first: bool = first) -> None:
                        self._find(at, count, token, position, best, top, index, score, part.more)
                        if part.other:
                            fetch(min(part.other, count), () if first else (self._free,))
                        for var in (at, token):
                            c.e.advance(var, count)

                    self._vectors(part.start, part.stop, find)
                c.e.advance(at, -size)
                for part in _parts(size, later, self._vector, first):

                    def add_up(count: int, part: _Part = part) -> None:
                        self._add_up(at, count, top, total, part.more, (self._free,) if part.other else ())
                        c.e.advance(at, count)

                    self._vectors(part.start, part.stop, add_up)
                for var, done in ((at, size), (to, following)):
                    c.e.advance(var, -done)
                    c.e.emit("S_XORI", rd=var, rs=var, value=self._toggle)
        with c.e.phase("sampling-2-scalars"):
            c.e.emit("F_EXP_WIN", dst=score, a=score, f=top, count=1)
            c.e.emit("F_RECIP", dst=total, a=total, count=1)
            c.e.emit("F_MUL", dst=score, a=score, b=total, count=1)
        c.e.release(source, at, to, token, best, total, index)
        c.e.release(*([] if scale is None else [scale]), *([] if top is best else [top]))

    def _columns(self, at: Value, count: int) -> Tile:
        return Tile(address(at), 1, count, -(-count // STRIDE_UNIT))

    def _vectors(self, start: int, stop: int, body: Callable[[int], None]) -> None:
        """`body` for every vector of some columns of a chunk: how long it is."""
        self._c.e.tiles(stop - start, self._vector, {}, body)

    def _fetch(self, to: Var, count: int, source: Var, scale: Var | None, wait: tuple[int, ...]) -> None:
        """Load a vector, and let the registers point to the next one."""
        c, logits = self._c, self._logits
        names: dict[str, Any] = {"wait": (*wait, self._window), "signal": (self._full, self._window)}
        shape: dict[str, Any] = {"rows": 1, "cols": count, "dst_stride": -(-count // STRIDE_UNIT)}
        if scale is None:
            c.e.emit("L_VEC", dst=to, src=source, src_stride=logits.row_bytes, **shape, **names)
        else:
            c.e.emit("L_MX", dst=to, src=source, scales=scale, src_stride=logits.row_blocks, format=LOGITS_FORMAT, **shape, **names)
            c.e.advance(scale, count // mx.BLOCK)
        c.e.advance(source, logits.bytes_of(count))
        c.e.advance(to, count)

    def _find(self, at: Var, count: int, token: Var, position: Var, best: Var, top: Var, index: Var, score: Var, running: bool) -> None:
        c, s = self._c, self._s
        logits = scores = self._columns(at, count)
        wait: tuple[int, ...] = (self._full,)
        for word in self._words:
            drop(c, logits, word, token, wait)
            wait = ()
        if self._noisy is not None:
            scores = self._columns(self._noisy, count)
            noise: dict[str, Any] = {"seed": s.p.seed, "step": s.p.step, "position": position, "token": token}
            c.unary("V_GUMBEL", scores, logits, wait=wait, temperature=s.temperature, **noise)
            c.reduce("V_RED_MAX", top, logits, running)
            wait = ()
        choose(c, scores, logits, token, running, best, index, score, wait)

    def _add_up(self, at: Var, count: int, top: Var, total: Var, running: bool, signal: tuple[int, ...]) -> None:
        c, logits = self._c, self._columns(at, count)
        c.unary("V_EXP_WIN", logits, logits, f=top)
        shape: dict[str, Any] = {"rows": 1, "cols": count, "a_stride": logits.stride}
        c.e.emit("V_RED_SUM_WIN", dst=total, a=logits.at, f=top, running=int(running), signal=signal, **shape)

    def release(self) -> None:
        """Give the semaphores back."""
        self._c.e.return_semaphores(*_RING, (self._full, self._free))
        self._c.e.return_semaphores(*_WINDOW, (self._window,))

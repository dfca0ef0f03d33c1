"""The sampling programs that never wait for a row's maximum: what they sample, and the two that stream logits from HBM.

Their confidence is the candidate's weight over the window sum of its row (`unmask.numerics.window`), the same bits in all of them, so they
commit the same tokens; `unmask.quant.streaming` is their reference and docs/decisions/0007-single-pass-sampling.md says why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from unmask.compiler.context import Context, Tile
from unmask.compiler.emitter import Address, Value, Var, address
from unmask.compiler.memory import ceil_to
from unmask.compiler.sampling.logits import LOGITS_FORMAT, Logits, LogitStream, Rows, choose, drop
from unmask.compiler.sampling.parameters import StepParameters
from unmask.decoding.policy import DREAM_SCORERS, Policy
from unmask.errors import UnmaskError
from unmask.isa.table import STRIDE_UNIT, Engine
from unmask.numerics import bf16, mx

SamplingProgram = Literal["general", "four-phase", "single-pass", "fused"]
PROGRAMS: tuple[SamplingProgram, ...] = get_args(SamplingProgram)
DEFAULT_VECTORS = 13
"""Vectors of VLEN logits that the published program loads at once; the paper does not say how many (docs/sampling.md)."""


def sampling_named(name: str) -> SamplingProgram:
    """A sampling program by its name.

    Raises:
        UnmaskError: there is none of that name.
    """
    for program in PROGRAMS:
        if program == name:
            return program
    raise UnmaskError(f"sampling program {name!r}: expected one of {', '.join(PROGRAMS)}")


@dataclass(frozen=True)
class Sampler:
    """What is sampled of every sequence.

    Attributes:
        temperature: BF16 bits; 0 for the arg-max.
        excluded: ids of tokens that are no candidates and have no probability.
        uniform: confidences are uniform draws, not probabilities (the scorer `random`).
        length: rows of a sequence.
        p: the step.
        tokens: integer SRAM address of the candidates of row 0.
    """

    temperature: int
    excluded: tuple[int, ...]
    uniform: bool
    length: int
    p: StepParameters
    tokens: int

    @classmethod
    def of(cls, policy: Policy, mask_token: int, eos_token: int, length: int, p: StepParameters, tokens: int) -> Sampler:
        """What a policy samples.

        Raises:
            UnmaskError: the policy is not served: see `check_served`.
        """
        check_served(policy, eos_token)
        heat = int(bf16.to_bits(np.array(bf16.rounded(policy.temperature), np.float32)))
        return cls(heat, tuple(policy.excluded(mask_token, eos_token)), policy.remasking == "random", length, p, tokens)

    def words(self, c: Context, rows: int) -> list[int]:
        """Fill integer SRAM words with the excluded ids, one per row each; their addresses."""
        words = [c.integers.take(rows, f"a token's id for {rows} rows") for _ in self.excluded]
        for word, token in zip(words, self.excluded, strict=True):
            c.e.emit("I_FILL", dst=word, value=token, count=rows)
        return words

    def draw(self, c: Context, confidence: Value) -> None:
        """Replace the confidences of a sequence by uniform draws, if they are to be."""
        if self.uniform:
            with c.e.phase("sampling-2-scalars"):
                c.e.emit("F_UNIFORM", dst=confidence, seed=self.p.seed, step=self.p.step, position=self.p.block_start, count=self.length)


def check_served(policy: Policy, eos_token: int) -> None:
    """Check that the streaming programs can sample under a policy.

    Raises:
        UnmaskError: names what only the general program does.
    """
    wants = {
        f"scorer {policy.remasking!r}": policy.remasking in DREAM_SCORERS,
        f"cfg_scale {policy.cfg_scale:g}": bool(policy.cfg_scale),
        "defer_eos": bool(policy.deferred(eos_token)),
    }
    for what, asked in wants.items():
        if asked:
            raise UnmaskError(f"sampling programs {', '.join(PROGRAMS[1:])} do not serve {what}: expected sampling 'general'")


def sample(c: Context, x: Tile, s: Sampler, first: int, token: Value, position: Value, running: bool) -> None:
    """One V_SAMPLE over a tile of logits whose rows keep their state from row accumulator `first` on."""
    c.e.emit(
        "V_SAMPLE",
        a=x.at,
        first=first,
        token=token,
        seed=s.p.seed,
        step=s.p.step,
        position=position,
        period=s.length,
        temperature=s.temperature,
        rows=x.rows,
        cols=x.cols,
        a_stride=x.stride,
        running=int(running),
    )


class SinglePass:
    """Every logit is read once: double-buffered tiles of rows, one V_SAMPLE each; rows of a tile are in flight together."""

    def __init__(self, c: Context, logits: Logits, s: Sampler) -> None:
        """Take the buffers, within the context's current scopes.

        Raises:
            SramOverflow: not even one row fits.
        """
        self._c, self._s = c, s
        with c.e.phase("sampling-1-confidence"):
            self._stream = LogitStream(c, logits, None, 1.0, s.length, False, 0, len(s.excluded))
            self._stream.exclude(s.words(c, self._stream.rows))

    def emit(self, first: Var, confidence: int) -> Value:
        """Sample the sequence whose rows start at register `first`; returns where its confidences are in the float SRAM."""
        e, count = self._c.e, self._stream.rows
        with e.phase("sampling-1-confidence"):
            row, position, score = e.var(first), e.var(self._s.p.block_start), e.var(confidence)
            e.tiles(self._s.length, count, {row: count, position: count, score: count}, lambda n: self._rows(Rows(row, position, score, n)))
            e.release(row, position, score)
        self._s.draw(self._c, confidence)
        return confidence

    def _rows(self, rows: Rows) -> None:
        c, s = self._c, self._s
        self._stream.each(rows, lambda chunk, token, running: sample(c, chunk, s, 0, token, rows.position, running))
        with c.e.phase("sampling-2-scalars"):
            c.e.emit("V_SAMPLE_END", dst=rows.confidence, index=Address(rows.row, s.tokens), first=0, count=rows.count)

    def release(self) -> None:
        """Give the registers back."""
        self._stream.release()


class FourPhase:
    """The published program (arXiv 2601.20706): position after position, chunk after chunk, vector after vector of VLEN, serially.

    A chunk of one row is loaded; then its running maximum with index is found, vector by vector; then its exponentials overwrite it and are
    summed; then the next chunk is loaded.
    """

    def __init__(self, c: Context, logits: Logits, s: Sampler, chunk: int | None = None) -> None:
        """Take the buffers, within the context's current scopes.

        Args:
            chunk: logits that are loaded at once, a multiple of 32; by default `DEFAULT_VECTORS` vectors.

        Raises:
            SramOverflow: the chunk does not fit.
            UnmaskError: no such chunk.
        """
        self._c, self._logits, self._s = c, logits, s
        vlen = ceil_to(c.machine.vector.vlen, STRIDE_UNIT)
        if chunk is not None and (chunk < STRIDE_UNIT or chunk % STRIDE_UNIT):
            raise UnmaskError(f"chunk {chunk}: expected a positive multiple of {STRIDE_UNIT}")
        self._chunk = min(chunk or DEFAULT_VECTORS * vlen, logits.vocabulary)
        self._vector = min(vlen, self._chunk)
        self._tile = c.tile(1, self._chunk, f"a chunk of {self._chunk} logits")
        self._noisy = c.tile(1, self._vector, "a vector of noisy logits") if s.temperature else None
        self._best, self._top, self._total = (c.scalars(1, "maxima and the sum of a row") for _ in range(3))
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
        c, logits, width = self._c, self._logits, self._chunk
        element, token = c.e.multiply_add(row, logits.row_bytes, logits.at), c.e.var(0)
        strides = {element: logits.bytes_of(width), token: width}
        scale = None
        if logits.form is not None:
            scale = c.e.multiply_add(row, logits.row_blocks, logits.scales)
            strides[scale] = width // mx.BLOCK

        def chunk(count: int, running: bool) -> None:
            self._load(count, element, scale)
            for word in self._words:
                drop(c, self._columns(address(self._tile.at), count), word, token)
            self._vectors(count, running, lambda at, n, more: self._find(at, n, token, position, row, score, more))
            self._vectors(count, running, self._add_up)

        chunk(width, False)
        for var, step in strides.items():
            c.e.advance(var, step)
        c.e.tiles(logits.vocabulary - width, width, strides, lambda count: chunk(count, True))
        c.e.release(*strides)
        with c.e.phase("sampling-2-scalars"):
            c.e.emit("F_EXP_WIN", dst=score, a=score, f=self._maximum, count=1)
            c.e.emit("F_RECIP", dst=self._total, a=self._total, count=1)
            c.e.emit("F_MUL", dst=score, a=score, b=self._total, count=1)

    @property
    def _maximum(self) -> int:
        return self._best if self._noisy is None else self._top

    def _columns(self, at: Value, count: int) -> Tile:
        return Tile(address(at), 1, count, -(-count // STRIDE_UNIT))

    def _load(self, count: int, element: Var, scale: Var | None) -> None:
        c, logits, tile = self._c, self._logits, self._columns(self._tile.at, count)
        c.e.order(Engine.VECTOR, Engine.LOAD)
        if scale is None:
            c.e.emit("L_VEC", dst=tile.at, src=element, rows=1, cols=count, dst_stride=tile.stride, src_stride=logits.row_bytes)
        else:
            c.e.emit(
                "L_MX",
                dst=tile.at,
                src=element,
                scales=scale,
                rows=1,
                cols=count,
                dst_stride=tile.stride,
                src_stride=logits.row_blocks,
                format=LOGITS_FORMAT,
            )
        c.e.order(Engine.LOAD, Engine.VECTOR)

    def _vectors(self, count: int, running: bool, body: Callable[[Var, int, bool], None]) -> None:
        """`body` for every vector of a chunk: a register with its place in the chunk, its length, and whether another came before it."""
        e, vector = self._c.e, min(self._vector, count)
        place = e.var(0)
        if running:
            e.tiles(count, vector, {place: vector}, lambda n: body(place, n, True))
        else:
            body(place, vector, False)
            e.advance(place, vector)
            e.tiles(count - vector, vector, {place: vector}, lambda n: body(place, n, True))
        e.release(place)

    def _find(self, place: Var, count: int, token: Var, position: Var, row: Var, score: Var, running: bool) -> None:
        c, s = self._c, self._s
        chunk = self._columns(Address(place, self._tile.at.offset), count)
        scores = chunk
        base = c.e.var(token)
        c.e.add(base, place)
        if self._noisy is not None:
            scores = self._columns(self._noisy.at, count)
            c.unary("V_GUMBEL", scores, chunk, seed=s.p.seed, step=s.p.step, position=position, token=base, temperature=s.temperature)
            c.reduce("V_RED_MAX", self._top, chunk, running)
        choose(c, scores, chunk, base, running, self._best, Address(row, s.tokens), score)
        c.e.release(base)

    def _add_up(self, place: Var, count: int, running: bool) -> None:
        c, chunk = self._c, self._columns(Address(place, self._tile.at.offset), count)
        c.unary("V_EXP_WIN", chunk, chunk, f=self._maximum)
        c.e.emit(
            "V_RED_SUM_WIN",
            dst=self._total,
            a=chunk.at,
            f=self._maximum,
            rows=1,
            cols=count,
            a_stride=chunk.stride,
            running=int(running),
        )

    def release(self) -> None:
        """Give the registers back: it keeps none."""

"""Sampling behind the LM head: the matrix engine's tiles of logits go to the sampler and nowhere else."""

from __future__ import annotations

from itertools import groupby
from typing import NamedTuple

from unmask.compiler.context import Context, Tile
from unmask.compiler.emitter import Address, Ring, Value, Var, address
from unmask.compiler.kernels.linear import load_tile, multiply, tile_width
from unmask.compiler.memory import MxMatrix
from unmask.compiler.sampling.block import commit_block
from unmask.compiler.sampling.logits import drop
from unmask.compiler.sampling.parameters import Sampled
from unmask.compiler.sampling.streamed import Sampler, sample
from unmask.decoding.policy import Policy
from unmask.isa.table import STRIDE_UNIT, Engine


class Segment(NamedTuple):
    """Rows of one sequence in a tile: the sequence, its first row and how many."""

    sequence: int
    first: int
    rows: int


class Fused:
    """Emits the LM head of tile after tile of rows, and keeps candidates and confidences of all sequences for the commit."""

    def __init__(self, c: Context, s: Sampler, batch: int) -> None:
        """Take room for confidences, within the current scope of the float SRAM, unless the row accumulators keep all rows."""
        self._c, self.sampler, self._batch = c, s, batch
        rows = batch * s.length
        self._confidences: int | None = None
        if rows > c.machine.vector.accumulators:
            self._confidences = c.scalars(rows, f"confidences of {batch} sequences of {s.length} positions")

    def project(self, x: Tile, head: MxMatrix, segments: list[Segment]) -> None:
        """Sample rows of x head^T; BF16 logits live for two tiles of columns in the vector SRAM.

        Args:
            x: [rows, width] in the vector SRAM.
            head: [vocabulary, width] in HBM.
            segments: of the rows, in order; rows of consecutive sequences follow each other.

        Raises:
            SramOverflow: two tiles of 32 columns do not fit.
        """
        c, s, e = self._c, self.sampler, self._c.e
        with c.vector.scope(), c.integers.scope():
            words = s.words(c, x.rows)
            fit = c.vector.free // (2 * x.rows) // STRIDE_UNIT * STRIDE_UNIT
            width = tile_width(c, head.rows, head.blocks, fit)
            stride = -(-width // STRIDE_UNIT)
            size = x.rows * stride * STRIDE_UNIT
            ring = Ring(e, Engine.MATRIX, Engine.VECTOR, c.vector.take(2 * size, f"two tiles of logits of {x.rows} rows"), size)
            elements, scales, token = e.var(head.elements), e.var(head.scales), e.var(0)
            strides: dict[Var, int] = {elements: width * head.row_bytes, scales: width * head.blocks, token: width}
            e.order(Engine.VECTOR, Engine.MATRIX)

            def tile(count: int, running: bool) -> None:
                load_tile(c, head, elements, scales, count, x.cols, kv=False)
                with ring.produce() as (slot, wait, signal):
                    multiply(c, Tile(address(slot), x.rows, count, stride), x, count, wait=wait, signal=signal)
                with ring.consume() as (slot, wait, signal):
                    e.sync(Engine.VECTOR, wait=wait)
                    logits = Tile(Address(slot, 0), x.rows, count, stride)
                    for word in words:
                        drop(c, logits, word, token)
                    self._sample(logits, segments, token, running)
                    e.sync(Engine.VECTOR, signal=signal)

            tile(width, False)
            for var, step in strides.items():
                e.advance(var, step)
            e.tiles(head.rows - width, width, strides, lambda count: tile(count, True))
            e.release(*strides)
            ring.release()
            if self._confidences is not None:
                row = self._row(segments[0])
                e.emit("V_SAMPLE_END", dst=self._confidences + row, index=s.tokens + row, first=0, count=x.rows)
        e.order(Engine.VECTOR, Engine.LOAD)  # the words of the excluded tokens are free for what comes next

    def _sample(self, logits: Tile, segments: list[Segment], token: Var, running: bool) -> None:
        c, s, done = self._c, self.sampler, 0
        start = self._row(segments[0]) if self._confidences is None else 0
        for whole, group in groupby(segments, lambda segment: segment.rows == s.length):
            # One instruction for all whole sequences: more would fill the vector engine's queue, and the sequencer could not run ahead.
            parts = list(group)
            for rows, first in [(len(parts) * s.length, 0)] if whole else [(part.rows, part.first) for part in parts]:
                part = Tile(logits.at + done * logits.stride * STRIDE_UNIT, rows, logits.cols, logits.stride)
                sample(c, part, s, start + done, token, Address(s.p.block_start, first), running)
                done += rows

    def _row(self, segment: Segment) -> int:
        return segment.sequence * self.sampler.length + segment.first

    def commit(self, policy: Policy, mask_token: int, canvas: int, *, opening: bool) -> Sampled:
        """Commit what was sampled; arguments as of `unmask.compiler.sampling.block.commit_block`."""
        s = self.sampler
        return commit_block(self._c, lambda: self, s.tokens, policy, mask_token, self._batch, s.length, canvas, s.p, opening=opening)

    def emit(self, first: Var, confidence: int) -> Value:
        """What is left to do of a sequence: everything is sampled already; see `unmask.compiler.sampling.block.Scoring`."""
        place: Value = confidence
        if self._confidences is None:
            with self._c.e.phase("sampling-2-scalars"):
                index = Address(first, self.sampler.tokens)
                self._c.e.emit("V_SAMPLE_END", dst=confidence, index=index, first=first, count=self.sampler.length)
        else:
            place = Address(first, self._confidences)
        self.sampler.draw(self._c, place)
        return place

    def release(self) -> None:
        """Give the registers back: it keeps none."""

"""Smoothing of a KV cache: K and V are divided by scales before they are packed, queries and attention output multiplied by them.

The methods are those of `unmask.quant.smoothing`. Where they find scales while the program runs (BAOS, arXiv 2601.20706v2), they do so
in steps that feed the whole canvas, from the column maxima of K and V. A tile that holds whole sequences is packed at once; otherwise K
and V go to HBM as BF16 first and are packed in a second sweep. Steps that feed a part of the canvas, and all steps under `static`, read
the scales.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

from unmask.compiler.context import Context, Tile
from unmask.compiler.emitter import Address, Var
from unmask.compiler.kernels.cache import KvCache, store_heads
from unmask.compiler.kernels.smoothing_buffers import SmoothingBuffers
from unmask.compiler.memory import MxMatrix
from unmask.isa.table import STRIDE_UNIT, Engine
from unmask.quant.smoothing.scales import FILL, LEAST_PEAK

Strides = dict[Var, tuple[int, int]]
"""Of registers that advance with the tiles of a step: from row to row, and from sequence to sequence."""


class Operand(IntEnum):
    """What is smoothed."""

    KEYS = 0
    VALUES = 1


class KvSmoothing:
    """The smoothing of one kind of step.

    Attributes:
        layer: register with what to add to the addresses of scales to come to the current layer.
    """

    def __init__(self, c: Context, at: SmoothingBuffers, cache: KvCache, sequences: int, *, warm: bool, tile_rows: int) -> None:
        """Set what to emit.

        Args:
            sequences: that are fed.
            warm: the step feeds the whole canvas.
            tile_rows: rows of a sequence in a tile.
        """
        self.c, self.at, self.cache, self.sequences = c, at, cache, sequences
        self.layer = c.e.var(0)
        self._finds = warm and at.method != "static"
        self._unpacked = at.unpacked if self._finds and tile_rows < cache.positions else None

    @contextmanager
    def storing(self, elements: Var, scales: Var, height: int) -> Iterator[Strides]:
        """Around the tiles that are given to `store`; afterwards everything is packed. Gives the registers that advance with the tiles.

        Args:
            elements, scales: registers with what to add to the addresses of the cache to come to the layer and the first row.
            height: rows to pack at once.
        """
        c = self.c
        if self._unpacked is None:
            with self.reading() as strides:
                yield strides
            return
        with c.vector.scope():
            with c.e.phase("smoothing"):
                self._peaks = [self._new_peaks(self.sequences) for _ in Operand]
            self._row, self._peak = c.e.var(self._unpacked), c.e.var(0)
            peak_stride = self._peaks[0].stride * STRIDE_UNIT
            yield {self._row: (self.at.row_bytes, self.cache.positions * self.at.row_bytes), self._peak: (0, peak_stride)}
            with c.e.phase("smoothing"):
                self._pack(elements, scales, height)
            c.e.release(self._row, self._peak)

    @contextmanager
    def reading(self) -> Iterator[Strides]:
        """Around the tiles that are given to `multiply_queries`. Gives the register that advances with the tiles."""
        self._factors = self.c.e.var(self.layer)
        yield {self._factors: (0, self.at.sequence_bytes)}
        self.c.e.release(self._factors)

    @property
    def to_next_sequence(self) -> dict[Var, int]:
        """What a loop over sequences must add to the register that `reading` gives."""
        return {self._factors: self.at.sequence_bytes}

    @property
    def known(self) -> bool:
        """Whether the scales are there before K and V are."""
        return not self._finds

    def divide(self, operand: Operand, x: Tile, sequences: int) -> None:
        """Rows [sequences * rows, width] of K or V divided by scales that are `known`."""
        c, rows = self.c, x.rows // sequences
        source = c.e.var(x.at)
        with c.vector.scope(), c.e.phase("smoothing"):
            inverse = c.tile(1, self.at.width, "scales")
            with c.e.loop(sequences, {source: rows * x.stride * STRIDE_UNIT} | self.to_next_sequence):
                c.load(inverse, Address(self._factors, self.at.place(operand, inverse=True)), self.at.row_bytes)
                part = Tile(Address(source, 0), rows, x.cols, x.stride)
                c.binary("V_MUL", part, part, inverse)
        c.e.release(source)

    def store(self, operand: Operand, x: Tile, sequences: int, elements: Address, scales: Address) -> None:
        """Rows [sequences * rows, width] of K or V to the cache, at the given addresses."""
        c, cache, rows = self.c, self.cache, x.rows // sequences
        if self._unpacked is not None:
            # Parts of one sequence.
            with c.e.phase("smoothing"):
                c.store(x, Address(self._row, operand * self.at.operand_bytes), self.at.row_bytes)
                self._raise(Address(self._peak, self._peaks[operand].at.offset), x)
            return
        source, e, s = c.e.var(x.at), c.e.var(elements), c.e.var(scales)
        part = Tile(Address(source, 0), rows, x.cols, x.stride)
        steps = {source: rows * x.stride * STRIDE_UNIT, e: cache.sequence_bytes, s: cache.sequence_blocks}
        with c.e.loop(sequences, steps | self.to_next_sequence), c.vector.scope():
            with c.e.phase("smoothing"):
                if self._finds:
                    peak = self._new_peaks(1)
                    self._raise(peak.at, part)
                    inverse = self._find(operand, peak)
                else:
                    inverse = c.tile(1, self.at.width, "scales")
                    c.load(inverse, Address(self._factors, self.at.place(operand, inverse=True)), self.at.row_bytes)
                c.binary("V_MUL", part, part, inverse)
            c.e.order(Engine.VECTOR, Engine.STORE)
            store_heads(c, cache, part, Address(e, 0), Address(s, 0))
            c.e.order(Engine.STORE, Engine.VECTOR)
        c.e.release(source, e, s)

    def multiply_queries(self, queries: Tile, sequences: int, steps: dict[Var, int]) -> None:
        """Multiply queries [rows, heads * head_dim] of every sequence by the scales of its K.

        Args:
            queries: of the first sequence, to which the register of `reading` leads; `steps` is what leads to those of the next one.
        """
        self._multiply_all(Operand.KEYS, queries, sequences, steps)

    def multiply_mixture(self, context: Tile, sequences: int, steps: dict[Var, int]) -> None:
        """Multiply the attention output by the scales of V, as `multiply_queries` does."""
        self._multiply_all(Operand.VALUES, context, sequences, steps)

    def _multiply_all(self, operand: Operand, x: Tile, sequences: int, steps: dict[Var, int]) -> None:
        c = self.c
        with c.vector.scope(), c.e.phase("smoothing"), c.e.loop(sequences, steps | self.to_next_sequence):
            scale = c.tile(1, self.at.width, "scales")
            c.load(scale, Address(self._factors, self.at.place(operand, inverse=False)), self.at.row_bytes)
            self._multiply(x, scale)

    def _multiply(self, x: Tile, scale: Tile) -> None:
        c, head_dim = self.c, self.cache.head_dim
        group = x.cols // self.at.width
        if group == 1:
            c.binary("V_MUL", x, x, scale)
            return
        head, factor = c.e.var(x.at), c.e.var(scale.at)
        heads = {head: group * head_dim, factor: head_dim}
        with c.e.loop(self.cache.heads, heads), c.e.loop(group, {head: head_dim}):
            part = Tile(Address(head, 0), x.rows, head_dim, x.stride)
            c.binary("V_MUL", part, part, Tile(Address(factor, 0), 1, head_dim, scale.stride))
        c.e.release(head, factor)

    def _new_peaks(self, sequences: int) -> Tile:
        """Rows of column maxima before any row of K or V is known."""
        least = LEAST_PEAK if self.at.method == "baos-bf16" else 0.0
        peaks = self.c.tile(sequences, self.at.width, "the column maxima of K or V")
        self.c.e.emit("V_FILL", dst=peaks.at, rows=peaks.rows, cols=peaks.cols, dst_stride=peaks.stride, value=least)
        return peaks

    def _raise(self, peaks: Address, x: Tile) -> None:
        """Take the rows of `x` into a row of column maxima."""
        self.c.e.emit("V_COL_ABSMAX", dst=peaks, a=x.at, rows=x.rows, cols=x.cols, a_stride=x.stride, running=1)

    def _pack(self, elements: Var, scales: Var, height: int) -> None:
        """Find the scales of all sequences, keep them in HBM, and pack what was set aside."""
        c, at, cache = self.c, self.at, self.cache
        c.e.order(Engine.STORE, Engine.LOAD)
        with self.reading():
            steps = {
                **self.to_next_sequence,
                self._row: cache.positions * at.row_bytes,
                self._peak: self._peaks[0].stride * STRIDE_UNIT,
                elements: cache.sequence_bytes,
                scales: cache.sequence_blocks,
            }
            with c.e.loop(self.sequences, steps):
                for operand, matrix in zip(Operand, (cache.keys, cache.values), strict=True):
                    with c.vector.scope():
                        peaks = self._peaks[operand]
                        inverse = self._find(operand, Tile(Address(self._peak, peaks.at.offset), 1, at.width, peaks.stride))
                        self._pack_operand(operand, matrix, inverse, elements, scales, min(height, cache.positions))

    def _pack_operand(self, operand: Operand, matrix: MxMatrix, inverse: Tile, elements: Var, scales: Var, height: int) -> None:
        c, row_bytes = self.c, self.at.row_bytes
        row = c.e.var(Address(self._row, operand * self.at.operand_bytes))
        e, s = c.e.var(Address(elements, matrix.elements)), c.e.var(Address(scales, matrix.scales))

        def chunk(rows: int) -> None:
            with c.vector.scope():
                tile = c.tile(rows, self.at.width, "unpacked rows of K or V")
                c.load(tile, row, row_bytes)
                c.binary("V_MUL", tile, tile, inverse)
                c.e.order(Engine.VECTOR, Engine.STORE)
                store_heads(c, self.cache, tile, Address(e, 0), Address(s, 0))
                c.e.order(Engine.STORE, Engine.VECTOR)

        c.e.tiles(self.cache.positions, height, {row: height * row_bytes, e: height * matrix.row_bytes, s: height * matrix.blocks}, chunk)
        c.e.release(row, e, s)

    def _find(self, operand: Operand, peak: Tile) -> Tile:
        """The reciprocals of the scales that follow from a row of column maxima; both are kept in HBM too."""
        c, method = self.c, self.at.method
        both = c.tile(2, self.at.width, "scales and their reciprocals")
        scale, inverse = _row(both, 0), _row(both, 1)
        if method == "baos-bf16":
            c.unary("V_MUL_I", scale, peak, value=FILL)
        elif method == "baos":
            c.unary("V_POW2", scale, peak)
        else:
            with c.floats.scope():
                largest = c.scalars(1, "the largest magnitude of K or V")
                c.reduce("V_RED_MAX", largest, peak)
                c.e.emit("V_FILL", dst=scale.at, rows=1, cols=scale.cols, dst_stride=scale.stride, value=1.0)
                c.unary("V_MUL_F", scale, scale, f=largest)
                c.unary("V_POW2", scale, scale)
        c.unary("V_RECIP", inverse, scale)
        c.store(both, Address(self._factors, self.at.place(operand, inverse=False)), self.at.row_bytes)
        return inverse


def _row(x: Tile, number: int) -> Tile:
    """One row of a tile."""
    return Tile(x.at + number * x.stride * STRIDE_UNIT, 1, x.cols, x.stride)

"""Smoothing of a KV cache: K and V are divided by scales before they are packed, queries and attention output multiplied by them.

The methods are those of `unmask.quant.smoothing`. Where they find scales while the program runs (BAOS, arXiv 2601.20706v2), a step that
feeds the whole canvas leaves K and V in HBM as BF16 first, keeps the running maxima of their columns, and packs them in a second sweep.
Steps that feed a part of the canvas, and all steps under `static`, read the scales from HBM and pack at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from unmask.compiler.context import Context, Tile
from unmask.compiler.emitter import Address, Var
from unmask.compiler.kernels.attention import KvCache, store_heads
from unmask.compiler.memory import Hbm, MxMatrix, bf16_bytes
from unmask.errors import UnmaskError
from unmask.isa.table import BF16_BYTES, STRIDE_UNIT, Engine
from unmask.models.layers import Architecture
from unmask.numerics import bf16, functions
from unmask.quant.smoothing.scales import FILL, LEAST_PEAK
from unmask.quant.smoothing.static import KvScales

Strides = dict[Var, tuple[int, int]]
"""Of registers that advance with the tiles of a step: from row to row, and from sequence to sequence."""


class Operand(IntEnum):
    """What is smoothed."""

    KEYS = 0
    VALUES = 1


@dataclass(frozen=True)
class SmoothingBuffers:
    """HBM addresses, all of BF16 rows of `width` = K/V heads x head dimension.

    Attributes:
        method: of `unmask.machine.config.Smoothing`, but not `none`.
        scales: four rows (s_k, 1 / s_k, s_v, 1 / s_v) of layer 0 and sequence 0.
        sequence_bytes, layer_bytes: from there to those of the next one; 0 if they are the same.
        unpacked: K of a whole canvas of every sequence, [sequences * positions, width], then V; None under `static`.
        operand_bytes: from K to V in there.
    """

    method: str
    width: int
    scales: int
    sequence_bytes: int
    layer_bytes: int
    unpacked: int | None = None
    operand_bytes: int = 0

    @property
    def row_bytes(self) -> int:
        return self.width * BF16_BYTES

    def place(self, operand: Operand, *, inverse: bool) -> int:
        """HBM address of a row of scales of layer 0 and sequence 0."""
        return self.scales + (2 * operand + inverse) * self.row_bytes


def reserve_smoothing(
    hbm: Hbm, shape: Architecture, method: str, calibrated: KvScales | None, sequences: int, positions: int, *, kept: bool
) -> SmoothingBuffers | None:
    """Room for scales, or the calibrated ones themselves; None for the method `none`.

    Args:
        calibrated: those of `static`.
        kept: scales stay from step to step, for all layers; otherwise the layers use the same room.

    Raises:
        UnmaskError: `static` without scales, or with those of a network of another shape.
    """
    if method == "none":
        return None
    width = shape.kv_heads * shape.head_dim
    rows = 2 * len(Operand) * width * BF16_BYTES
    if method == "static":
        if calibrated is None:
            raise UnmaskError("smoothing 'static' needs scales that were calibrated for the network")
        calibrated.check(shape)
        return SmoothingBuffers(method, width, hbm.place("kv_scales", bf16_bytes(_rows(calibrated))), 0, rows)
    layer_bytes = sequences * rows
    scales = hbm.reserve("kv_scales", layer_bytes * (shape.layers if kept else 1))
    operand_bytes = sequences * positions * width * BF16_BYTES
    unpacked = hbm.reserve("kv_unpacked", len(Operand) * operand_bytes)
    return SmoothingBuffers(method, width, scales, rows, layer_bytes if kept else 0, unpacked, operand_bytes)


def _rows(calibrated: KvScales) -> NDArray[np.float32]:
    """[layers, 4, heads * head_dim]."""
    parts = (bf16.round(part.float().numpy().reshape(len(part), -1)) for part in (calibrated.keys, calibrated.values))
    return np.stack([row for scales in parts for row in (scales, functions.reciprocal(scales))], axis=1)


class KvSmoothing:
    """The smoothing of one kind of step.

    Attributes:
        layer: register with what to add to the addresses of scales to come to the current layer.
    """

    def __init__(self, c: Context, at: SmoothingBuffers, cache: KvCache, sequences: int, *, warm: bool) -> None:
        """Set what to emit; a `warm` step feeds the whole canvas."""
        self.c, self.at, self.cache, self.sequences = c, at, cache, sequences
        self.layer = c.e.var(0)
        self._unpacked = at.unpacked if warm else None

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
            least = LEAST_PEAK if self.at.method == "baos-bf16" else 0.0
            self._peaks = [c.tile(self.sequences, self.at.width, "the column maxima of K or V") for _ in Operand]
            with c.e.phase("smoothing"):
                for peaks in self._peaks:
                    c.e.emit("V_FILL", dst=peaks.at, rows=peaks.rows, cols=peaks.cols, dst_stride=peaks.stride, value=least)
            self._row, self._peak = c.e.var(self._unpacked), c.e.var(0)
            peak_stride = self._peaks[0].stride * STRIDE_UNIT
            yield {self._row: (self.at.row_bytes, self.cache.positions * self.at.row_bytes), self._peak: (0, peak_stride)}
            with c.e.phase("smoothing"):
                self._pack(elements, scales, height)
            c.e.release(self._row, self._peak)

    @contextmanager
    def reading(self) -> Iterator[Strides]:
        """Around the tiles that are given to `multiply`. Gives the register that advances with the tiles."""
        self._factors = self.c.e.var(self.layer)
        yield {self._factors: (0, self.at.sequence_bytes)}
        self.c.e.release(self._factors)

    @property
    def to_next_sequence(self) -> dict[Var, int]:
        """What a loop over sequences must add to the register that `reading` gives."""
        return {self._factors: self.at.sequence_bytes}

    def store(self, operand: Operand, x: Tile, sequences: int, elements: Address, scales: Address) -> None:
        """Rows [sequences * rows, width] of K or V to the cache, at the given addresses."""
        c, cache, rows = self.c, self.cache, x.rows // sequences
        tile_elements = rows * x.stride * STRIDE_UNIT
        source = c.e.var(x.at)
        part = Tile(Address(source, 0), rows, x.cols, x.stride)
        if self._unpacked is not None:
            with c.e.phase("smoothing"):
                c.store(x, Address(self._row, operand * self.at.operand_bytes), self.at.row_bytes)
                peak = c.e.var(Address(self._peak, self._peaks[operand].at.offset))
                with c.e.loop(sequences, {source: tile_elements, peak: self._peaks[operand].stride * STRIDE_UNIT}):
                    c.e.emit("V_COL_ABSMAX", dst=peak, a=source, rows=rows, cols=x.cols, a_stride=x.stride, running=1)
                c.e.release(peak, source)
            return
        e, s = c.e.var(elements), c.e.var(scales)
        steps = {source: tile_elements, e: cache.sequence_bytes, s: cache.sequence_blocks}
        with c.e.loop(sequences, steps | self.to_next_sequence):
            self._scale(operand, part, inverse=True)
            store_heads(c, cache, part, Address(e, 0), Address(s, 0))
        c.e.release(source, e, s)

    def multiply(self, operand: Operand, x: Tile) -> None:
        """Multiply rows [rows, heads * head_dim] of one sequence by their scales: queries by those of K, attention output by those of V."""
        self._scale(operand, x, inverse=False)

    def _scale(self, operand: Operand, x: Tile, *, inverse: bool) -> None:
        c, head_dim = self.c, self.cache.head_dim
        group = x.cols // self.at.width
        with c.e.phase("smoothing"), c.vector.scope():
            scale = c.tile(1, self.at.width, "scales")
            c.load(scale, Address(self._factors, self.at.place(operand, inverse=inverse)), self.at.row_bytes)
            if group == 1:
                c.binary("V_MUL", x, x, scale)
                return
            head, factor = c.e.var(x.at), c.e.var(scale.at)
            heads = {head: group * head_dim, factor: head_dim}
            with c.e.loop(self.cache.heads, heads), c.e.loop(group, {head: head_dim}):
                part = Tile(Address(head, 0), x.rows, head_dim, x.stride)
                c.binary("V_MUL", part, part, Tile(Address(factor, 0), 1, head_dim, scale.stride))
            c.e.release(head, factor)

    def _pack(self, elements: Var, scales: Var, height: int) -> None:
        """Find the scales of all sequences, keep them in HBM, and pack what was set aside."""
        c, at, cache = self.c, self.at, self.cache
        c.e.order(Engine.STORE, Engine.LOAD)
        with c.vector.scope(), self.reading():
            scale, inverse = (c.tile(1, at.width, "scales") for _ in range(2))
            steps = {
                **self.to_next_sequence,
                self._row: cache.positions * at.row_bytes,
                self._peak: scale.stride * STRIDE_UNIT,
                elements: cache.sequence_bytes,
                scales: cache.sequence_blocks,
            }
            with c.e.loop(self.sequences, steps):
                for operand, matrix in zip(Operand, (cache.keys, cache.values), strict=True):
                    self._find(scale, inverse, Tile(Address(self._peak, self._peaks[operand].at.offset), 1, at.width, scale.stride))
                    c.store(scale, Address(self._factors, at.place(operand, inverse=False)), at.row_bytes)
                    c.store(inverse, Address(self._factors, at.place(operand, inverse=True)), at.row_bytes)
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
                store_heads(c, self.cache, tile, Address(e, 0), Address(s, 0))

        c.e.tiles(self.cache.positions, height, {row: height * row_bytes, e: height * matrix.row_bytes, s: height * matrix.blocks}, chunk)
        c.e.release(row, e, s)

    def _find(self, scale: Tile, inverse: Tile, peak: Tile) -> None:
        """Scales and their reciprocals from column maxima, all of one row."""
        c, method = self.c, self.at.method
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

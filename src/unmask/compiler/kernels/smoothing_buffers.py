"""Where the scales of a KV cache are in HBM, and the calibrated ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unmask.compiler.memory import Hbm, bf16_bytes
from unmask.errors import UnmaskError
from unmask.isa.table import BF16_BYTES
from unmask.models.layers import Architecture
from unmask.numerics import bf16, functions
from unmask.quant.smoothing.static import KvScales


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

    def place(self, operand: int, *, inverse: bool) -> int:
        """HBM address of a row of scales of layer 0 and sequence 0."""
        return self.scales + (2 * operand + inverse) * self.row_bytes


def reserve_smoothing(
    hbm: Hbm, shape: Architecture, method: str, calibrated: KvScales | None, sequences: int, positions: int, *, kept: bool, filled: bool
) -> SmoothingBuffers | None:
    """Room for scales, or the calibrated ones themselves; None for the method `none`.

    Args:
        calibrated: those of `static`.
        kept: scales stay from step to step, for all layers; otherwise the layers use the same room.
        filled: what the program starts from has its values; otherwise `static` needs no scales either.

    Raises:
        UnmaskError: `static` without scales, or with those of a network of another shape.
    """
    if method == "none":
        return None
    width = shape.kv_heads * shape.head_dim
    rows = 2 * 2 * width * BF16_BYTES
    if method == "static":
        scales = hbm.reserve("kv_scales", shape.layers * rows)
        if filled:
            if calibrated is None:
                raise UnmaskError("smoothing 'static' needs scales that were calibrated for the network")
            calibrated.check(shape)
            hbm.fill("kv_scales", bf16_bytes(_rows(calibrated)))
        return SmoothingBuffers(method, width, scales, 0, rows)
    layer_bytes = sequences * rows
    scales = hbm.reserve("kv_scales", layer_bytes * (shape.layers if kept else 1))
    operand_bytes = sequences * positions * width * BF16_BYTES
    unpacked = hbm.reserve("kv_unpacked", 2 * operand_bytes)
    return SmoothingBuffers(method, width, scales, rows, layer_bytes if kept else 0, unpacked, operand_bytes)


def _rows(calibrated: KvScales) -> NDArray[np.float32]:
    """[layers, 4, heads * head_dim]."""
    parts = (bf16.round(part.float().numpy().reshape(len(part), -1)) for part in (calibrated.keys, calibrated.values))
    return np.stack([row for scales in parts for row in (scales, functions.reciprocal(scales))], axis=1)

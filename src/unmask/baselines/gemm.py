"""Matrix products as cuBLAS runs them: tiles of the result, one per thread block, in waves over the multiprocessors.

A product C[m, n] = A[m, k] B[k, n] is cut into tiles; a tile is a thread block's, or that of several which split k among them and add up.
As many thread blocks as there are multiprocessors make a wave; the last one is as long as the others however few blocks it has. Of all
tiles and splits the fastest is taken, as the library's heuristic tries to; where it does not, the model is too fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.baselines.gpu import Gemm, Gpu
from unmask.baselines.kernel import Kernel

SPLITS = (1, 2, 3, 4, 6)
"""Into how many parts k may be cut."""
K_STEP = 32
"""A thread block goes over k in steps of so many."""
BF16_BYTES = 2
_Array = NDArray[np.float64]


def tile_of(name: str) -> tuple[int, int]:
    """Rows and columns of a tile by its name."""
    rows, columns = name.split("x")
    return int(rows), int(columns)


def candidates(tiles: Mapping[str, float]) -> tuple[_Array, _Array, _Array, _Array]:
    """Rows, columns, splits and relative time of every way to cut a product, each [candidates]."""
    ways = [(*tile_of(name), split, cost) for name, cost in tiles.items() for split in SPLITS]
    rows, columns, splits, costs = np.array(ways, dtype=np.float64).T
    return rows, columns, splits, costs


def gemm_seconds(gpu: Gpu, m: Any, n: int, k: int, batch: int = 1, weight_bits: float = 16, fit: Gemm | None = None) -> _Array:
    """Device time of products in BF16 with FP32 sums.

    Args:
        gpu: what runs them.
        m: rows, a number or any array of them.
        n: columns.
        k: length of the dot products.
        batch: products of one launch, each with operands of its own.
        weight_bits: of an element of B in memory; below 16, unpacking is taken to cost nothing.
        fit: other coefficients than the GPU's.

    Returns:
        Seconds, of the shape of `m`.
    """
    fit = fit or gpu.fit.gemm
    m = np.asarray(m, dtype=np.float64)[..., None]
    rows, columns, splits, costs = candidates(fit.tiles if weight_bits == 16 else {**fit.tiles, **fit.narrow_tiles})
    blocks = np.ceil(m / rows) * np.ceil(n / columns) * splits * batch
    waves = np.ceil(blocks / gpu.multiprocessors)
    busy = blocks / (waves * gpu.multiprocessors)
    rate = gpu.bf16_tflops * 1e12 / gpu.multiprocessors * fit.math * (1 - fit.droop * busy)
    length = np.ceil(k / splits / K_STEP) * K_STEP
    arithmetic = waves * 2 * rows * columns * length * costs / rate
    bandwidth = gpu.memory_gbps * 1e9
    memory = batch * gemm_bytes(m, n, k, weight_bits) / (bandwidth * fit.dram)
    longer, shorter = np.maximum(arithmetic, memory), np.minimum(arithmetic, memory)
    joined = longer * (1 + (shorter / longer) ** fit.overlap) ** (1 / fit.overlap)
    partial = np.where(splits > 1, batch * m * n * (4 * splits + BF16_BYTES), 0.0)
    adding = np.where(splits > 1, fit.fixed_us * 0.5e-6, 0.0) + partial / (bandwidth * fit.split_k)
    best: _Array = (fit.fixed_us * 1e-6 + joined + adding).min(axis=-1)
    return best


def gemm_bytes(m: Any, n: int, k: int, weight_bits: float = 16) -> Any:
    """Bytes of both operands and the result."""
    return BF16_BYTES * (m * k + m * n) + n * k * weight_bits / 8


def gemm(gpu: Gpu, operator: str, name: str, m: int, n: int, k: int, batch: int = 1, weight_bits: float = 16) -> Kernel:
    """See `gemm_seconds`."""
    seconds = float(gemm_seconds(gpu, m, n, k, batch, weight_bits))
    return Kernel(operator, name, seconds, batch * gemm_bytes(m, n, k, weight_bits), 2.0 * m * n * k * batch)

"""Values of lanes for the tests of units, and how they enter a unit's port."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SPECIAL = np.array([0x7FC0, 0x7F80, 0xFF80, 0x0000, 0x8000, 0x0001, 0x8001, 0x7F7F, 0xFF7F, 0x3F80, 0xBF80], np.uint16)


def bits_of_lanes(rng: np.random.Generator, vectors: int, lanes: int) -> NDArray[np.uint16]:
    """BF16 bits [vectors, lanes]: vectors of any bits (a NaN always canonical), of few values that tie, and of special values."""
    anything = rng.integers(0, 1 << 16, (vectors, lanes)).astype(np.uint16)
    anything[(anything & 0x7FFF) > 0x7F80] = 0x7FC0
    close = (0x4000 + rng.integers(0, 3, (vectors, lanes))).astype(np.uint16)
    special = rng.choice(SPECIAL, (vectors, lanes))
    kind = rng.integers(0, 4, (vectors, 1))
    mixed = np.where(rng.random((vectors, lanes)) < 0.1, special, anything)
    return np.select([kind == 0, kind == 1, kind == 2], [anything, close, special], mixed).astype(np.uint16)


def pack_lanes(values: NDArray[Any], width: int) -> NDArray[np.uint32]:
    """The integers of lanes [vectors, lanes], each of `width` bits, as the uint32 words [vectors, words] of one port, lane 0 lowest."""
    bits = (values.astype(np.uint64)[..., None] >> np.arange(width, dtype=np.uint64)) & np.uint64(1)
    flat = bits.reshape(len(values), -1).astype(np.uint8)
    flat = np.pad(flat, ((0, 0), (0, -flat.shape[1] % 32)))
    return np.packbits(flat, axis=1, bitorder="little").view("<u4")

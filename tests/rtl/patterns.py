"""Bit patterns that are worth trying: all of BF16, and random ones thick with the edges of each format."""

import numpy as np
from numpy.typing import NDArray

from unmask.numerics._arrays import Float32, Uint16, Uint32

EVERY_BF16 = np.arange(1 << 16, dtype=np.uint16)


def bf16_pairs(count: int, seed: int) -> tuple[Uint16, Uint16]:
    """Random pairs: anything with anything, close exponents (which cancel and tie), and special values with special values."""
    random = np.random.default_rng(seed)
    a, b = (random.integers(0, 1 << 16, 3 * count, dtype=np.uint16) for _ in range(2))
    near = ((a[count : 2 * count].astype(np.int64) & 0x7F80) + 128 * random.integers(-10, 11, count)) & 0x7F80
    b[count : 2 * count] = (b[count : 2 * count] & 0x807F) | near.astype(np.uint16)
    special = _special_bf16()
    for values in (a, b):
        values[2 * count :] = random.choice(special, count)
    return a, b


def _special_bf16() -> Uint16:
    fields = np.array([0, 1, 2, 3, 10, 63, 64, 126, 127, 128, 190, 191, 252, 253, 254, 255])
    fractions = np.array([0, 1, 2, 0x3F, 0x40, 0x41, 0x7E, 0x7F])
    magnitudes = ((fields << 7)[:, None] | fractions).ravel()
    return np.concatenate([magnitudes, magnitudes | 0x8000]).astype(np.uint16)


def fp32(count: int, seed: int) -> Uint32:
    """Random patterns, a third of them special: subnormal, infinite, NaN with any payload, few or many fraction bits."""
    random = np.random.default_rng(seed)
    bits = random.integers(0, 1 << 32, count, dtype=np.uint32)
    fields = random.choice(np.array([0, 1, 2, 23, 24, 103, 104, 126, 127, 128, 150, 151, 230, 252, 253, 254, 255], np.uint32), count)
    fractions = random.choice(np.array([0, 1, 2, 3, 1 << 22, (1 << 22) + 1, (1 << 23) - 1, (1 << 23) - 2], np.uint32), count)
    shape = random.integers(0, 4, count)
    bits = np.where(shape == 1, (bits & np.uint32(0x807FFFFF)) | fields << np.uint32(23), bits)
    return np.where(shape == 2, (bits & np.uint32(0x80000000)) | fields << np.uint32(23) | fractions, bits)


def fp32_pairs(count: int, seed: int) -> tuple[Uint32, Uint32]:
    """Random pairs: a half of them of close exponents, which cancel and tie."""
    a, b = fp32(count, seed), fp32(count, seed + 1)
    random = np.random.default_rng(seed + 2)
    near = ((a.astype(np.int64) & 0x7F800000) + (random.integers(-26, 27, count) << 23)) & 0x7F800000
    return a, np.where(random.integers(0, 2, count) == 1, (b & np.uint32(0x807FFFFF)) | near.astype(np.uint32), b)


def as_fp32(bits: NDArray[np.int64] | Uint32) -> Float32:
    """The values of FP32 patterns."""
    return bits.astype(np.uint32).view(np.float32)


def to_fp32(values: Float32) -> NDArray[np.int64]:
    """The patterns of FP32 values, NaN canonical."""
    bits = np.where(np.isnan(values), np.uint32(0x7FC00000), np.asarray(values, np.float32).view(np.uint32))
    return bits.astype(np.int64)

"""Values that are hard on arithmetic: what random programs compute on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SPECIAL_BF16 = np.array(
    [
        0x0000, 0x8000,  # zeros
        0x7F80, 0xFF80,  # infinities
        0x7FC0,  # NaN
        0x0001, 0x8001, 0x007F, 0x807F,  # subnormals
        0x0080, 0x8080,  # smallest normals
        0x7F7F, 0xFF7F,  # largest
        0x3F80, 0xBF80, 0x3F81, 0x4000, 0x3F00,  # about one
        0x42B1, 0x42B2, 0xC2AE, 0xC2B8,  # about where e^x overflows and underflows
    ],
    np.uint16,
)  # fmt: skip
SPECIAL_FP32 = np.array(
    [
        0x00000000, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0x00000001, 0x80000001, 0x007FFFFF, 0x00800000, 0x7F7FFFFF,
        0x3F800000, 0xBF800000, 0x3F800001, 0x3F7FFFFF, 0x33800000, 0x4B7FFFFF, 0x2F800000,
    ],
    np.uint32,
)  # fmt: skip
SPECIAL_INT32 = np.array([0, 1, -1, 2, 31, 2**31 - 1, -(2**31), 2**24 + 1, 2**25 + 3, -(2**24) - 1], np.int64).astype(np.int32)


def bf16_bits(rng: np.random.Generator, count: int) -> NDArray[np.uint16]:
    """Bit patterns of one style: logits, ties, special values among others, any finite number, or nothing but special values."""
    style = rng.integers(6)
    if style == 0:
        return _bits(rng.normal(0, rng.choice([0.1, 4, 30]), count))
    if style == 1:
        return _bits(rng.choice(rng.normal(0, 4, 3), count))
    if style == 2:
        return np.where(rng.random(count) < 0.2, rng.choice(SPECIAL_BF16, count), _bits(rng.normal(0, 8, count))).astype(np.uint16)
    if style == 3:
        bits = rng.integers(0, 1 << 16, count).astype(np.uint16)
        return np.where((bits & 0x7F80) == 0x7F80, bits & 0x807F, bits).astype(np.uint16)
    if style == 4:
        return np.asarray(rng.choice(SPECIAL_BF16, count), np.uint16)
    # Neighbours of one number, and their negatives: ties of rounding and of comparison.
    return (rng.integers(0x3F00, 0x4300) + rng.integers(0, 3, count) + 0x8000 * rng.integers(0, 2, count)).astype(np.uint16)


def _bits(x: NDArray[np.float64]) -> NDArray[np.uint16]:
    return (x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def words(rng: np.random.Generator, count: int, boolean: bool) -> NDArray[np.int32]:
    """INT32 words; 0 and 1 if `boolean`: none, all, or some of them 1; else special ones, any, keys of BF16 values, or small ones."""
    if boolean:
        return np.asarray(rng.random(count) < rng.choice([0, 0.2, 0.7, 1]), np.int32)
    style = rng.integers(5)
    if style == 0:
        return np.asarray(rng.choice(SPECIAL_INT32, count), np.int32)
    if style == 1:
        return rng.integers(-(2**31), 2**31, count).astype(np.int32)
    if style == 2:
        keys = rng.integers(0, 1 << 16, count)
        return np.where(rng.random(count) < 0.2, rng.choice([0, 0x8000, 0xFFFF, 0x10000], count), keys).astype(np.int32)
    return rng.integers(0, rng.choice([2, 12, 60]), count).astype(np.int32)


def mx_bytes(rng: np.random.Generator, blocks: int, block_bytes: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Element bytes [blocks * block_bytes] and scales [blocks] of MX blocks: any codes; scales about 1, at the ends, or NaN."""
    elements = rng.integers(0, 256, blocks * block_bytes).astype(np.uint8)
    scales = rng.integers(118, 136, blocks)
    return elements, np.where(rng.random(blocks) < 0.2, rng.choice([0, 1, 100, 150, 253, 254, 255], blocks), scales).astype(np.uint8)


def special_fp32(rng: np.random.Generator) -> float:
    """One FP32 number of `SPECIAL_FP32`."""
    return float(rng.choice(SPECIAL_FP32).view(np.float32))


def fp32(rng: np.random.Generator) -> float:
    """One FP32 number."""
    if rng.random() < 0.4:
        return special_fp32(rng)
    return float(np.float32(rng.normal(0, rng.choice([1e-3, 1, 100]))))


def bf16(rng: np.random.Generator) -> float:
    """One BF16 number."""
    return float((bf16_bits(rng, 1).astype(np.uint32) << 16).view(np.float32)[0])

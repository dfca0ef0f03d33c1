"""The tree of sums against `unmask.numerics.window` and `unmask.numerics.accumulator`."""

import numpy as np
import pytest

from unmask.numerics import accumulator, bf16, functions, window
from unmask.rtl.functions import NO_LEVEL
from unmask.rtl.window import Sum, WindowTree

from .lanes import bits_of_lanes, pack_lanes
from .streaming import stream

VECTORS = 1500


def summed(lanes, registers, kind, bits, mask):
    significand, exponent = functions.weight(bf16.from_bits(bits))
    leading = np.where(significand > 0, exponent + 7, 0)
    inputs = {
        "kind": np.full(len(bits), int(kind)),
        "values": pack_lanes(bits, 16),
        "significands": pack_lanes(significand, 8),
        "exponents": pack_lanes(leading, 26),
        "mask": pack_lanes(mask, 1),
    }
    found = stream(WindowTree(lanes, registers), inputs, registers)
    level = found["level"].astype(np.int64)
    level = np.where(level >> 20, level - (1 << 21), level)
    return level, found["upper"].astype(np.int64), found["lower"].astype(np.int64), found["invalid"] != 0


def logits(rng, lanes):
    """Bits [VECTORS, lanes]: anything, and levels that are the same, next to each other, and far apart."""
    scale = 10.0 ** rng.uniform(-1, 4, (VECTORS, 1))
    close = bf16.to_bits(bf16.round((rng.normal(size=(VECTORS, lanes)) * scale).astype(np.float32)))
    return np.where(rng.random((VECTORS, 1)) < 0.3, bits_of_lanes(rng, VECTORS, lanes), close)


@pytest.mark.parametrize(("lanes", "registers"), [(2, 0), (8, 2), (8, 7), (32, 4)])
def test_a_tree_sums_as_the_numerics_do(lanes, registers):
    rng = np.random.default_rng(lanes + registers)
    bits = logits(rng, lanes)
    mask = rng.random(bits.shape) < rng.choice([0.0, 0.3, 1.0], (VECTORS, 1))
    x = bf16.from_bits(bits)

    level, upper, lower, invalid = summed(lanes, registers, Sum.WINDOW, bits, mask)
    expected = window.empty(VECTORS)
    window.add_rows(expected, np.where(mask, x, np.float32(-np.inf)))
    np.testing.assert_array_equal(np.where(level == NO_LEVEL, window.LOWEST, level), expected[:, 0])
    np.testing.assert_array_equal(np.stack([upper, lower], 1), expected[:, 1:])
    np.testing.assert_array_equal(invalid, (mask & (np.isnan(x) | (x == np.inf))).any(axis=1))

    small = bits.copy()
    narrowed = (small & 0x807F) | (rng.integers(60, 165, bits.shape).astype(np.uint16) << 7)
    small = np.where(rng.random(bits.shape) < 0.9, narrowed, small).astype(np.uint16)
    level, upper, lower, invalid = summed(lanes, registers, Sum.FIXED, small, mask)
    total, bad = accumulator.sum_rows(np.where(mask, bf16.from_bits(small), np.float32(0)))
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal((upper << 32) + lower, total)
    np.testing.assert_array_equal(invalid, bad)

    unit = (bits & 0x7F) | (rng.integers(40, 127, bits.shape).astype(np.uint16) << 7)
    unit = np.where(rng.random(bits.shape) < 0.9, unit, bits).astype(np.uint16)
    level, upper, lower, invalid = summed(lanes, registers, Sum.SCALED, unit, mask)
    expected = window.empty(VECTORS)
    bad = window.add_scaled(expected, np.zeros(VECTORS, np.int64), np.where(mask, bf16.from_bits(unit), np.float32(0)))
    np.testing.assert_array_equal(np.stack([level, upper, lower], 1), expected)
    np.testing.assert_array_equal(invalid, bad)

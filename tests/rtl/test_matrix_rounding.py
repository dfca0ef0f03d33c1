"""Sums of the matrix engine leave their accumulators as `unmask.numerics.accumulator` rounds them."""

import numpy as np
import pytest
from amaranth.hdl import signed

from unmask.numerics import accumulator, bf16
from unmask.rtl.matrix.rounding import PLACES, rounded_sum

from .applied import apply

WIDTH, GUARD = 64, 11


def edges(rng):
    """Sums of every length, about every tie and power of two, of both signs."""
    values = [0, 1, -1, (1 << 63) - 1, -(1 << 63)]
    for length in range(64):
        for top in (1 << 8, 0x101, 0x155, 0x1FF, 0x1FE):
            near = top << length >> 8
            values += [sign * (near + by) for by in (-2, -1, 0, 1, 2) for sign in (1, -1)]
        values += [int(rng.integers(0, 1 << 62)) >> (62 - min(length, 62)), -(int(rng.integers(0, 1 << 62)) >> (62 - min(length, 62)))]
    return np.array([v for v in values if -(1 << 63) <= v < 1 << 63], dtype=np.int64)


@pytest.mark.parametrize("fraction", [accumulator.MATRIX_FRACTION, 0, 126])
@pytest.mark.parametrize("registers", [0, PLACES])
def test_a_sum_is_rounded_once(fraction, registers):
    values = edges(np.random.default_rng(2))
    (found,) = apply(lambda p, v: rounded_sum(p, v, v[0] & ~v[0], WIDTH, fraction), PLACES, registers, v=(values, signed(WIDTH)))
    assert (found == bf16.to_bits(accumulator.to_bf16(values, fraction))).all()

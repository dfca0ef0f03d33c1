"""The accumulators enter by floor, add exactly and leave by one rounding."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.numerics import accumulator, bf16

from .oracles import nearest_float

INT64 = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    # Near ties and near carries of BF16 and FP32, at every size.
    st.tuples(st.integers(0, 2**26), st.integers(0, 37), st.integers(-2, 2), st.sampled_from([-1, 1])).map(
        lambda t: max(-(2**63), min(2**63 - 1, t[3] * ((t[0] << t[1]) + t[2])))
    ),
)


@pytest.mark.parametrize("fraction", [accumulator.VECTOR_FRACTION, accumulator.MATRIX_FRACTION])
@given(acc=INT64)
def test_leaving_the_accumulator_rounds_once(fraction, acc):
    value = Fraction(acc, 2**fraction)
    held = np.array([acc], dtype=np.int64)
    assert Fraction(float(accumulator.to_bf16(held, fraction)[0])) == nearest_float(value, 8)
    assert Fraction(float(accumulator.to_fp32(held, fraction)[0])) == nearest_float(value, 24)


def test_rounding_through_float64_would_be_wrong_here():
    # 2^62 + 2^38 is a tie of FP32 and float64 drops the +1 that decides it.
    acc = np.array([2**62 + 2**38 + 1, 2**62 + 2**54 + 1], dtype=np.int64)
    assert accumulator.to_fp32(acc, 0)[0] == 2.0**62 + 2.0**39
    assert acc.astype(np.float64).astype(np.float32)[0] == 2.0**62
    assert accumulator.to_bf16(acc, 0)[1] == 2.0**62 + 2.0**55


def test_extremes_of_the_accumulator():
    acc = np.array([-(2**63), 2**63 - 1, 0, -1, 1], dtype=np.int64)
    expected = np.array([-(2.0**63), 2.0**63, 0, -1, 1])
    np.testing.assert_array_equal(accumulator.to_bf16(acc, 0), expected)
    np.testing.assert_array_equal(accumulator.to_fp32(acc, 0), expected)


@pytest.mark.parametrize("fraction", [accumulator.VECTOR_FRACTION, accumulator.MATRIX_FRACTION])
def test_every_bf16_enters_by_floor_and_saturates(fraction):
    x = bf16.from_bits(np.arange(1 << 16, dtype=np.uint16))
    entered = accumulator.from_bf16(x, fraction)
    for value, got in zip(x[::7].tolist(), entered[::7].tolist(), strict=True):
        exact = math.floor(Fraction(value) * 2**fraction) if math.isfinite(value) else 0
        assert got == max(-(2**63), min(2**63 - 1, exact))


def test_sum_rows_is_exact_and_order_free():
    rng = np.random.default_rng(1)
    x = bf16.round((rng.normal(size=(4, 5000)) * 2.0 ** rng.integers(-45, 20, size=(4, 5000))).astype(np.float32))
    acc, invalid = accumulator.sum_rows(x)
    assert not invalid.any()
    for row, got in zip(x, acc.tolist(), strict=True):
        assert got == sum(math.floor(Fraction(v) * 2**32) for v in row.tolist())
    np.testing.assert_array_equal(accumulator.sum_rows(x[:, rng.permutation(5000)])[0], acc)
    np.testing.assert_array_equal(accumulator.sum_rows(x[:, :1234])[0] + accumulator.sum_rows(x[:, 1234:])[0], acc)


def test_sum_rows_wraps_and_reports_elements_out_of_range():
    x = np.array([[2.0**30, 2.0**30, 2.0**30], [1, np.nan, 1], [np.inf, 1, 0], [1, 2, 3], [-(2.0**31), 1, 1]], dtype=np.float32)
    acc, invalid = accumulator.sum_rows(x)
    np.testing.assert_array_equal(invalid, [False, True, True, False, True])
    np.testing.assert_array_equal(acc[:4], [3 * 2**62 - 2**64, 2 << 32, 1 << 32, 6 << 32])

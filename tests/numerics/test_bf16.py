"""BF16 rounding and lane arithmetic agree with ml_dtypes and with exact rationals."""

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.numerics import bf16

ALL = np.arange(1 << 16, dtype=np.uint16)


def reference_round(x: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return x.astype(ml_dtypes.bfloat16).view(np.uint16)


def nearest_bits(value: Fraction) -> int:
    """The BF16 pattern nearest to a rational, by comparing rationals with the neighbouring patterns."""
    magnitude = abs(value)
    low, high = 0, bf16.INFINITY_BITS
    # The pattern of infinity stands for 2^128 here, the next number if the exponent went on.
    as_fraction = lambda b: Fraction(2) ** 128 if b == bf16.INFINITY_BITS else Fraction(float(bf16.from_bits(np.uint16(b))))  # noqa: E731
    if magnitude >= as_fraction(high):
        return bf16.INFINITY_BITS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if as_fraction(middle) <= magnitude else (low, middle)
    below, above = magnitude - as_fraction(low), as_fraction(high) - magnitude
    return low if below < above or (below == above and low % 2 == 0) else high


def test_rounding_is_ml_dtypes_around_every_boundary():
    for low in (0x0000, 0x0001, 0x7FFF, 0x8000, 0x8001, 0xFFFF):
        x = ((ALL.astype(np.uint32) << 16) | np.uint32(low)).view(np.float32)
        finite = ~np.isnan(x)
        np.testing.assert_array_equal(bf16.to_bits(bf16.round(x))[finite], reference_round(x)[finite])


def test_rounding_is_ml_dtypes_on_random_patterns():
    x = np.random.default_rng(0).integers(0, 2**32, 1 << 20, dtype=np.uint32).view(np.float32)
    x = x[~np.isnan(x)]
    np.testing.assert_array_equal(bf16.to_bits(bf16.round(x)), reference_round(x))


def test_every_nan_becomes_the_one_quiet_nan():
    x = np.array([0x7F800001, 0x7FFFFFFF, 0xFF800001, 0xFFFFFFFF, 0x7FC12345], dtype=np.uint32).view(np.float32)
    assert (bf16.to_bits(bf16.round(x)) == 0x7FC0).all()


def test_bits_round_trip():
    np.testing.assert_array_equal(bf16.to_bits(bf16.from_bits(ALL)), ALL)


@pytest.mark.parametrize(
    ("operation", "exact"), [(bf16.add, Fraction.__add__), (bf16.subtract, Fraction.__sub__), (bf16.multiply, Fraction.__mul__)]
)
@given(data=st.data())
def test_lane_operations_are_correctly_rounded(operation, exact, data):
    # Two patterns of nearby exponents, and products around the subnormals, are where a double rounding could show.
    a = data.draw(st.integers(0, 0x7F7F))
    b = data.draw(
        st.one_of(
            st.integers(0, 0x7F7F),
            st.integers(max(a - 0x600, 0), min(a + 0x600, 0x7F7F)),
            st.integers(0, 0x7F7F).map(lambda i: max(0x3F80 - a + i % 512, 0)),
        )
    )
    signs = data.draw(st.tuples(st.booleans(), st.booleans()))
    values = bf16.from_bits(np.array([a | signs[0] << 15, b | signs[1] << 15], dtype=np.uint16))
    result = int(bf16.to_bits(operation(values[:1], values[1:]))[0])
    assert result & 0x7FFF == nearest_bits(exact(Fraction(float(values[0])), Fraction(float(values[1]))))


def test_products_at_the_edge_of_the_subnormals_are_correctly_rounded():
    # Every pair of significands, with the product's exponent such that it lies between 2^-136 and 2^-132.
    a, b = np.meshgrid(np.arange(128, 256), np.arange(128, 256))
    for exponent in range(-151, -147):
        x, y = (a * 2.0**-70).astype(np.float32), (b * 2.0 ** (exponent + 70)).astype(np.float32)
        # Exact in float64, so one rounding to a multiple of 2^-133.
        expected = np.rint(a * b * 2.0 ** (exponent + 133)) * 2.0**-133
        np.testing.assert_array_equal(bf16.multiply(x, y).astype(np.float64), expected)


def test_special_values_follow_ieee():
    inf, nan = np.float32(np.inf), np.float32(np.nan)
    a = np.array([inf, inf, 0, nan, -inf, 3.38e38], dtype=np.float32)
    b = np.array([-inf, 0, inf, 1, -inf, 3.38e38], dtype=np.float32)
    np.testing.assert_array_equal(bf16.to_bits(bf16.add(a, b)), [0x7FC0, 0x7F80, 0x7F80, 0x7FC0, 0xFF80, 0x7F80])
    np.testing.assert_array_equal(bf16.to_bits(bf16.multiply(a, b)), [0xFF80, 0x7FC0, 0x7FC0, 0x7FC0, 0x7F80, 0x7F80])
    np.testing.assert_array_equal(bf16.to_bits(bf16.subtract(a[:1], b[:1])), [0x7F80])


@given(st.integers(0, 2**53 - 1), st.integers(-220, 130))
def test_round_scaled_is_the_nearest_bf16(mantissa, exponent):
    bits = bf16.round_scaled(np.array([mantissa], dtype=np.int64), np.array([exponent], dtype=np.int64))
    assert int(bits[0]) == nearest_bits(mantissa * Fraction(2) ** exponent)


def test_ordered_keys_compare_as_the_values_do():
    x = bf16.from_bits(np.arange(1 << 16, dtype=np.uint16))
    keys, nan = bf16.ordered(x), np.isnan(x)
    assert (keys[nan] == 0).all()
    assert keys[~nan].min() > 0
    order = np.argsort(keys[~nan], kind="stable")
    values, ranks = x[~nan][order].astype(np.float64), keys[~nan][order].astype(np.int64)
    np.testing.assert_array_equal(values[1:] > values[:-1], ranks[1:] > ranks[:-1])
    assert (values[1:] >= values[:-1]).all()

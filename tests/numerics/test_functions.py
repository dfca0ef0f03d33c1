"""Lane functions over every BF16 input; scalar functions against exact arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.numerics import bf16, functions

BITS = np.arange(1 << 16, dtype=np.uint16)
X = bf16.from_bits(BITS)
NAN = np.isnan(X)
LARGEST = float(bf16.from_bits(np.uint16(0x7F7F)))


def ulp(y: np.ndarray) -> np.ndarray:
    """The spacing of BF16 numbers at y."""
    return np.maximum(2.0 ** (np.frexp(np.abs(y))[1] - 8.0), 2.0**-133)


def error_in_ulp(got: np.ndarray, exact: np.ndarray) -> np.ndarray:
    inside = np.isfinite(exact) & (np.abs(exact) <= LARGEST)
    return np.abs(got[inside] - exact[inside]) / ulp(exact[inside])


@pytest.fixture(autouse=True)
def _no_numpy_warnings():
    with np.errstate(all="ignore"):
        yield


def test_exp_is_within_its_bound_everywhere():
    exact = np.exp(X.astype(np.float64))
    assert error_in_ulp(functions.exp(X).astype(np.float64), exact).max() < 0.512


def test_exp_overflows_and_underflows_where_rounding_says():
    got, exact = functions.exp(X), np.exp(X.astype(np.float64))
    assert np.isinf(got[exact >= LARGEST * (1 + 2.0**-8)]).all()
    assert np.isfinite(got[exact < LARGEST]).all()
    assert (got[exact < 2.0**-134 * 0.999] == 0).all()
    assert (got[(exact > 2.0**-134 * 1.001)] > 0).all()


def test_exp_is_monotonic_and_at_most_one_for_non_positive_arguments():
    ordered = np.sort(X[~NAN])
    got = functions.exp(ordered)
    assert (np.diff(got[np.isfinite(got)]) >= 0).all()
    assert max(got[ordered <= 0]) == 1


def test_exp_of_special_values():
    got = functions.exp(np.array([-np.inf, np.inf, 0.0, -0.0, 1e-40], dtype=np.float32))
    np.testing.assert_array_equal(bf16.to_bits(got), [0, 0x7F80, 0x3F80, 0x3F80, 0x3F80])


@pytest.mark.parametrize("function", [functions.exp, functions.reciprocal, functions.silu, functions.xexp])
def test_nan_gives_the_quiet_nan_and_nothing_else_does(function):
    got = bf16.to_bits(function(X))
    assert (got[NAN] == 0x7FC0).all()
    assert not ((got[~NAN] & 0x7FFF) > 0x7F80).any()


def test_reciprocal_is_correctly_rounded_everywhere():
    # 1 / x of an 8-bit x lies on a tie of BF16 or 2^-17 away from it: far more than what rounding to FP32 first moves it.
    exact = 1.0 / X.astype(np.float64)
    expected = bf16.round(exact.astype(np.float32))
    np.testing.assert_array_equal(bf16.to_bits(functions.reciprocal(X)), bf16.to_bits(expected))


def test_reciprocal_against_exact_rationals():
    for bits in range(1, 0x7F80, 11):
        got = Fraction(float(functions.reciprocal(bf16.from_bits(np.array([bits], dtype=np.uint16)))[0].clip(max=LARGEST)))
        exact = min(1 / Fraction(float(bf16.from_bits(np.uint16(bits)))), Fraction(LARGEST))
        assert abs(got - exact) <= Fraction(float(ulp(np.float64(exact)))) / 2


def test_xexp_is_within_its_bound_everywhere():
    exact = X.astype(np.float64) * np.exp(X.astype(np.float64))
    assert error_in_ulp(functions.xexp(X).astype(np.float64), exact).max() < 0.512


def test_xexp_of_special_values():
    got = functions.xexp(np.array([-np.inf, -3e38, -200, -0.0, 0.0, 3e38, np.inf], dtype=np.float32))
    np.testing.assert_array_equal(bf16.to_bits(got), [0x8000, 0x8000, 0x8000, 0x8000, 0, 0x7F80, 0x7F80])


def test_a_power_of_two_is_the_exponent_and_has_a_normal_reciprocal():
    got = functions.power_of_two(X).astype(np.float64)
    finite = np.isfinite(X) & (X != 0)
    exponent = np.clip(np.frexp(np.abs(X[finite]).astype(np.float64))[1] - 1, -126, 126)
    np.testing.assert_array_equal(got[finite], 2.0**exponent)
    assert (got[~finite] == 1).all()
    np.testing.assert_array_equal(functions.reciprocal(got.astype(np.float32)), 1 / got)


def log_error_in_ulp(x: np.ndarray) -> float:
    exact = np.log(x.astype(np.longdouble))
    spacing = np.maximum(2.0 ** (np.frexp(np.abs(exact).astype(np.float64))[1] - 24.0), 2.0**-149)
    return float((np.abs(functions.log_fp32(x).astype(np.longdouble) - exact) / spacing).max())


def test_scalar_log_is_within_its_bound():
    one = int(np.float32(1).view(np.uint32))
    samples = (
        np.random.default_rng(0).integers(1, 0x7F800000, 1 << 20),
        one + np.arange(-(1 << 19), 1 << 19),
        np.arange(1, 1 << 18),
        (np.arange(1, 255)[:, None] << 23) + np.arange(-200, 200),
        # Both sides of every segment's end, in the binades around 1.
        ((np.arange(-256, 512) << 16)[:, None] + np.arange(-50, 50)) + one,
    )
    for bits in samples:
        x = np.ravel(bits).astype(np.uint32).view(np.float32)
        assert log_error_in_ulp(x[(x > 0) & np.isfinite(x)]) < 0.51


def test_scalar_log_never_decreases_around_one():
    one = int(np.float32(1).view(np.uint32))
    x = (one + np.arange(-(1 << 18), 1 << 18)).astype(np.uint32).view(np.float32)
    assert (np.diff(functions.log_fp32(x)) >= 0).all()


def test_scalar_log_of_special_values():
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -1.0, 1.0], dtype=np.float32)
    np.testing.assert_array_equal(functions.log_fp32(x), [-np.inf, -np.inf, np.inf, np.nan, np.nan, np.nan, 0])
    assert functions.log_fp32(x[5:6]).view(np.uint32)[0] == 0x7FC00000


def test_silu_is_within_its_bounds():
    exact = X.astype(np.float64) / (1 + np.exp(-X.astype(np.float64)))
    got = functions.silu(X).astype(np.float64)
    above = X > -88.5
    assert error_in_ulp(got[above], exact[above]).max() < 2.09
    below = (X <= -88.5) & np.isfinite(X)
    assert np.abs(got[below] - exact[below]).max() < 2.0**-120


def test_silu_is_its_lane_operations():
    x = X[~NAN & (-np.inf != X)]
    one = np.ones_like(x)
    composed = bf16.multiply(x, functions.reciprocal(bf16.add(one, functions.exp(-x))))
    np.testing.assert_array_equal(bf16.to_bits(functions.silu(x)), bf16.to_bits(composed))


def test_silu_of_special_values():
    got = functions.silu(np.array([-np.inf, -100, np.inf, 0.0, -0.0], dtype=np.float32))
    np.testing.assert_array_equal(bf16.to_bits(got), [0x8000, 0x8000, 0x7F80, 0x0000, 0x8000])


def fp32_neighbours(y: np.float32) -> tuple[Fraction, Fraction]:
    """The halfway points below and above a positive FP32 number."""
    down, up = (Fraction(float(np.nextafter(y, np.float32(to)))) for to in (0, np.inf))
    here = Fraction(float(y))
    return (down + here) / 2, (here + up) / 2


POSITIVE = st.one_of(st.integers(1, 0x7F7FFFFF), st.integers(1, 0x00FFFFFF), st.integers(0x7E000000, 0x7F7FFFFF))


@given(POSITIVE)
def test_scalar_reciprocal_is_correctly_rounded(bits):
    x = np.array([bits], dtype=np.uint32).view(np.float32)
    y, negative = functions.reciprocal_fp32(x)[0], functions.reciprocal_fp32(-x)[0]
    assert negative == -y
    if np.isinf(y):
        assert 1 / Fraction(float(x[0])) >= Fraction(2) ** 128 - Fraction(2) ** 103
        return
    low, high = fp32_neighbours(y) if y < np.finfo(np.float32).max else (0, Fraction(2) ** 128)
    assert low <= 1 / Fraction(float(x[0])) <= high


@given(POSITIVE)
def test_scalar_rsqrt_is_correctly_rounded(bits):
    x = np.array([bits], dtype=np.uint32).view(np.float32)
    low, high = fp32_neighbours(functions.rsqrt_fp32(x)[0])
    assert low**2 <= 1 / Fraction(float(x[0])) <= high**2


def test_scalar_rsqrt_near_ties_are_on_their_right_side():
    # The argument in the docstring: two float64 roundings can only go wrong within 2 units of a halfway point; all 2^24 cases are here.
    close = 0
    for chunk in range(16):
        index = np.arange(chunk << 20, (chunk + 1) << 20, dtype=np.int64)
        x = (1 + (index & 0x7FFFFF) * 2.0**-23) * (1.0 + (index >> 23))
        root = 1.0 / np.sqrt(x)
        offset = (root.view(np.int64) & ((1 << 29) - 1)) - (1 << 28)
        for i in np.flatnonzero(np.abs(offset) <= 3):
            close += 1
            halfway = Fraction(float((root.view(np.int64)[i] - offset[i]).view(np.float64)))
            truly_above = Fraction(float(x[i])) * halfway**2 < 1
            assert (Fraction(float(functions.rsqrt_fp32(x[i : i + 1].astype(np.float32))[0])) > halfway) == truly_above
    assert close == 1


def test_scalar_special_values():
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -1.0], dtype=np.float32)
    np.testing.assert_array_equal(functions.reciprocal_fp32(x), [np.inf, -np.inf, 0, -0.0, np.nan, -1])
    np.testing.assert_array_equal(functions.rsqrt_fp32(x), [np.inf, np.inf, 0, np.nan, np.nan, np.nan])
    assert functions.rsqrt_fp32(x[-1:]).view(np.uint32)[0] == 0x7FC00000
    assert functions.reciprocal_fp32(-x[4:5]).view(np.uint32)[0] == 0x7FC00000

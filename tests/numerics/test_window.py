"""Window sums of exponentials: exact, whatever the order; held against Python's integers and fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.numerics import bf16, functions, window

EVERY = bf16.from_bits(np.arange(1 << 16, dtype=np.uint16))
seeds = st.integers(0, 2**32 - 1)
scales = st.sampled_from([0.1, 1.0, 10.0, 60.0, 1000.0])
quick = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def rows(seed: int, count: int, cols: int, scale: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = bf16.round((rng.normal(size=(count, cols)) * scale).astype(np.float32))
    x[rng.random(x.shape) < 0.05] = -np.inf
    return x


def weight(x: float) -> Fraction:
    significand, exponent = functions.weight(np.array([x], np.float32))
    return Fraction(int(significand[0])) * Fraction(2) ** int(exponent[0])


def by_hand(row: np.ndarray) -> tuple[Fraction, Fraction]:
    """The window sum of a row and its unit, 2^(32 (level + 1)): what is below two bins of the largest term is cut off term by term."""
    terms = [weight(x) for x in row if x > -np.inf]
    top = max(terms)
    leading = top.numerator.bit_length() - top.denominator.bit_length()
    leading -= top < Fraction(2) ** leading
    level = leading // 32
    bottom = Fraction(2) ** (32 * (level - 1))
    return sum((term // bottom for term in terms), Fraction(0)) * bottom, Fraction(2) ** (32 * (level + 1))


def test_weights_are_exponentials_of_eight_bits():
    x = EVERY[np.isfinite(EVERY) & (np.abs(EVERY) < 600)]
    significand, exponent = functions.weight(x)
    assert (significand.min(), significand.max()) == (128, 255)
    found = np.log(significand.astype(np.longdouble)) + exponent * np.log(np.longdouble(2))
    assert np.abs(np.expm1(found - x)).max() < 0.0051


def test_weights_are_those_of_exp_where_a_bf16_can_hold_them():
    x = EVERY[np.isfinite(EVERY) & (np.abs(EVERY) < 87)]
    significand, exponent = functions.weight(x)
    np.testing.assert_array_equal(np.ldexp(significand.astype(np.float64), exponent), functions.exp(x))


def test_weights_never_fall():
    x = np.sort(EVERY[np.isfinite(EVERY)])
    significand, exponent = functions.weight(x)
    assert (np.diff(exponent * 256 + significand) >= 0).all()
    assert (np.diff(window.level(x)) >= 0).all()


@pytest.mark.parametrize("x", [-np.inf, np.inf, np.nan])
def test_what_is_not_finite_has_no_weight(x):
    assert functions.weight(np.array([x], np.float32)) == (0, 0)
    assert window.level(np.array([x], np.float32)) == window.LOWEST


@quick
@given(seeds, scales, st.integers(1, 300))
def test_a_sum_is_that_of_its_definition(seed, scale, cols):
    x = rows(seed, 3, cols, scale)
    x[:, 0] = 1.0
    state = window.empty(3)
    window.add_rows(state, x)
    for row, found, rounded in zip(x, state, window.to_fp32(state), strict=True):
        total, unit = by_hand(row)
        assert (int(found[1]) * 2**32 + int(found[2])) * unit / 2**64 == total
        ratio = total / unit
        below, above = np.nextafter(rounded, np.float32(0)), np.nextafter(rounded, np.float32(np.inf))
        error = abs(Fraction(float(rounded)) - ratio)
        assert error <= min(abs(Fraction(float(below)) - ratio), abs(Fraction(float(above)) - ratio))


@quick
@given(seeds, scales, st.integers(2, 300), st.integers(1, 9))
def test_order_and_tiling_change_no_bit(seed, scale, cols, parts):
    x = rows(seed, 4, cols, scale)
    whole, pieces = window.empty(4), window.empty(4)
    window.add_rows(whole, x)
    for part in np.array_split(np.random.default_rng(seed).permutation(cols), parts):
        if part.size:
            window.add_rows(pieces, x[:, part])
    np.testing.assert_array_equal(pieces, whole)


@quick
@given(seeds, scales, st.integers(2, 200), st.integers(1, 9))
def test_scaled_terms_add_up_to_the_same(seed, scale, cols, parts):
    x = rows(seed, 4, cols, scale)
    whole, pieces, maximum = window.empty(4), window.empty(4), np.full(4, -np.inf, np.float32)
    window.add_rows(whole, x)
    for part in np.array_split(np.arange(cols), parts):
        if part.size:
            maximum = np.maximum(maximum, x[:, part].max(axis=1))
            levels = window.level(maximum)
            window.add_scaled(pieces, levels, window.scaled(x[:, part], levels[:, None]))
    np.testing.assert_array_equal(pieces, whole)


@quick
@given(seeds, st.sampled_from([0.1, 1.0, 5.0, 30.0, 300.0]), st.integers(1, 400))
def test_a_confidence_is_close_to_softmax_and_at_most_one(seed, scale, cols):
    x = bf16.round((np.random.default_rng(seed).normal(size=(5, cols)) * scale).astype(np.float32))
    state = window.empty(5)
    window.add_rows(state, x)
    exact = np.exp(x.astype(np.float64) - x.max(axis=1, keepdims=True))
    for column in {0, cols // 2, cols - 1, *x.argmax(axis=1).tolist()}:
        found, expected = window.confidence(x[:, column], state), exact[:, column] / exact.sum(axis=1)
        np.testing.assert_allclose(found, expected, rtol=0.011, atol=1e-28)
        assert (found <= 1).all()

"""The two words of a product in carry-save form add up to it."""

from collections.abc import Callable

import numpy as np
import pytest
from amaranth.hdl import Const, Value

from unmask.rtl.pipeline import Pipeline
from unmask.rtl.products import product, reaches, recoded_product

from .applied import apply

FACTOR_BITS, OTHER_BITS = 11, 9


def sum_of_words(signs: tuple[bool, bool], width: int | None) -> Callable[[Pipeline, Value, Value], Value]:
    def built(p: Pipeline, a: Value, b: Value) -> Value:
        a, b = (value.as_signed() if signed else value for value, signed in zip((a, b), signs, strict=True))
        low, high = product(p.m, a, b, width)
        assert len(low) == len(high)
        return (low + high)[: len(low)]

    return built


@pytest.mark.parametrize("signs", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("width", [None, 13, 26])
def test_the_words_add_up_to_the_product(signs: tuple[bool, bool], width: int | None) -> None:
    rng = np.random.default_rng(3)
    ends = [(a, b) for a in (0, 1, 1023, 1024, 2047) for b in (0, 1, 255, 256, 511)]
    a, b = (np.concatenate([[pair[side] for pair in ends], rng.integers(0, 1 << bits, 2000)]) for side, bits in enumerate((11, 9)))
    (found,) = apply(sum_of_words(signs, width), 0, 0, a=(a, FACTOR_BITS), b=(b, OTHER_BITS))
    x, y = (
        np.where(signed & (value >= 1 << (bits - 1)), value - (1 << bits), value)
        for value, bits, signed in zip((a, b), (FACTOR_BITS, OTHER_BITS), signs, strict=True)
    )
    np.testing.assert_array_equal(found.astype(np.int64), (x * y) % (1 << (width or FACTOR_BITS + OTHER_BITS)))


@pytest.mark.parametrize("split", [False, True])
def test_a_recoded_factor_gives_the_same_product(split: bool) -> None:
    """The other factor is one word, or two with its sum."""
    rng = np.random.default_rng(4)
    ends = [(a, b) for a in (0, 1, 1023, 1024, 2047) for b in range(64)]
    a, b = (np.concatenate([[pair[side] for pair in ends], rng.integers(0, 1 << bits, 1000)]) for side, bits in enumerate((11, 6)))

    def built(p: Pipeline, x: Value, y: Value) -> Value:
        factors = [x.as_signed() - 700, Const(700)] if split else [x.as_signed()]
        low, high = recoded_product(p.m, factors, y.as_signed(), 14)
        return (low + high)[:14]

    (found,) = apply(built, 0, 0, a=(a, 11), b=(b, 6))
    x, y = (np.where(value >= 1 << (bits - 1), value - (1 << bits), value) for value, bits in ((a, 11), (b, 6)))
    np.testing.assert_array_equal(found.astype(np.int64), (x * y) % (1 << 14))


@pytest.mark.parametrize("bound", [16, 12, 1, 2048])
def test_whether_a_sum_reaches_a_bound_is_told_without_it(bound: int) -> None:
    rng = np.random.default_rng(5)
    a = rng.integers(0, 1 << FACTOR_BITS, 6000)
    # Half of the sums are small, or just below a power of two.
    b = np.where(
        rng.integers(0, 2, 6000), rng.integers(0, 1 << FACTOR_BITS, 6000), (rng.integers(-4, 2 * bound, 6000) - a) % (1 << FACTOR_BITS)
    )
    (found,) = apply(lambda p, x, y: reaches(p.m, x, y, bound), 0, 0, a=(a, FACTOR_BITS), b=(b, FACTOR_BITS))
    np.testing.assert_array_equal(found.astype(bool), (a + b) % (1 << FACTOR_BITS) >= bound)

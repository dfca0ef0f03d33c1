"""FP32 arithmetic in gates equals numpy's, NaN canonical, and the functions of `unmask.numerics`."""

from collections.abc import Callable

import numpy as np
import pytest
from amaranth.hdl import signed

from unmask.numerics import accumulator, functions
from unmask.rtl import fp32, roots

from . import patterns
from .applied import apply

A, B = patterns.fp32_pairs(100_000, seed=1)
COUNTING = np.arange(1, 3001, dtype=np.float32).view(np.uint32)


def check(found: np.ndarray, expected: np.ndarray, *inputs: np.ndarray) -> None:
    wrong = np.flatnonzero(found != expected)
    assert not wrong.size, [
        (wrong.size, *(hex(int(x[i])) for x in inputs), hex(found[i]), hex(expected[i])) for i in wrong[:: len(wrong) // 6 + 1]
    ]


@pytest.mark.parametrize("registers", [0, 2])
@pytest.mark.parametrize(("function", "operation"), [(fp32.add, np.add), (fp32.multiply, np.multiply)])
def test_an_operation_is_correctly_rounded(function: Callable, operation: Callable, registers: int) -> None:
    (found,) = apply(function, fp32.PLACES, registers, a=(A, 32), b=(B, 32))
    with np.errstate(all="ignore"):
        check(found, patterns.to_fp32(operation(patterns.as_fp32(A), patterns.as_fp32(B))), A, B)


def test_a_comparison_knows_zeros_and_nan() -> None:
    a, b = np.concatenate([A, A, A]), np.concatenate([B, A, A ^ np.uint32(1 << 31)])
    (found,) = apply(lambda p, a, b: fp32.less(p.m, a, b), 0, 0, a=(a, 32), b=(b, 32))
    check(found, (patterns.as_fp32(a) < patterns.as_fp32(b)).astype(np.int64), a, b)


@pytest.mark.parametrize(
    ("function", "places", "reference"),
    [
        (roots.reciprocal, roots.RECIPROCAL_PLACES, functions.reciprocal_fp32),
        (roots.rsqrt, roots.RSQRT_PLACES, functions.rsqrt_fp32),
        (roots.logarithm, roots.LOG_PLACES, functions.log_fp32),
    ],
)
@pytest.mark.parametrize("natural", [False, True])
def test_a_function_rounds_as_it_should(function: Callable, places: int, reference: Callable, natural: bool) -> None:
    bits = np.concatenate([A, B, COUNTING, (A % (1 << 25)) + np.uint32(0x3F000000)])
    (found,) = apply(function, places, places if natural else 0, x=(bits, 32))
    check(found, patterns.to_fp32(reference(patterns.as_fp32(bits))), bits)


@pytest.mark.parametrize("fraction", [0, 32, 40, 64])
def test_a_fixed_point_number_is_rounded_once(fraction: int) -> None:
    random = np.random.default_rng(fraction)
    values = random.integers(-(2**63), 2**63, 50_000) >> random.integers(0, 64, 50_000)
    (found,) = apply(lambda p, v: fp32.rounded_fixed(p, v, fraction), fp32.PLACES, 2, v=(values, signed(64)))
    check(found, patterns.to_fp32(accumulator.to_fp32(values, fraction)), values)

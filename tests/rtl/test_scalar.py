"""The scalar unit computes what the functional reading does."""

from collections.abc import Callable

import numpy as np
import pytest

from unmask.numerics import bf16, functions, noise, window
from unmask.rtl.functions import NO_LEVEL
from unmask.rtl.scalar import FUNCTION_PLACES, LONG, SHORT, SHORT_PLACES, ScalarOp, ScalarUnit

from . import patterns
from .streaming import Simulation, Vectors, stream

COUNT = 20_000


def run(operations: tuple[str, ...], registers: int) -> Callable[[str, Vectors], np.ndarray]:
    """A unit built for some operations, as a function from the name of one and its inputs to the results."""
    short = operations[0] in SHORT
    unit = Simulation(ScalarUnit(registers, 0, operations) if short else ScalarUnit(0, registers, operations))
    result = "result" if short else "function_result"
    return lambda name, inputs: stream(unit, {**inputs, "op": np.full(len(inputs["a"]), ScalarOp[name])}, registers)[result]


def expected_short(name: str, a: np.ndarray, b: np.ndarray, immediate: np.ndarray) -> np.ndarray:
    x, y, constant = (patterns.as_fp32(bits) for bits in (a, b, immediate))
    with np.errstate(all="ignore"):
        match name:
            case "F_FILL":
                return patterns.to_fp32(constant)
            case "F_ADD_I":
                return patterns.to_fp32(x + constant)
            case "F_MUL_I":
                return patterns.to_fp32(x * constant)
            case "F_SUB":
                return patterns.to_fp32(x - y)
            case "F_MUL":
                return patterns.to_fp32(x * y)
            case "F_LT":
                return x < y
            case "I_SET_BIT_GT":
                return x > y
            case "F_FROM_INT":
                return patterns.to_fp32(a.view(np.int32).astype(np.float32))
    raise KeyError(name)


def expected_long(name: str, a: np.ndarray, b: np.ndarray, bits: np.ndarray, levels: np.ndarray) -> np.ndarray:
    x, y = patterns.as_fp32(a), patterns.as_fp32(b)
    with np.errstate(all="ignore"):
        match name:
            case "F_EXP":
                return functions.exp(bf16.round(x))
            case "F_RECIP":
                return functions.reciprocal_fp32(x)
            case "F_RSQRT":
                return functions.rsqrt_fp32(x)
            case "F_LOG":
                return functions.log_fp32(x)
            case "F_UNIFORM":
                return noise.uniform(bits)
            case "F_GUMBEL":
                return x + noise.gumbel_fp32(bits)
            case "F_EXP_WIN":
                return window.scaled(x, window.level(patterns.as_fp32(b & np.uint32(0xFFFF0000))))
            case "V_SAMPLE_END":
                return window.scaled(x, levels) * functions.reciprocal_fp32(y)
    raise KeyError(name)


@pytest.mark.parametrize("registers", [0, 1, SHORT_PLACES, 5])
def test_short_operations(registers: int) -> None:
    a, b = patterns.fp32_pairs(COUNT, seed=registers)
    # A difference of nothing, and a comparison of equals.
    b = np.where(np.arange(COUNT) % 9 == 0, a, b)
    immediate = patterns.fp32(COUNT, seed=10 + registers)
    unit = run(SHORT, registers)
    for name in SHORT:
        found = unit(name, {"a": a, "b": b, "immediate": immediate})
        np.testing.assert_array_equal(found, expected_short(name, a, b, immediate).astype(np.uint64), err_msg=name)


@pytest.mark.parametrize(
    ("registers", "operations"),
    [(26, LONG), (FUNCTION_PLACES, LONG), (3, ("F_LOG", "F_RECIP", "F_EXP")), (4, ("V_SAMPLE_END", "F_UNIFORM"))],
)
def test_functions(registers: int, operations: tuple[str, ...]) -> None:
    random = np.random.default_rng(registers)
    anything, b = patterns.fp32_pairs(COUNT, seed=20)
    narrow = bf16.round(patterns.as_fp32(anything)).view(np.uint32)
    bits = random.integers(0, 1 << 32, COUNT, dtype=np.uint32)
    levels = window.level(patterns.as_fp32(narrow & np.uint32(0xFFFF0000))) + random.integers(-1, 4, COUNT)
    levels = np.where(levels < -(2**39), window.LOWEST, levels)
    level = np.where(levels == window.LOWEST, NO_LEVEL, levels)
    # Maxima around the values, and some at any distance.
    with np.errstate(all="ignore"):
        near = bf16.round(patterns.as_fp32(narrow) + random.uniform(-60, 90, COUNT).astype(np.float32)).view(np.uint32)
    maxima = np.where(np.arange(COUNT) % 5 == 0, b, near)
    unit = run(operations, registers)
    for name in operations:
        a = narrow if name in ("F_EXP_WIN", "V_SAMPLE_END") else anything
        given = maxima if name == "F_EXP_WIN" else b
        found = unit(name, {"a": a, "b": given, "random": bits, "level": level})
        expected = patterns.to_fp32(expected_long(name, a, given, bits, levels))
        np.testing.assert_array_equal(found, expected.astype(np.uint64), err_msg=name)

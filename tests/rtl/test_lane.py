"""A lane computes what the functional reading does, for every input where there is one operand."""

import numpy as np
import pytest

from unmask.errors import UnmaskError
from unmask.numerics import bf16, functions, window
from unmask.rtl.functions import LEVEL_BITS, NO_LEVEL
from unmask.rtl.lane import LONG, NOISY, SHORT, SHORT_PLACES, Lane, LaneOp
from unmask.rtl.window import EXPONENT_BITS

from .patterns import EVERY_BF16, bf16_pairs
from .streaming import Simulation, stream

UNARY = {
    "V_EXP": functions.exp_bits,
    "V_XEXP": functions.xexp_bits,
    "V_RECIP": functions.reciprocal_bits,
    "V_SILU": functions.silu_bits,
    "V_POW2": functions.power_of_two_bits,
}
BINARY = {
    "V_ADD": bf16.add,
    "V_SUB": bf16.subtract,
    "V_SUB_F": bf16.subtract,
    "V_MUL": bf16.multiply,
    "V_MUL_F": bf16.multiply,
    "V_MUL_I": bf16.multiply,
    "V_FILL": lambda a, b: bf16.round(b),
}
PLACES = Lane(0, 0).function_places


def check(found: np.ndarray, expected: np.ndarray, *inputs: np.ndarray) -> None:
    wrong = np.flatnonzero(found != expected)
    assert not wrong.size, [
        (wrong.size, *(hex(int(x[i]) & 0xFFFFFFFF) for x in inputs), hex(found[i]), hex(expected[i])) for i in wrong[:: len(wrong) // 6 + 1]
    ]


@pytest.mark.parametrize("registers", [0, 3, PLACES])
def test_a_function_of_every_bf16(registers: int) -> None:
    lane = Simulation(Lane(0, registers))
    for name, algorithm in UNARY.items():
        found = stream(lane, {"op": np.full(1 << 16, LaneOp[name]), "a": EVERY_BF16}, registers)["function_result"]
        check(found, algorithm(EVERY_BF16), EVERY_BF16)


@pytest.mark.parametrize("registers", [0, 4, PLACES])
def test_a_logit_to_sample_from_has_the_weight_of_the_numerics_and_what_has_none_is_told(registers: int) -> None:
    lane = Lane(1, registers, ("V_EXP_WIN", "V_SAMPLE"))
    found = stream(lane, {"op": np.full(1 << 16, LaneOp["V_SAMPLE"]), "a": EVERY_BF16}, lane.weight)
    significands, exponents = functions.weight(bf16.from_bits(EVERY_BF16))
    check(found["significand"][: 1 << 16], significands, EVERY_BF16)
    there = significands > 0
    # That of the leading bit, in the port's width.
    check(found["exponent"][: 1 << 16][there], ((exponents + 7) % (1 << EXPONENT_BITS))[there], EVERY_BF16[there])
    invalid = (EVERY_BF16 & 0x7FFF > bf16.INFINITY_BITS) | (EVERY_BF16 == bf16.INFINITY_BITS)
    check(found["invalid"][: 1 << 16], invalid, EVERY_BF16)


@pytest.mark.parametrize("name", NOISY)
def test_noise_is_added(name: str) -> None:
    a, b = bf16_pairs(8000, 4)
    found = stream(Lane(2, 0, ("V_MUL", name)), {"op": np.full(a.size, LaneOp[name]), "a": a, "b": b}, 2)["result"]
    check(found, bf16.to_bits(bf16.add(bf16.from_bits(a), bf16.from_bits(b))), a, b)


@pytest.mark.parametrize("operations", [("V_EXP",), ("V_EXP", "V_EXP_WIN"), ("V_EXP", "V_SAMPLE"), ("V_RECIP",), ("V_XEXP", "V_POW2")])
def test_a_lane_of_some_functions_computes_them_alike(operations: tuple[str, ...]) -> None:
    places = Lane(0, 0, operations).function_places
    lane = Simulation(Lane(1, places, operations))
    for name in set(operations) & UNARY.keys():
        found = stream(lane, {"op": np.full(1 << 16, LaneOp[name]), "a": EVERY_BF16}, places)["function_result"]
        check(found, UNARY[name](EVERY_BF16), EVERY_BF16)


@pytest.mark.parametrize(("registers", "operations"), [(0, SHORT + LONG), (PLACES, SHORT + LONG), (4, ("V_EXP_WIN", "V_SAMPLE"))])
def test_a_weight_is_scaled_to_its_row(registers: int, operations: tuple[str, ...]) -> None:
    random = np.random.default_rng(5)
    bits = np.tile(EVERY_BF16, 3)
    levels = window.level(bf16.from_bits(bits)) + random.integers(-1, 5, bits.size)
    near = np.where(random.integers(0, 8, bits.size) == 0, window.level(bf16.from_bits(random.permutation(bits))), levels)
    levels = np.where(near < -(2**40) + 9, window.LOWEST, near)
    expected = bf16.to_bits(window.scaled(bf16.from_bits(bits), levels))
    expected = np.where(expected & 0x7FFF > 0x7F80, 0x7FC0, expected)
    level = np.where(levels == window.LOWEST, NO_LEVEL, levels)
    assert (np.abs(level) < 1 << LEVEL_BITS).all()
    lane = Lane(0, registers, operations)
    # The level of a row comes later than its elements.
    ops = np.full(bits.size + lane.level_later, LaneOp["V_EXP_WIN"])
    pad = np.zeros(lane.level_later, level.dtype)
    ports = {"op": ops, "a": np.concatenate([bits, pad.astype(bits.dtype)]), "level": np.concatenate([pad, level])}
    found = stream(lane, ports, registers)["function_result"][: bits.size]
    check(found, expected, bits, level)


@pytest.mark.parametrize("registers", [0, 1, SHORT_PLACES])
def test_an_operation_of_two_operands(registers: int) -> None:
    lane = Simulation(Lane(registers, 0, SHORT))
    for seed, (name, operation) in enumerate(BINARY.items()):
        a, b = bf16_pairs(8000, seed)
        found = stream(lane, {"op": np.full(a.size, LaneOp[name]), "a": a, "b": b}, registers)["result"]
        check(found, bf16.to_bits(operation(bf16.from_bits(a), bf16.from_bits(b))), a, b)


@pytest.mark.parametrize("registers", [2, SHORT_PLACES])
def test_what_is_below_a_key_is_cut(registers: int) -> None:
    random = np.random.default_rng(6)
    keys = np.concatenate([random.integers(0, 1 << 16, 1 << 16), bf16.ordered(bf16.from_bits(EVERY_BF16)), np.zeros(1 << 16, int)])
    bits = np.tile(EVERY_BF16, 3)
    values = bf16.from_bits(bits)
    kept = (bf16.ordered(values) >= keys) | np.isnan(values)
    expected = bf16.to_bits(bf16.round(np.where(kept, values, np.float32(-np.inf))))
    lane = Lane(registers, 0, SHORT)
    # The key of a row comes later than its elements.
    pad = np.zeros(lane.key_later, int)
    ports = {"op": np.full(bits.size + pad.size, LaneOp["V_CUT"]), "a": np.concatenate([bits, pad]), "key": np.concatenate([pad, keys])}
    found = stream(lane, ports, registers)["result"][: bits.size]
    check(found, expected, bits, keys)


def test_a_lane_of_all_operations_computes_each() -> None:
    a, b = bf16_pairs(10_000, 8)
    lane = Simulation(Lane(2, 5))
    for name, operation in BINARY.items():
        found = stream(lane, {"op": np.full(a.size, LaneOp[name]), "a": a, "b": b}, 2)["result"]
        check(found, bf16.to_bits(operation(bf16.from_bits(a), bf16.from_bits(b))), a, b)
    for name, function in UNARY.items():
        found = stream(lane, {"op": np.full(a.size, LaneOp[name]), "a": a, "b": b}, 5)["function_result"]
        check(found, function(a), a)


def test_an_unknown_operation_is_refused() -> None:
    with pytest.raises(UnmaskError, match="V_NONE"):
        Lane(1, 1, (*LONG, "V_NONE"))

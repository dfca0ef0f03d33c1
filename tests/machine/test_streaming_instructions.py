"""The sampler's instructions: what they leave, against numpy; their accesses and cycles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.isa.encoding import Op
from unmask.machine.access import Access, accesses
from unmask.machine.config import Machine
from unmask.machine.costs import Cycles, cost_of
from unmask.machine.state import MachineFault
from unmask.numerics import bf16, noise, window

from .test_sampling_instructions import fresh, rows_of

SMALL = Machine.preset("small")
INF, NAN = np.float32(np.inf), np.float32(np.nan)
quick = settings(max_examples=25, deadline=None, derandomize=True, database=None)
seeds = st.integers(0, 2**32 - 1)
NOISE = {"seed": 12, "step": 7, "position": 40}


def sampled(npu) -> tuple[np.ndarray, np.ndarray]:
    npu.run()
    return npu.state.integers[60:66].copy(), npu.state.floats[30:36].copy()


def sample(seed: int, widths: list[int], temperature: float, period: int = 6, first: int = 0):
    """Six rows of which V_SAMPLE sees chunk after chunk; the machine, and the rows."""
    bits = int(bf16.to_bits(np.array(temperature, np.float32)))
    ops, start = [], 0
    for width in widths:
        shape = {"a": start, "first": first, "token": 5 + start, "temperature": bits, "period": period, "rows": 6, "cols": width}
        ops.append(("V_SAMPLE", {**shape, **NOISE, "a_stride": 8, "running": int(start > 0)}))
        start += width
    npu = fresh(seed, [*ops, ("V_SAMPLE_END", {"dst": 30, "index": 60, "first": first, "count": 6})])
    return npu, rows_of(npu.state.vector, 0, 6, start, 256).copy()


@quick
@given(seeds, st.lists(st.integers(1, 80), min_size=1, max_size=3), st.sampled_from([0.0, 0.5, 2.0]), st.sampled_from([2, 3, 6]))
def test_a_row_is_sampled_in_one_stream(seed, widths, temperature, period):
    npu, x = sample(seed, widths, temperature, period, first=seed % 9)
    scores = x
    if temperature:
        words = noise.uniform_bits(12, 7, 40 + np.arange(6) % period, 5 + np.arange(x.shape[1]))
        scores = bf16.add(x, bf16.multiply(noise.gumbel(words), np.array(temperature, np.float32)))
    best = scores.argmax(axis=1)
    tokens, confidences = sampled(npu)
    np.testing.assert_array_equal(tokens, 5 + best)
    state = window.empty(6)
    window.add_rows(state, x)
    np.testing.assert_array_equal(confidences, window.confidence(x[np.arange(6), best], state))


@pytest.mark.parametrize(("value", "broken"), [(NAN, True), (INF, True), (-INF, False)])
def test_what_is_not_finite_spoils_its_row_or_counts_nothing(value, broken):
    npu, _ = sample(3, [20, 20], 0.0)
    npu.state.vector[256 + 25] = value
    clean, _ = sample(3, [20, 20], 0.0)
    found, expected = sampled(npu)[1], sampled(clean)[1]
    assert np.isnan(found[1]) == broken
    np.testing.assert_array_equal(np.delete(found, 1), np.delete(expected, 1))


@quick
@given(seeds, st.lists(st.integers(1, 80), min_size=1, max_size=3))
def test_apart_the_instructions_give_the_same_confidence(seed, widths):
    npu, x = sample(seed, widths, 0.0)
    _, expected = sampled(npu)
    ops, start, shape = [], 0, {"rows": 6, "a_stride": 8}
    for width in widths:
        tile = {**shape, "a": start, "cols": width, "running": int(start > 0)}
        ops.append(("V_RED_MAX", {**tile, "dst": 10}))
        ops.append(("V_EXP_WIN", {**shape, "dst": start, "a": start, "f": 10, "cols": width, "dst_stride": 8}))
        ops.append(("V_RED_SUM_WIN", {**tile, "dst": 20, "f": 10}))
        start += width
    ops += [
        ("F_EXP_WIN", {"dst": 30, "a": 10, "f": 10, "count": 6}),
        ("F_RECIP", {"dst": 20, "a": 20, "count": 6}),
        ("F_MUL", {"dst": 30, "a": 30, "b": 20, "count": 6}),
    ]
    apart = fresh(seed, ops)
    apart.run()
    np.testing.assert_array_equal(apart.state.floats[30:36], expected)
    assert (x.max(axis=1) == apart.state.floats[10:16]).all()


def test_rows_beyond_the_accumulators_are_a_fault():
    last = SMALL.vector.accumulators
    with pytest.raises(MachineFault, match=f"a reduction of {last + 1} rows exceeds the {last} row accumulators"):
        sample(1, [4], 0.0, first=last - 5)[0].run()


@pytest.mark.parametrize(
    ("name", "operands", "cycles"),
    [
        ("V_SAMPLE", {"rows": 3, "cols": 65, "a_stride": 4, "running": 0, "period": 3}, Cycles(6, 18)),
        ("V_SAMPLE_END", {"count": 32}, Cycles(128, 28)),
        ("V_EXP_WIN", {"rows": 3, "cols": 65, "dst_stride": 4, "a_stride": 4}, Cycles(6, 8)),
        ("V_RED_SUM_WIN", {"rows": 3, "cols": 65, "a_stride": 4, "running": 0}, Cycles(6, 10)),
        ("F_EXP_WIN", {"count": 2}, Cycles(8, 28)),
    ],
)
def test_hand_computed_cycles(name, operands, cycles):
    op = Op(name, operands)
    assert cost_of(Op(name, {spec.name: operands.get(spec.name, 0) for spec in op.row.fields}), SMALL) == cycles


@pytest.mark.parametrize(
    ("name", "operands", "expected"),
    [
        (
            "V_SAMPLE",
            {"a": 1, "first": 2, "rows": 5, "cols": 64, "a_stride": 3, "running": 1, "period": 5},
            [("vector", 10, 5, 64, 96, False), ("accumulators", 20, 1, 5, 5, False), ("accumulators", 20, 1, 5, 5, True)],
        ),
        (
            "V_SAMPLE_END",
            {"dst": 1, "index": 2, "first": 3, "count": 5},
            [("accumulators", 30, 1, 5, 5, False), ("float", 10, 1, 5, 5, True), ("integer", 20, 1, 5, 5, True)],
        ),
        (
            "V_RED_SUM_WIN",
            {"dst": 1, "a": 2, "f": 3, "rows": 5, "cols": 64, "a_stride": 3, "running": 0},
            [
                ("vector", 20, 5, 64, 96, False),
                ("float", 30, 1, 5, 5, False),
                ("accumulators", 0, 1, 5, 5, True),
                ("float", 10, 1, 5, 5, True),
            ],
        ),
    ],
)
def test_accesses(name, operands, expected):
    registers = [10 * number for number in range(32)]
    ready = {spec.name: operands.get(spec.name, 0) for spec in Op(name, operands).row.fields}
    assert accesses(Op(name, ready), registers, SMALL) == [Access(*entry) for entry in expected]

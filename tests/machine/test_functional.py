"""Each instruction of the functional reading against a formula of its own, on small tiles with awkward strides."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.errors import UnmaskError
from unmask.isa.encoding import Op, encode
from unmask.isa.program import Program, Region
from unmask.isa.table import BY_NAME, Engine, Kind
from unmask.machine.config import Machine
from unmask.machine.functional import FunctionalMachine
from unmask.machine.semantics import SEMANTICS
from unmask.machine.state import MachineFault
from unmask.numerics import mx, noise

PRESET = Machine.preset("small")
# A granule of one element, so that operands may lie anywhere.
PARTS = {"sram": PRESET.sram.model_copy(update={"vector_kib": 128}), "vector": PRESET.vector.model_copy(update={"granule": 1})}
SMALL = PRESET.model_copy(update=PARTS)
HBM_BYTES = 1 << 16
STRIDES = ("dst_stride", "a_stride", "b_stride")
FORMATS = ["mxint8", "mxint4", "mxfp8", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp4"]
seeds = st.integers(0, 2**32 - 1)
quick = settings(max_examples=25, deadline=None, derandomize=True, database=None)


def machine(weights: str = "mxint8", activations: str = "mxint8", kv: str = "mxint8") -> Machine:
    formats = SMALL.formats.model_copy(update={"weights": weights, "activations": activations, "kv": kv})
    return SMALL.model_copy(update={"formats": formats})


def prepared(description: Machine, instructions: list[tuple[str, dict[str, Any]]]) -> FunctionalMachine:
    """A machine whose program is these instructions; register operands are given as the values that they shall hold."""
    ops: list[Op] = []
    for name, operands in instructions:
        ready, number = {}, 0
        for spec in BY_NAME[name].fields:
            ready[spec.name] = operands[spec.name]
            if spec.kind is Kind.REGISTER:
                ops.append(Op("S_LI", {"rd": number, "value": operands[spec.name]}))
                ready[spec.name], number = number, number + 1
        assert set(operands) == set(ready)
        ops.append(Op(name, ready))
    words = encode([*ops, Op("HALT")])
    return FunctionalMachine(Program(words, ["all"] * len(words), HBM_BYTES, {"all": Region(0, HBM_BYTES)}, {}, {}), description)


def fresh(seed: int, instructions: list[tuple[str, dict[str, Any]]], description: Machine = SMALL) -> FunctionalMachine:
    """`prepared`, every memory filled with random content; every aligned pair of bytes in HBM is a finite BF16."""
    npu, rng = prepared(description, instructions), np.random.default_rng(seed)
    state = npu.state
    state.vector[:] = bf16(rng.normal(size=state.vector.size) * np.exp2(rng.integers(-6, 6, state.vector.size)))
    state.floats[:] = rng.normal(size=state.floats.size)
    state.integers[:] = rng.integers(-100, 100, state.integers.size)
    state.hbm[:] = rng.integers(0, 256, state.hbm.size) & 0xBF
    return npu


def bf16(x: Any) -> np.ndarray:
    return np.asarray(x, np.float32).astype(ml_dtypes.bfloat16).astype(np.float32)


def rows_of(memory: np.ndarray, start: int, rows: int, cols: int, stride: int) -> np.ndarray:
    return np.array([memory[start + row * stride : start + row * stride + cols] for row in range(rows)])


def scattered(memory: np.ndarray, values: np.ndarray, start: int, stride: int) -> np.ndarray:
    """What a memory holds after rows of values were put at a stride; everything else as it was."""
    result = memory.copy()
    for row, content in enumerate(values):
        result[start + row * stride : start + row * stride + len(content)] = content
    return result


def same(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(found.astype(np.float64), expected.astype(np.float64))


# Loads and stores


@quick
@given(seeds, st.integers(1, 9), st.integers(1, 70), st.integers(0, 40), st.integers(0, 33))
def test_vector_load_and_store_move_rows(seed, rows, cols, gap, at):
    pitch = 2 * (cols + gap)
    load = ("L_VEC", {"dst": at, "src": 100, "rows": rows, "cols": cols, "dst_stride": 3, "src_stride": pitch})
    store = ("ST_VEC", {"src": at, "dst": 30000, "rows": rows, "cols": cols, "src_stride": 3, "dst_stride": pitch + 6})
    npu = fresh(seed, [load, store])
    before, hbm = npu.state.vector.copy(), npu.state.hbm.copy()
    halves = rows_of(hbm, 100, rows, 2 * cols, pitch).copy().view(ml_dtypes.bfloat16)
    npu.run()
    same(npu.state.vector, scattered(before, halves.astype(np.float32), at, 96))
    same(npu.state.hbm, scattered(hbm, halves.view(np.uint8), 30000, pitch + 6))


def test_integer_load_and_store_move_words():
    npu = fresh(1, [("L_INT", {"dst": 5, "src": 104, "count": 9}), ("ST_INT", {"src": 4, "dst": 30003, "count": 11})])
    before, hbm = npu.state.integers.copy(), npu.state.hbm.copy()
    npu.run()
    expected = scattered(before, hbm[104:140].view("<i4")[None], 5, 0)
    same(npu.state.integers, expected)
    same(npu.state.hbm, scattered(hbm, expected[4:15].astype("<i4").view(np.uint8)[None], 30003, 0))


@quick
@given(seeds, st.integers(1, 6), st.integers(1, 40))
def test_gather_picks_rows(seed, rows, cols):
    npu = fresh(
        seed,
        [("L_GATHER", {"dst": 7, "table": 64, "ids": 3, "rows": rows, "cols": cols, "dst_stride": 2, "table_stride": 90, "limit": 20})],
    )
    table = np.random.default_rng(seed).integers(0, 0x7F80, (20, 45)).astype("<u2")
    npu.state.hbm[64 : 64 + 20 * 90] = table.view(np.uint8).ravel()
    ids = np.random.default_rng(seed + 1).integers(0, 20, rows)
    npu.state.integers[3 : 3 + rows] = ids
    before = npu.state.vector.copy()
    npu.run()
    same(npu.state.vector, scattered(before, table[ids, :cols].view(ml_dtypes.bfloat16).astype(np.float32), 7, 64))


@pytest.mark.parametrize("wrong", [-1, 20, 2**31 - 1, -(2**31)])
def test_gather_of_a_row_that_there_is_not_is_a_fault(wrong):
    gather = {"dst": 0, "table": 0, "ids": 0, "rows": 3, "cols": 4, "dst_stride": 1, "table_stride": 8, "limit": 20}
    npu = prepared(SMALL, [("L_GATHER", gather)])
    npu.state.integers[2] = wrong
    with pytest.raises(MachineFault, match=r"instruction 3 \(L_GATHER\): .*row number outside \[0, 20\)"):
        npu.run()


@pytest.mark.parametrize("format", [0, 1])
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("rows", "cols", "gap"), [(1, 32, 0), (3, 70, 2), (5, 7, 1), (2, 96, 0)])
def test_packed_rows_come_back_from_memory(name, format, rows, cols, gap):
    blocks = -(-cols // 32)
    bits = mx.format_named(name).element.bits
    store = {"src": 5, "dst": 1000, "scales": 500, "rows": rows, "cols": cols, "src_stride": 4, "dst_stride": blocks + gap}
    load = {"dst": 9, "src": 1000, "scales": 500, "rows": rows, "cols": cols, "src_stride": blocks + gap}
    description = machine(weights=name, kv="mxint4") if format == 0 else machine(weights="mxfp8", kv=name)
    npu = fresh(0, [("ST_MX", {**store, "format": format}), ("L_MAT", {**load, "format": format})], description)
    hbm, values = npu.state.hbm.copy(), rows_of(npu.state.vector, 5, rows, cols, 128)
    npu.run()
    size, last = rows * blocks, 1000 + ((rows - 1) * (blocks + gap) + blocks) * 4 * bits
    codes, scales = npu.state.codes[9 : 9 + size].reshape(rows, -1), npu.state.scales[9 : 9 + size].reshape(rows, blocks)
    found = mx.dequantize(mx.MxTensor(codes, scales, mx.format_named(name), cols))
    same(found, mx.dequantize(mx.quantize(values, name)))
    # An element is off by at most half of the coarsest step under the largest magnitude of its block, or saturates near it.
    largest = np.repeat(np.abs(np.pad(values, ((0, 0), (0, blocks * 32 - cols)))).reshape(rows, blocks, 32).max(2), 32, 1)[:, :cols]
    assert (np.abs(found - values) <= largest / 4).all()
    same(npu.state.hbm[last:], hbm[last:])
    same(npu.state.hbm[:500], hbm[:500])


# The matrix engine


@quick
@given(seeds, st.sampled_from(FORMATS), st.sampled_from(FORMATS), st.integers(1, 7), st.integers(1, 40), st.integers(1, 80))
def test_a_product_is_the_product_of_what_is_stored(seed, weights, activations, m, n, k):
    operands = {"dst": 3, "a": 20000, "b": 2, "m": m, "n": n, "k": k, "dst_stride": 2, "a_stride": 3, "transposed": 0, "format": 0}
    npu = fresh(seed, [("M_MM", operands)], machine(weights, activations))
    right = mx.quantize(np.random.default_rng(seed).normal(size=(n, k)).astype(np.float32), weights)
    fill(npu, 2, right)
    left = mx.dequantize(mx.quantize(rows_of(npu.state.vector, 20000, m, k, 96), activations))
    before = npu.state.vector.copy()
    npu.run()
    close(npu, before, left.astype(np.float64) @ mx.dequantize(right).astype(np.float64).T, 3, 64)


@quick
@given(seeds, st.sampled_from(FORMATS), st.integers(1, 7), st.integers(1, 70), st.integers(1, 70))
def test_a_transposed_product_reads_down_the_columns(seed, kv, m, n, k):
    operands = {"dst": 3, "a": 20000, "b": 5, "m": m, "n": n, "k": k, "dst_stride": 3, "a_stride": 3, "transposed": 1, "format": 1}
    npu = fresh(seed, [("M_MM", operands)], machine("mxfp4", "mxint8", kv))
    right = mx.quantize(np.random.default_rng(seed).normal(size=(k, n)).astype(np.float32), kv)
    fill(npu, 5, right)
    left = mx.dequantize(mx.quantize(rows_of(npu.state.vector, 20000, m, k, 96), "mxint8"))
    before = npu.state.vector.copy()
    npu.run()
    close(npu, before, left.astype(np.float64) @ mx.dequantize(mx.reblock_transposed(right)).astype(np.float64).T, 3, 96)


def fill(npu: FunctionalMachine, at: int, tensor: mx.MxTensor) -> None:
    blocks = tensor.scales.size
    npu.state.codes[at : at + blocks] = tensor.codes.reshape(blocks, 32)
    npu.state.scales[at : at + blocks] = tensor.scales.reshape(blocks)


def close(npu: FunctionalMachine, before: np.ndarray, exact: np.ndarray, at: int, stride: int) -> None:
    """The result is the exact product, floored to 2^-40 per block and rounded once to BF16; nothing else has changed."""
    found = rows_of(npu.state.vector, at, *exact.shape, stride)
    np.testing.assert_allclose(found, exact, rtol=2**-8, atol=2**-36)
    same(npu.state.vector, scattered(before, found, at, stride))


def test_identity_in_mxint8_copies_small_integers():
    operands = {"dst": 0, "a": 4096, "b": 0, "m": 3, "n": 40, "k": 40, "dst_stride": 2, "a_stride": 2, "transposed": 0, "format": 0}
    npu = prepared(SMALL, [("M_MM", operands)])
    values = np.random.default_rng(0).integers(-63, 64, (3, 40)).astype(np.float32)
    npu.state.vector[:] = scattered(npu.state.vector, values, 4096, 64)
    fill(npu, 0, mx.quantize(np.eye(40, dtype=np.float32), "mxint8"))
    npu.run()
    same(rows_of(npu.state.vector, 0, 3, 40, 64), values)


def test_a_nan_spoils_its_row_of_a_product_alone():
    operands = {"dst": 0, "a": 4096, "b": 0, "m": 3, "n": 4, "k": 40, "dst_stride": 1, "a_stride": 2, "transposed": 0, "format": 0}
    npu = fresh(0, [("M_MM", operands)])
    fill(npu, 0, mx.quantize(np.ones((4, 40), np.float32), "mxint8"))
    npu.state.vector[4096 + 64 + 35] = np.nan
    npu.run()
    assert np.isnan(rows_of(npu.state.vector, 0, 3, 4, 32)).tolist() == [[False] * 4, [True] * 4, [False] * 4]


# Lanes

BINARY = {"V_ADD": np.add, "V_SUB": np.subtract, "V_MUL": np.multiply}
SCALAR = {"V_SUB_F": np.subtract, "V_MUL_F": np.multiply}


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize(
    ("where", "repeated"),
    [
        ((2000, 0, 1000), False),
        ((0, 0, 1000), False),
        ((1000, 0, 1000), False),
        ((2000, 7, 7), False),
        ((2000, 0, 1000), True),
        ((0, 0, 1000), True),
        ((2000, 7, 7), True),
    ],
)
def test_two_tiles_are_combined(name, where, repeated):
    dst, a, b = where
    rows, cols, strides = 5, 61, (2, 2 if dst == a else 3, 0 if repeated else 2)
    operands = {"dst": dst, "a": a, "b": b, "rows": rows, "cols": cols}
    npu = fresh(3, [(name, {**operands, **dict(zip(("dst_stride", "a_stride", "b_stride"), strides, strict=True))})])
    before = npu.state.vector.copy()
    npu.run()
    left, right = (rows_of(before, at, rows, cols, 32 * stride).astype(np.float64) for at, stride in ((a, strides[1]), (b, strides[2])))
    same(npu.state.vector, scattered(before, bf16(BINARY[name](left, right)), dst, 64))


@pytest.mark.parametrize("name", SCALAR)
@pytest.mark.parametrize("dst", [4, 3000])
def test_a_scalar_per_row_is_rounded_to_bf16_and_combined(name, dst):
    npu = fresh(4, [(name, {"dst": dst, "a": 4, "f": 9, "rows": 6, "cols": 45, "dst_stride": 2, "a_stride": 2})])
    before = npu.state.vector.copy()
    npu.run()
    tile = rows_of(before, 4, 6, 45, 64).astype(np.float64)
    same(npu.state.vector, scattered(before, bf16(SCALAR[name](tile, bf16(npu.state.floats[9:15])[:, None].astype(np.float64))), dst, 64))


def test_a_constant_multiplies_and_fills():
    scale = {"dst": 2000, "a": 5, "rows": 4, "cols": 33, "dst_stride": 3, "a_stride": 2, "value": -0.3046875}
    npu = fresh(5, [("V_MUL_I", scale), ("V_FILL", {"dst": 9000, "rows": 3, "cols": 1, "dst_stride": 2, "value": -np.inf})])
    before = npu.state.vector.copy()
    npu.run()
    expected = scattered(before, bf16(rows_of(before, 5, 4, 33, 64).astype(np.float64) * -0.3046875), 2000, 96)
    same(npu.state.vector, scattered(expected, np.full((3, 1), -np.inf), 9000, 64))


@pytest.mark.parametrize(("name", "formula"), [("V_EXP", np.exp), ("V_SILU", lambda x: x / (1 + np.exp(-x)))])
@pytest.mark.parametrize("dst", [40, 5000])
def test_functions_are_close_to_their_formulas(name, formula, dst):
    npu = fresh(6, [(name, {"dst": dst, "a": 40, "rows": 7, "cols": 50, "dst_stride": 2, "a_stride": 2})])
    before = npu.state.vector.copy()
    npu.run()
    found, tile = rows_of(npu.state.vector, dst, 7, 50, 64), rows_of(before, 40, 7, 50, 64).astype(np.float64)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(found, bf16(formula(tile)), rtol=2.0**-6, atol=1e-37)
    same(npu.state.vector, scattered(before, found, dst, 64))


def test_noise_is_that_of_the_counter():
    gumbel = {"dst": 2000, "a": 0, "seed": 2**32 - 1, "step": 3, "position": 17, "token": 101}
    npu = fresh(7, [("V_GUMBEL", {**gumbel, "temperature": 0x3F40, "rows": 5, "cols": 37, "dst_stride": 2, "a_stride": 3})])
    npu.run()
    words = noise.uniform_bits(2**32 - 1, 3, np.arange(17, 22), np.arange(101, 138))
    uniform = (words.astype(np.float64) + 0.5) / 2**32
    expected = rows_of(npu.state.vector, 0, 5, 37, 96) - 0.75 * np.log(-np.log(uniform))
    found = rows_of(npu.state.vector, 2000, 5, 37, 64)
    assert (np.abs(found - expected) <= 2.0**-8 * (np.abs(expected) + 2 * np.abs(np.log(-np.log(uniform))) + 2.0**-4)).all()


def test_uniform_draws_use_the_words_of_no_token():
    npu = fresh(8, [("F_UNIFORM", {"dst": 6, "seed": 12, "step": 7, "position": 40, "count": 25})])
    npu.run()
    words = noise.uniform_bits(12, 7, np.arange(40, 65), np.array([2**32 - 1]))[:, 0]
    same(npu.state.floats[6:31], (words >> 8) / 2.0**24)


# Reductions


@quick
@given(seeds, st.integers(1, 6), st.lists(st.integers(1, 90), min_size=1, max_size=5))
def test_running_reductions_equal_one_over_everything(seed, rows, chunks):
    ends = np.cumsum([0, *chunks]).tolist()
    total, stride = ends[-1], -(-ends[-1] // 32)

    def reductions(dst: int, parts: list[tuple[int, int]]) -> list[tuple[str, dict[str, Any]]]:
        out: list[tuple[str, dict[str, Any]]] = []
        for index, (start, stop) in enumerate(parts):
            shape = {"a": 7 + start, "rows": rows, "cols": stop - start, "a_stride": stride, "running": int(index > 0)}
            out.append(("V_RED_SUM", {"dst": dst, **shape}))
            out.append(("V_RED_MAX", {"dst": dst + 10, **shape}))
            extra = {"index": dst, "picked": dst + 30, "b": 7 + 50000 + start, "base": start, "b_stride": stride}
            out.append(("V_RED_MAX_IDX", {"dst": dst + 20, **shape, **extra}))
        return out

    parts = list(pairwise(ends))
    npu = fresh(seed, [*reductions(0, parts), *reductions(100, [(0, total)])])
    tile = rows_of(npu.state.vector, 7, rows, total, 32 * stride).astype(np.float64)
    companion = rows_of(npu.state.vector, 50007, rows, total, 32 * stride)
    npu.run()
    floats, row = npu.state.floats, np.arange(rows)
    for base in (0, 100):
        exact = np.floor(tile * 2.0**32).sum(axis=1) / 2.0**32
        same(floats[base : base + rows], exact.astype(np.float32))
        same(floats[base + 10 : base + 10 + rows], tile.max(axis=1))
        same(floats[base + 20 : base + 20 + rows], tile.max(axis=1))
        same(npu.state.integers[base : base + rows], tile.argmax(axis=1))
        same(floats[base + 30 : base + 30 + rows], companion[row, tile.argmax(axis=1)])


def max_index(values: list[float], chunks: list[int], companion: list[float] | None = None) -> tuple[float, int, float]:
    """Maximum, index and companion of one row taken in chunks, the indices counted from 1000."""
    parts, start = [], 0
    for index, cols in enumerate(chunks):
        shape = {"rows": 1, "cols": cols, "a_stride": 0, "b_stride": 0, "running": int(index > 0)}
        parts.append(("V_RED_MAX_IDX", {"dst": 1, "index": 2, "picked": 3, "a": start, "b": 500 + start, "base": 1000 + start, **shape}))
        start += cols
    npu = fresh(9, parts)
    npu.state.vector[: len(values)] = values
    npu.state.vector[500 : 500 + len(values)] = values if companion is None else companion
    npu.run()
    return float(npu.state.floats[1]), int(npu.state.integers[2]), float(npu.state.floats[3])


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("chunks", [[6], [3, 3], [1, 5], [2, 2, 2], [1] * 6])
@pytest.mark.parametrize(
    ("values", "best", "where"),
    [
        ([1, 3, 2, 3, 3, 0], 3, 1),
        ([5, 5, 5, 5, 5, 5], 5, 0),
        ([-1, -1, -2, -0.5, -1, -0.5], -0.5, 3),
        ([NAN, 1, NAN, 7, 7, NAN], 7, 3),
        ([1, 7, NAN, NAN, 6, 7], 7, 1),
        ([-INF, -INF, -INF, -3, -INF, -3], -3, 3),
        ([-INF] * 6, -INF, 0),
        ([NAN] * 6, -INF, 0),
        ([0, INF, 1, INF, NAN, 2], INF, 1),
        ([-0.0, 0.0, -1, 0.0, -0.0, -2], 0, 0),
    ],
)
def test_the_lowest_index_wins_a_tie_and_nan_never_wins(values, best, where, chunks):
    companion = [10.0, 20, 30, 40, 50, 60]
    assert max_index(values, chunks, companion) == (best, 1000 + where, companion[where])


@pytest.mark.parametrize("split", [False, True])
def test_nan_is_no_maximum(split):
    first = {"dst": 4, "a": 0, "rows": 2, "cols": 2 if split else 4, "a_stride": 1, "running": 0}
    npu = fresh(10, [("V_RED_MAX", first), *([("V_RED_MAX", {**first, "a": 2, "running": 1})] if split else [])])
    npu.state.vector[:4], npu.state.vector[32:36] = [NAN, NAN, 2, 1], [NAN] * 4
    npu.run()
    assert npu.state.floats[4:6].tolist() == [2, -INF]


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_sum_with_a_special_value_is_nan_in_its_row_until_a_new_sum_starts(bad):
    first = {"dst": 0, "a": 0, "rows": 2, "cols": 5, "a_stride": 1, "running": 0}
    again = [{**first, "dst": 2, "a": 100, "running": 1}, {**first, "dst": 4, "a": 100}]
    npu = fresh(11, [("V_RED_SUM", first), *(("V_RED_SUM", operands) for operands in again)])
    npu.state.vector[:200] = 1
    npu.state.vector[33] = bad
    npu.run()
    np.testing.assert_array_equal(npu.state.floats[:6], np.float32([5, NAN, 10, NAN, 5, 5]))


def test_a_reduction_has_at_most_as_many_rows_as_accumulators():
    rows = SMALL.vector.accumulators + 1
    npu = prepared(SMALL, [("V_RED_SUM", {"dst": 0, "a": 0, "rows": rows, "cols": 1, "a_stride": 1, "running": 0})])
    with pytest.raises(MachineFault, match=r"\(V_RED_SUM\): a reduction of 513 rows exceeds the 512 row accumulators"):
        npu.run()


# Scalars

F32 = np.float32
FLOAT_OPS = {
    "F_ADD_I": (lambda a, b: a + F32(0.1), {"value": float(F32(0.1))}),
    "F_MUL_I": (lambda a, b: a * F32(-1 / 3), {"value": float(F32(-1 / 3))}),
    "F_SUB": (lambda a, b: a - b, {"b": 50}),
    "F_MUL": (lambda a, b: a * b, {"b": 50}),
    "F_RECIP": (lambda a, b: (1 / a.astype(np.float64)).astype(F32), {}),
    "F_RSQRT": (lambda a, b: (1 / np.sqrt(np.abs(a.astype(np.float64)))).astype(F32), {}),
}


@pytest.mark.parametrize("name", FLOAT_OPS)
@pytest.mark.parametrize("dst", [20, 100, 50])
def test_scalars_are_fp32(name, dst):
    formula, extra = FLOAT_OPS[name]
    npu = fresh(12, [(name, {"dst": dst, "a": 20, "count": 17, **extra})])
    if name == "F_RSQRT":
        np.abs(npu.state.floats, out=npu.state.floats)
    before = npu.state.floats.copy()
    npu.run()
    same(npu.state.floats, scattered(before, formula(before[20:37], before[50:67])[None], dst, 0))


def test_fill_and_exp_of_scalars():
    npu = fresh(13, [("F_EXP", {"dst": 0, "a": 20, "count": 9}), ("F_FILL", {"dst": 60, "count": 5, "value": float(F32(0.3))})])
    before = npu.state.floats.copy()
    npu.run()
    np.testing.assert_allclose(npu.state.floats[:9], np.exp(bf16(before[20:29])), rtol=2.0**-8)
    same(npu.state.floats[:9], bf16(npu.state.floats[:9]))
    same(npu.state.floats[60:65], np.full(5, F32(0.3)))


# Integers


def test_equality_marks_words():
    npu = fresh(14, [("I_EQ_I", {"dst": 40, "a": 3, "count": 8, "value": -7})])
    npu.state.integers[3:11] = [-7, 7, 0, -7, 2**31 - 1, -8, -7, 1]
    npu.run()
    assert npu.state.integers[40:48].tolist() == [1, 0, 0, 1, 0, 0, 1, 0]


def test_select_takes_a_where_the_mask_is_not_zero():
    npu = fresh(15, [("V_SELECT_INT", {"dst": 30, "mask": 0, "a": 10, "b": 30, "count": 6})])
    npu.state.integers[:6] = [0, 1, -1, 0, 2**31 - 1, -(2**31)]
    a, b = npu.state.integers[10:16].copy(), npu.state.integers[30:36].copy()
    npu.run()
    assert npu.state.integers[30:36].tolist() == [b[0], a[1], a[2], b[3], a[4], a[5]]


def top_k(scores: list[float], eligible: list[int], k: int, in_place: bool = False) -> list[int]:
    dst, count = (20 if in_place else 60), len(scores)
    npu = fresh(16, [("V_TOPK_MASK", {"dst": dst, "f": 5, "eligible": 20, "k": k, "count": count})])
    npu.state.floats[5 : 5 + count] = scores
    npu.state.integers[20 : 20 + count] = eligible
    npu.run()
    return npu.state.integers[dst : dst + count].tolist()


@pytest.mark.parametrize(
    ("scores", "eligible", "k", "chosen"),
    [
        ([3, 1, 2], [1, 1, 1], 0, [0, 0, 0]),
        ([3, 1, 2], [1, 1, 1], 1, [1, 0, 0]),
        ([3, 1, 2], [0, 1, 1], 1, [0, 0, 1]),
        ([3, 1, 2], [0, 1, 1], 3, [0, 1, 1]),
        ([3, 1, 2], [0, 0, 0], 2, [0, 0, 0]),
        ([2, 2, 2, 2], [1, 1, 1, 1], 2, [1, 1, 0, 0]),
        ([2, 2, 2, 2], [0, 1, 1, 1], 2, [0, 1, 1, 0]),
        ([-INF, -INF, 0, -INF], [1, 1, 1, 1], 2, [1, 0, 1, 0]),
        ([-INF, -INF], [1, 1], 1, [1, 0]),
        ([NAN, 1, NAN, 2], [1, 1, 1, 1], 3, [1, 1, 0, 1]),
        ([0.0, -0.0, 0.0], [1, 1, 1], 1, [1, 0, 0]),
        ([INF, 1, INF], [1, 1, 1], 1, [1, 0, 0]),
        ([1, 2], [1, 1], 2**31 - 1, [1, 1]),
    ],
)
@pytest.mark.parametrize("in_place", [False, True])
def test_top_k_chooses_the_best_eligible_entries(scores, eligible, k, chosen, in_place):
    assert top_k(scores, eligible, k, in_place) == chosen


@quick
@given(st.data())
def test_top_k_equals_a_stable_sort(data):
    count = data.draw(st.integers(1, 40))
    scores = data.draw(st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, -INF]), min_size=count, max_size=count))
    eligible = data.draw(st.lists(st.integers(0, 1), min_size=count, max_size=count))
    k = data.draw(st.integers(0, count + 2))
    ranked = sorted((index for index in range(count) if eligible[index]), key=lambda index: (-scores[index], index))
    assert top_k(scores, eligible, k) == [int(index in ranked[:k]) for index in range(count)]


# Faults

VALID: dict[str, dict[str, Any]] = {
    "L_VEC": {"dst": 0, "src": 0, "rows": 2, "cols": 40, "dst_stride": 2, "src_stride": 80},
    "L_MAT": {"dst": 0, "src": 0, "scales": 900, "rows": 2, "cols": 40, "src_stride": 2, "format": 0},
    "L_INT": {"dst": 0, "src": 0, "count": 4},
    "L_GATHER": {"dst": 0, "table": 0, "ids": 0, "rows": 2, "cols": 4, "dst_stride": 1, "table_stride": 8, "limit": 9},
    "L_MX": {"dst": 0, "src": 0, "scales": 900, "rows": 2, "cols": 40, "dst_stride": 2, "src_stride": 2, "format": 1},
    "ST_VEC": {"src": 0, "dst": 0, "rows": 2, "cols": 40, "src_stride": 2, "dst_stride": 80},
    "ST_MX": {"src": 0, "dst": 0, "scales": 900, "rows": 2, "cols": 40, "src_stride": 2, "dst_stride": 2, "format": 1},
    "ST_INT": {"src": 0, "dst": 0, "count": 4},
    "M_MM": {"dst": 0, "a": 0, "b": 0, "m": 2, "n": 3, "k": 40, "dst_stride": 1, "a_stride": 2, "transposed": 0, "format": 0},
    **{name: {"dst": 0, "a": 0, "b": 0, "rows": 2, "cols": 9, "dst_stride": 1, "a_stride": 1, "b_stride": 1} for name in BINARY},
    **{name: {"dst": 0, "a": 0, "f": 0, "rows": 2, "cols": 9, "dst_stride": 1, "a_stride": 1} for name in SCALAR},
    "V_MUL_I": {"dst": 0, "a": 0, "rows": 2, "cols": 9, "dst_stride": 1, "a_stride": 1, "value": 1.0},
    "V_FILL": {"dst": 0, "rows": 2, "cols": 9, "dst_stride": 1, "value": 1.0},
    "V_EXP": {"dst": 0, "a": 0, "rows": 2, "cols": 9, "dst_stride": 1, "a_stride": 1},
    "V_SILU": {"dst": 0, "a": 0, "rows": 2, "cols": 9, "dst_stride": 1, "a_stride": 1},
    "V_GUMBEL": {
        **{"dst": 0, "a": 0, "rows": 2, "cols": 9, "dst_stride": 1, "a_stride": 1},
        **{"seed": 0, "step": 0, "position": 0, "token": 0, "temperature": 0},
    },
    **{name: {"dst": 0, "a": 0, "rows": 2, "cols": 9, "dst_stride": 1, "a_stride": 1} for name in ("V_XEXP", "V_RECIP", "V_POW2")},
    "V_DROP": {"dst": 0, "index": 0, "base": 0, "rows": 2, "cols": 9, "dst_stride": 1},
    "V_CUT": {"dst": 0, "a": 0, "key": 0, "rows": 2, "cols": 9, "dst_stride": 1, "a_stride": 1},
    "V_RED_SUM": {"dst": 0, "a": 0, "rows": 2, "cols": 9, "a_stride": 1, "running": 0},
    "V_RED_MAX": {"dst": 0, "a": 0, "rows": 2, "cols": 9, "a_stride": 1, "running": 0},
    "V_RED_MAX_IDX": {
        **{"dst": 0, "index": 0, "picked": 9, "a": 0, "b": 0, "base": 0},
        **{"rows": 2, "cols": 9, "a_stride": 1, "b_stride": 1, "running": 0},
    },
    "V_RED_SUM_GE": {
        **{"dst": 0, "a": 0, "b": 0, "key": 0, "bit": 15},
        **{"rows": 2, "cols": 9, "a_stride": 1, "b_stride": 1, "running": 0},
    },
    "V_COL_ABSMAX": {"dst": 0, "a": 0, "rows": 2, "cols": 9, "a_stride": 1, "running": 0},
    "F_FILL": {"dst": 0, "count": 3, "value": 1.0},
    "F_ADD_I": {"dst": 0, "a": 0, "count": 3, "value": 1.0},
    "F_MUL_I": {"dst": 0, "a": 0, "count": 3, "value": 1.0},
    "F_SUB": {"dst": 0, "a": 0, "b": 0, "count": 3},
    "F_MUL": {"dst": 0, "a": 0, "b": 0, "count": 3},
    "F_EXP": {"dst": 0, "a": 0, "count": 3},
    "F_RECIP": {"dst": 0, "a": 0, "count": 3},
    "F_RSQRT": {"dst": 0, "a": 0, "count": 3},
    "F_UNIFORM": {"dst": 0, "seed": 0, "step": 0, "position": 0, "count": 3},
    "F_LOG": {"dst": 0, "a": 0, "count": 3},
    "F_GUMBEL": {"dst": 0, "a": 0, "seed": 0, "step": 0, "position": 0, "count": 3},
    "F_FROM_INT": {"dst": 0, "a": 0, "count": 3},
    "F_LT": {"dst": 0, "a": 0, "b": 0, "count": 3},
    "I_FILL": {"dst": 0, "value": 7, "count": 3},
    "I_SET_BIT_GT": {"dst": 0, "a": 0, "b": 0, "bit": 3, "count": 3},
    "V_THRESHOLD_MASK": {"dst": 0, "f": 0, "eligible": 0, "count": 3, "value": 0.5},
    "V_BARS_MASK": {"dst": 0, "f": 0, "eligible": 0, "bars": 0, "count": 3},
    "I_EQ_I": {"dst": 0, "a": 0, "count": 3, "value": 0},
    "V_TOPK_MASK": {"dst": 0, "f": 0, "eligible": 0, "k": 1, "count": 3},
    "V_SELECT_INT": {"dst": 0, "mask": 0, "a": 0, "b": 0, "count": 3},
    "V_EXP_WIN": {"dst": 0, "a": 0, "f": 0, "rows": 2, "cols": 40, "dst_stride": 2, "a_stride": 2},
    "F_EXP_WIN": {"dst": 0, "a": 0, "f": 0, "count": 3},
    "V_RED_SUM_WIN": {"dst": 0, "a": 0, "f": 0, "rows": 2, "cols": 40, "a_stride": 2, "running": 0},
    "V_SAMPLE": {
        **{"seed": 0, "step": 0, "position": 0, "token": 0, "temperature": 0, "first": 0},
        **{"a": 0, "period": 2, "rows": 2, "cols": 40, "a_stride": 2, "running": 0},
    },
    "V_SAMPLE_END": {"dst": 0, "index": 0, "first": 0, "count": 2},
    "V_TOPK_ROW": {"dst": 0, "a": 0, "b": 0, "k": 2, "rows": 2, "cols": 9, "dst_stride": 1, "a_stride": 1, "b_stride": 1},
    "V_EXPERT_TILES": {"dst": 0, "b": 0, "span": 3, "cols": 9, "b_stride": 1, "rows": 2, "tiles": 12},
    **{
        name: {"dst": 64, "a": 0, "b": 256, "expert": 0, "skip": 0, "rows": 2, "span": 3, "cols": 9, "stride": 1, "b_stride": 1}
        for name in ("V_GATHER_ROWS", "V_SCATTER_ADD")
    },
}
NOT_ADDRESSES = {"expert", "skip", "first", "seed", "step", "position", "token", "temperature", "base", "k", "bit", "value"}
ADDRESSES = [
    (name, spec.name)
    for name, operands in VALID.items()
    for spec in BY_NAME[name].fields
    if spec.kind is Kind.REGISTER and spec.name not in NOT_ADDRESSES and spec.name in operands
]


def test_every_instruction_of_an_engine_is_tried():
    assert set(VALID) == set(SEMANTICS)
    for name, operands in VALID.items():
        assert BY_NAME[name].engine is not Engine.SEQUENCER
        prepared(SMALL, [(name, operands)]).run()


@pytest.mark.parametrize("address", [-1, 2**40])
@pytest.mark.parametrize(("name", "operand"), ADDRESSES, ids=lambda value: value)
def test_an_address_outside_its_memory_is_a_fault_of_that_instruction(name, operand, address):
    npu = prepared(SMALL, [(name, {**VALID[name], operand: address})])
    with pytest.raises(MachineFault, match=rf"^instruction \d+ \({name}\): .* leaves its \d+ entries"):
        npu.run()


def test_the_last_entries_of_a_memory_can_be_used_and_the_next_not():
    end = SMALL.vector_elements
    fill_last = {"rows": 3, "cols": 5, "dst_stride": 1, "value": 2.0}
    prepared(SMALL, [("V_FILL", {"dst": end - 69, **fill_last})]).run()
    with pytest.raises(MachineFault, match="vector SRAM: 3 x 5 at"):
        prepared(SMALL, [("V_FILL", {"dst": end - 68, **fill_last})]).run()


def test_registers_of_loops_and_arithmetic():
    text = [
        Op("S_LI", {"rd": 1, "value": 5}),
        Op("LOOP", {"count": 3}),
        Op("S_MULI", {"rd": 2, "rs": 1, "value": -2}),
        Op("LOOP", {"count": 2}),
        Op("S_ADDI", {"rd": 1, "rs": 1, "value": 7}),
        Op("END"),
        Op("END"),
        Op("S_ADD", {"rd": 3, "rs": 1, "rt": 2}),
        Op("S_XORI", {"rd": 4, "rs": 1, "value": 0b1010}),
        Op("S_LD", {"rd": 5, "a": 1}),
        Op("HALT"),
    ]
    npu = FunctionalMachine(Program(encode(text), ["all"] * len(text), 64, {}, {}, {}), SMALL)
    npu.state.integers[47] = -3
    npu.run()
    assert npu.state.registers[1:6] == [47, -66, -19, 47 ^ 0b1010, -3]


def test_a_scalar_load_outside_the_integer_memory_is_a_fault_of_that_instruction():
    npu = prepared(SMALL, [("S_LD", {"rd": 7, "a": SMALL.sram.integer_words})])
    with pytest.raises(MachineFault, match=r"instruction 2 \(S_LD\)"):
        npu.run()


@pytest.mark.parametrize("name", ["L_MAT", "L_MX", "ST_MX", "M_MM"])
def test_a_format_that_the_machine_has_not_is_an_error(name):
    with pytest.raises(UnmaskError, match="format 2"):
        prepared(SMALL, [(name, {**VALID[name], "format": 2})]).run()


@pytest.mark.parametrize("name", ["V_GUMBEL", "F_UNIFORM"])
def test_a_noise_key_is_the_low_32_bits_of_its_register(name):
    drawn = []
    for step in (-1, 2**32 - 1):
        loud = {"temperature": 0x3F80} if name == "V_GUMBEL" else {}
        npu = prepared(SMALL, [(name, {**VALID[name], "step": step, **loud})])
        npu.run()
        drawn.append((npu.state.vector.copy(), npu.state.floats.copy()))
    np.testing.assert_array_equal(drawn[0][0], drawn[1][0])
    np.testing.assert_array_equal(drawn[0][1], drawn[1][1])
    assert drawn[0][0].any() or drawn[0][1].any()


@pytest.mark.parametrize("granule", [1, 2, 8, 32])
@pytest.mark.parametrize("address", [0, 1, 6, 8, 40, 96])
def test_vector_addresses_are_multiples_of_the_granule(granule, address):
    description = SMALL.model_copy(update={"vector": SMALL.vector.model_copy(update={"granule": granule})})
    npu = prepared(description, [("V_ADD", {"dst": 0, "a": address, "b": 0, "rows": 1, "cols": 5, **dict.fromkeys(STRIDES, 1)})])
    if address % granule == 0:
        npu.run()
        return
    with pytest.raises(MachineFault, match=f"vector SRAM address {address}: expected a multiple of {granule}"):
        npu.run()


@pytest.mark.parametrize(("name", "operands"), [("V_TOPK_MASK", {"k": 1}), ("V_BARS_MASK", {"bars": 300})])
def test_no_more_scores_are_ranked_than_the_sorter_has_entries(name, operands):
    description = SMALL.model_copy(update={"vector": SMALL.vector.model_copy(update={"sorter": 9})})
    shape = {"dst": 0, "f": 100, "eligible": 200, **operands}
    prepared(description, [(name, {**shape, "count": 9})]).run()
    with pytest.raises(MachineFault, match="10 scores exceed the 9 entries"):
        prepared(description, [(name, {**shape, "count": 10})]).run()

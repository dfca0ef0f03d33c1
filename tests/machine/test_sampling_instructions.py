"""The instructions that sampling and smoothing add, each against a formula of its own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.errors import UnmaskError
from unmask.isa.encoding import Op
from unmask.machine.access import Access, accesses
from unmask.machine.config import Machine
from unmask.machine.costs import Cycles, cost_of
from unmask.machine.state import MachineFault
from unmask.numerics import mx, noise

from .test_functional import FORMATS, SMALL, bf16, fresh, quick, rows_of, same, scattered, seeds

NAN, INF = float("nan"), float("inf")


def with_logits(name: str, base: Machine = SMALL) -> Machine:
    return base.model_copy(update={"formats": base.formats.model_copy(update={"logits": name})})


# Loads and stores


@pytest.mark.parametrize("format", [0, 1, 2])
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("rows", "cols", "gap"), [(1, 32, 0), (3, 70, 2), (5, 7, 1)])
def test_packed_rows_come_back_to_the_vector_memory(name, format, rows, cols, gap):
    blocks = -(-cols // 32)
    store = {"src": 5, "dst": 1000, "scales": 500, "rows": rows, "cols": cols, "src_stride": 4, "dst_stride": blocks + gap}
    load = {"dst": 20001, "src": 1000, "scales": 500, "rows": rows, "cols": cols, "dst_stride": 3, "src_stride": blocks + gap}
    names = ["mxint4", "mxfp8", "mxfp4"]
    names[format] = name
    formats = SMALL.formats.model_copy(update=dict(zip(("weights", "kv", "logits"), names, strict=True)))
    description = SMALL.model_copy(update={"formats": formats})
    npu = fresh(0, [("ST_MX", {**store, "format": format}), ("L_MX", {**load, "format": format})], description)
    before = npu.state.vector.copy()
    npu.run()
    expected = bf16(mx.dequantize(mx.quantize(rows_of(before, 5, rows, cols, 128), name)))
    same(npu.state.vector, scattered(before, expected, 20001, 96))


def test_a_product_below_bf16_is_rounded_on_the_way_in():
    load = {"dst": 0, "src": 0, "scales": 64, "rows": 1, "cols": 3, "dst_stride": 1, "src_stride": 1, "format": 2}
    npu = fresh(0, [("L_MX", load)], with_logits("mxfp8"))
    # E4M3: the smallest subnormal is 2^-9; the scale code 0 is 2^-127; BF16 has no bit below 2^-133.
    npu.state.hbm[:3], npu.state.hbm[64] = [1, 8, 9], 0
    npu.run()
    assert npu.state.vector[:3].tolist() == [0.0, 2.0**-133, 2.0**-133]


@pytest.mark.parametrize("name", ["L_MX", "ST_MX"])
def test_logits_in_bf16_have_no_mx_format(name):
    place = {
        "L_MX": {"dst": 0, "src": 0, "dst_stride": 1, "src_stride": 1},
        "ST_MX": {"src": 0, "dst": 0, "src_stride": 1, "dst_stride": 1},
    }
    operands = {**place[name], "scales": 100, "rows": 1, "cols": 3, "format": 2}
    with pytest.raises(MachineFault, match="format 2: expected one of 0 to 1"):
        fresh(0, [(name, operands)]).run()
    fresh(0, [(name, operands)], with_logits("mxint8")).run()


@pytest.mark.parametrize("name", ["L_MAT", "M_MM"])
def test_the_matrix_engine_has_no_format_of_logits(name):
    operands = {
        "L_MAT": {"dst": 0, "src": 0, "scales": 900, "rows": 2, "cols": 40, "src_stride": 2},
        "M_MM": {"dst": 0, "a": 0, "b": 0, "m": 2, "n": 3, "k": 40, "dst_stride": 1, "a_stride": 2, "transposed": 0},
    }[name]
    with pytest.raises(UnmaskError, match="format 2: expected one of 0 to 1"):
        fresh(0, [(name, {**operands, "format": 2})], with_logits("mxint8")).run()


# Lanes


@pytest.mark.parametrize(
    ("name", "formula"),
    [("V_XEXP", lambda x: x * np.exp(x)), ("V_RECIP", lambda x: 1 / x), ("V_POW2", lambda x: 2.0 ** np.floor(np.log2(np.abs(x))))],
)
@pytest.mark.parametrize("dst", [40, 5000])
def test_functions_are_close_to_their_formulas(name, formula, dst):
    npu = fresh(6, [(name, {"dst": dst, "a": 40, "rows": 7, "cols": 50, "dst_stride": 2, "a_stride": 2})])
    before = npu.state.vector.copy()
    npu.run()
    found, tile = rows_of(npu.state.vector, dst, 7, 50, 64), rows_of(before, 40, 7, 50, 64).astype(np.float64)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(found, bf16(formula(tile)), rtol=0 if name == "V_POW2" else 2.0**-7, atol=1e-37)
    same(npu.state.vector, scattered(before, found, dst, 64))


def test_drop_sets_the_named_column_of_each_row_if_it_is_in_the_tile():
    npu = fresh(1, [("V_DROP", {"dst": 7, "index": 3, "base": 100, "rows": 5, "cols": 9, "dst_stride": 1})])
    npu.state.integers[3:8] = [100, 108, 99, 109, -1]
    before = npu.state.vector.copy()
    npu.run()
    expected = before.copy()
    expected[7 + 0], expected[7 + 32 + 8] = -INF, -INF
    same(npu.state.vector, expected)


ORDER = [NAN, -INF, -3.0, -1e-40, 0.0, 1e-40, 1.0, 1.0078125, INF]


def ordered(x: float) -> int:
    """The rank that the manual describes, from the bits."""
    bits = int(np.float32(x).view(np.uint32)) >> 16
    if np.isnan(x):
        return 0
    if bits & 0x7FFF == 0:
        return 0x8000
    return bits ^ 0xFFFF if bits & 0x8000 else bits | 0x8000


def test_the_keys_are_in_the_order_of_the_values():
    keys = [ordered(float(bf16(x))) for x in ORDER]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)
    assert ordered(-0.0) == ordered(0.0)


@pytest.mark.parametrize("bound", ORDER[1:])
def test_a_cut_keeps_what_reaches_the_key_and_nan(bound):
    npu = fresh(2, [("V_CUT", {"dst": 100, "a": 4, "key": 6, "rows": 1, "cols": 10, "dst_stride": 1, "a_stride": 1})])
    values = bf16([*ORDER, -0.0])
    npu.state.vector[4:14] = values
    npu.state.integers[6] = ordered(float(bf16(bound)))
    npu.run()
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(npu.state.vector[100:110], np.where(np.isnan(values) | (values >= bf16(bound)), values, -INF))


# Reductions


@quick
@given(seeds, st.integers(1, 5), st.integers(1, 60), st.integers(0, 60), st.integers(0, 15), st.booleans())
def test_a_sum_above_a_key_is_the_sum_of_what_reaches_it(seed, rows, cols, more, bit, repeated):
    shape = {"rows": rows, "cols": cols, "a_stride": 0 if repeated else 4, "b_stride": 4, "running": 0, "key": 9, "bit": bit}
    parts = [{**shape, "dst": 2, "a": 0, "b": 5000}]
    if more:
        parts.append({**shape, "dst": 2, "a": 0 if repeated else cols, "b": 5000 + cols, "cols": more, "running": 1})
    npu = fresh(seed, [("V_RED_SUM_GE", part) for part in parts])
    npu.state.integers[9 : 9 + rows] = np.random.default_rng(seed).integers(0, 2**16, rows)
    stride = 0 if repeated else 128
    tiles = [rows_of(npu.state.vector, part["a"], rows, part["cols"], stride) for part in parts]
    compared = rows_of(npu.state.vector, 5000, rows, cols + more, 128)
    npu.run()
    weights = np.floor(np.concatenate(tiles, axis=1).astype(np.float64) * 2**32)
    keys = np.vectorize(ordered)(compared)
    trial = npu.state.integers[9 : 9 + rows] | 1 << bit
    expected = np.where(keys >= trial[:, None], weights, 0).sum(axis=1) / 2**32
    same(npu.state.floats[2 : 2 + rows], expected.astype(np.float32))


def test_only_what_is_summed_can_spoil_a_sum_above_a_key():
    shape = {"rows": 1, "cols": 3, "a_stride": 1, "b_stride": 1, "running": 0, "key": 9, "bit": 15}
    npu = fresh(3, [("V_RED_SUM_GE", {**shape, "dst": 0, "a": 0, "b": 32}), ("V_RED_SUM_GE", {**shape, "dst": 1, "a": 0, "b": 64})])
    npu.state.vector[:3], npu.state.vector[32:35], npu.state.vector[64:67] = [NAN, 2, 3], [-1, 1, 1], [1, 1, 1]
    npu.state.integers[9] = 0
    npu.run()
    assert npu.state.floats[0] == 5
    assert np.isnan(npu.state.floats[1])


@quick
@given(seeds, st.integers(1, 6), st.integers(1, 6), st.integers(1, 70))
def test_a_column_maximum_is_that_of_the_magnitudes(seed, first, more, cols):
    shape = {"dst": 30000, "cols": cols, "a_stride": 3}
    parts = [{**shape, "a": 3, "rows": first, "running": 0}, {**shape, "a": 3 + 96 * first, "rows": more, "running": 1}]
    npu = fresh(seed, [("V_COL_ABSMAX", part) for part in parts])
    before = npu.state.vector.copy()
    npu.run()
    tile = rows_of(before, 3, first + more, cols, 96)
    same(npu.state.vector, scattered(before, np.abs(tile).max(axis=0)[None], 30000, 0))


def test_a_nan_is_no_column_maximum():
    npu = fresh(4, [("V_COL_ABSMAX", {"dst": 99, "a": 0, "rows": 2, "cols": 3, "a_stride": 1, "running": running}) for running in (0, 1)])
    npu.state.vector[:3], npu.state.vector[32:35] = [NAN, NAN, -INF], [NAN, -2, 5]
    npu.run()
    assert npu.state.vector[99:102].tolist() == [0, 2, INF]


# Scalars


def test_scalar_functions():
    noisy = {"dst": 100, "a": 20, "seed": 12, "step": 7, "position": 40, "count": 9}
    npu = fresh(5, [("F_LOG", {"dst": 60, "a": 20, "count": 9}), ("F_GUMBEL", noisy), ("F_FROM_INT", {"dst": 140, "a": 3, "count": 4})])
    npu.state.floats[20:29] = [0.0, -1.0, INF, NAN, 1.0, 0.5, 3.0, 1e-40, 1e30]
    npu.state.integers[3:7] = [0, -5, 2**31 - 1, 2**24 + 1]
    before = npu.state.floats[20:29].copy()
    npu.run()
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(npu.state.floats[60:69], np.log(before.astype(np.float64)), rtol=2**-23)
    expected = before + noise.gumbel_fp32(noise.position_bits(12, 7, np.arange(40, 49)))
    np.testing.assert_array_equal(npu.state.floats[100:109], expected)
    assert npu.state.floats[140:144].tolist() == [0.0, -5.0, 2.0**31, 2.0**24]


def test_less_than_marks_words():
    npu = fresh(6, [("F_LT", {"dst": 3, "a": 10, "b": 20, "count": 5})])
    npu.state.floats[10:15], npu.state.floats[20:25] = [1, 2, NAN, 1, -0.0], [2, 2, 2, NAN, 0]
    npu.run()
    assert npu.state.integers[3:8].tolist() == [1, 0, 0, 0, 0]


# Integers and masks


@pytest.mark.parametrize(("value", "expected"), [(7, 7), (-1, -1), (2**32 - 2, -2), (2**31, -(2**31)), (2**40 + 5, 5)])
def test_fill_takes_the_low_bits_of_a_register(value, expected):
    npu = fresh(7, [("I_FILL", {"dst": 9, "value": value, "count": 4})])
    before = npu.state.integers.copy()
    npu.run()
    same(npu.state.integers, scattered(before, np.full((1, 4), expected), 9, 0))


def test_a_bit_is_set_where_the_first_is_greater():
    npu = fresh(8, [("I_SET_BIT_GT", {"dst": 9, "a": 10, "b": 20, "bit": 3, "count": 5})])
    npu.state.integers[9:14] = [0, 0, 8, 1, 16]
    npu.state.floats[10:15], npu.state.floats[20:25] = [2, 2, 1, NAN, INF], [1, 2, 2, 0, 0]
    npu.run()
    assert npu.state.integers[9:14].tolist() == [8, 0, 8, 1, 24]


SCORES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, -INF, NAN]), min_size=1, max_size=40)


def mask(name: str, scores: list[float], eligible: list[int], in_place: bool, floats: list[float] | None = None, **operands) -> list[int]:
    dst, count = (20 if in_place else 80), len(scores)
    npu = fresh(9, [(name, {"dst": dst, "f": 5, "eligible": 20, "count": count, **operands})])
    npu.state.floats[5 : 5 + count] = scores
    if floats is not None:
        npu.state.floats[100 : 100 + count] = floats
    npu.state.integers[20 : 20 + count] = eligible
    npu.run()
    return npu.state.integers[dst : dst + count].tolist()


def ranking(scores: list[float], eligible: list[int]) -> list[int]:
    value = [-INF if np.isnan(score) else score for score in scores]
    return sorted((index for index in range(len(scores)) if eligible[index]), key=lambda index: (-value[index], index))


@quick
@given(SCORES, st.sampled_from([0.25, 0.5, 0.6, 1.0]), st.booleans(), seeds)
def test_a_threshold_takes_the_best_and_what_reaches_it(scores, value, in_place, seed):
    eligible = np.random.default_rng(seed).integers(0, 2, len(scores)).tolist()
    ranked = ranking(scores, eligible)
    chosen = [int(index in ranked[:1] or (index in ranked and scores[index] >= np.float32(value))) for index in range(len(scores))]
    assert mask("V_THRESHOLD_MASK", scores, eligible, in_place, value=float(np.float32(value))) == chosen


@quick
@given(SCORES, st.booleans(), seeds)
def test_bars_take_the_longest_prefix_that_clears_them(scores, in_place, seed):
    rng = np.random.default_rng(seed)
    eligible = rng.integers(0, 2, len(scores)).tolist()
    bars = rng.choice([-INF, 0.2, 0.3, 0.5, 0.75, 2.0], len(scores), p=[0.1, 0.3, 0.2, 0.2, 0.1, 0.1]).tolist()
    length = 0
    ranked = ranking(scores, eligible)
    while length < len(ranked):
        score = scores[ranked[length]]
        if length and not (-INF if np.isnan(score) else score) >= np.float32(bars[length]):
            break
        length += 1
    chosen = [int(index in ranked[:length]) for index in range(len(scores))]
    assert mask("V_BARS_MASK", scores, eligible, in_place, bars, bars=100) == chosen


# Time and accesses


@pytest.mark.parametrize(
    ("name", "operands", "cycles"),
    [
        ("V_DROP", {"rows": 7, "cols": 640, "dst_stride": 20}, Cycles(7, 4)),
        ("V_CUT", {"rows": 3, "cols": 65, "dst_stride": 4, "a_stride": 4}, Cycles(6, 4)),
        ("V_RED_SUM_GE", {"rows": 3, "cols": 65, "a_stride": 0, "b_stride": 4, "running": 0}, Cycles(6, 10)),
        ("V_COL_ABSMAX", {"rows": 3, "cols": 65, "a_stride": 4, "running": 0}, Cycles(6, 10)),
        ("V_XEXP", {"rows": 3, "cols": 65, "dst_stride": 4, "a_stride": 4}, Cycles(6, 8)),
        ("F_LOG", {"count": 32}, Cycles(128, 28)),
        ("F_LT", {"count": 32}, Cycles(32, 4)),
        ("I_FILL", {"count": 65}, Cycles(5, 4)),
        ("I_SET_BIT_GT", {"count": 32}, Cycles(32, 4)),
        ("V_BARS_MASK", {"count": 33}, Cycles(66, 4)),
        ("V_THRESHOLD_MASK", {"count": 33, "value": 0.5}, Cycles(66, 4)),
    ],
)
def test_hand_computed_cycles(name, operands, cycles):
    op = Op(name, operands)
    ready = {spec.name: operands.get(spec.name, 0) for spec in op.row.fields}
    assert cost_of(Op(name, ready), Machine.preset("small")) == cycles


@pytest.mark.parametrize(
    ("name", "operands", "expected"),
    [
        (
            "V_DROP",
            {"dst": 1, "index": 2, "base": 3, "rows": 5, "cols": 64, "dst_stride": 3},
            [("integer", 20, 1, 5, 5, False), ("vector", 10, 5, 64, 96, False), ("vector", 10, 5, 64, 96, True)],
        ),
        (
            "V_RED_SUM_GE",
            {"dst": 1, "a": 2, "b": 3, "key": 4, "bit": 5, "rows": 5, "cols": 64, "a_stride": 0, "b_stride": 3, "running": 1},
            [
                ("vector", 30, 5, 64, 96, False),
                ("integer", 40, 1, 5, 5, False),
                ("vector", 20, 5, 64, 0, False),
                ("accumulators", 0, 1, 5, 5, False),
                ("accumulators", 0, 1, 5, 5, True),
                ("float", 10, 1, 5, 5, True),
            ],
        ),
        (
            "V_COL_ABSMAX",
            {"dst": 1, "a": 2, "rows": 5, "cols": 64, "a_stride": 2, "running": 1},
            [("vector", 20, 5, 64, 64, False), ("vector", 10, 1, 64, 64, False), ("vector", 10, 1, 64, 64, True)],
        ),
        (
            "I_SET_BIT_GT",
            {"dst": 1, "a": 2, "b": 3, "bit": 4, "count": 6},
            [("float", 20, 1, 6, 6, False), ("float", 30, 1, 6, 6, False), ("integer", 10, 1, 6, 6, False), ("integer", 10, 1, 6, 6, True)],
        ),
        (
            "V_BARS_MASK",
            {"dst": 1, "f": 2, "eligible": 3, "bars": 4, "count": 6},
            [("float", 40, 1, 6, 6, False), ("float", 20, 1, 6, 6, False), ("integer", 30, 1, 6, 6, False), ("integer", 10, 1, 6, 6, True)],
        ),
        (
            "F_LT",
            {"dst": 1, "a": 2, "b": 3, "count": 6},
            [("float", 20, 1, 6, 6, False), ("float", 30, 1, 6, 6, False), ("integer", 10, 1, 6, 6, True)],
        ),
        (
            "L_MX",
            {"dst": 1, "src": 2, "scales": 3, "rows": 5, "cols": 40, "dst_stride": 2, "src_stride": 4, "format": 1},
            [("hbm", 20, 5, 64, 128, False), ("hbm", 30, 5, 2, 4, False), ("vector", 10, 5, 40, 64, True)],
        ),
    ],
)
def test_accesses(name, operands, expected):
    registers = [10 * number for number in range(32)]
    assert accesses(Op(name, operands), registers, SMALL) == [Access(*entry) for entry in expected]


def test_the_formats_that_are_stored_end_with_the_logits_if_they_are_mx():
    assert SMALL.formats.logits == "bf16"
    assert SMALL.formats.stored == ("mxint8", "mxint8")
    assert with_logits("mxfp4").formats.stored == ("mxint8", "mxint8", "mxfp4")
    without = SMALL.model_dump()
    del without["formats"]["logits"]
    assert Machine.model_validate(without) == SMALL
    with pytest.raises(ValueError, match="unknown MX format 'fp16'"):
        Machine.model_validate(SMALL.model_dump() | {"formats": SMALL.formats.model_dump() | {"logits": "fp16"}})

"""Routing to experts: what the instructions leave, against plain Python; their faults and accesses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.compiler.kernels.experts import most_tiles
from unmask.isa.encoding import Op
from unmask.machine.access import Access, accesses
from unmask.machine.config import Machine
from unmask.machine.state import MachineFault
from unmask.numerics import bf16

from .test_functional import fresh

SMALL = Machine.preset("small")
INF, NAN = np.float32(np.inf), np.float32(np.nan)
quick = settings(max_examples=40, deadline=None, derandomize=True, database=None)
A, B, DST = 0, 4096, 8192


def put(npu, at: int, values: np.ndarray, stride: int) -> None:
    for row, line in enumerate(values):
        npu.state.vector[at + row * stride * 32 : at + row * stride * 32 + len(line)] = line


def get(npu, at: int, rows: int, cols: int, stride: int) -> np.ndarray:
    return np.stack([npu.state.vector[at + row * stride * 32 : at + row * stride * 32 + cols] for row in range(rows)])


scores = st.sampled_from([-INF, np.float32(-2), np.float32(-0.0), np.float32(0), np.float32(1), np.float32(1.5), INF, NAN])


@quick
@given(st.data())
def test_the_best_of_every_row_are_kept_ties_to_the_lowest_column(data):
    rows, cols, k = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 40)), data.draw(st.integers(1, 42))
    ranked = np.array(data.draw(st.lists(scores, min_size=rows * cols, max_size=rows * cols))).reshape(rows, cols)
    shape = {"dst": DST, "a": A, "b": B, "k": k, "rows": rows, "cols": cols, "dst_stride": 2, "a_stride": 2, "b_stride": 2}
    npu = fresh(1, [("V_TOPK_ROW", shape)])
    put(npu, B, ranked, 2)
    values = get(npu, A, rows, cols, 2)
    npu.run()
    kept = get(npu, DST, rows, cols, 2)
    for row in range(rows):
        order = sorted(
            range(cols), key=lambda column: (-ranked[row, column] if ranked[row, column] == ranked[row, column] else INF, column)
        )
        best = set(order[:k])
        assert [kept[row, column] == (values[row, column] if column in best else 0) for column in range(cols)] == [True] * cols


@st.composite
def routings(draw):
    """Weights [rows, experts], at most `chosen` of a row not 0."""
    rows, experts = draw(st.integers(1, 24)), draw(st.integers(1, 9))
    chosen = draw(st.integers(1, experts))
    weights = np.zeros((rows, experts), np.float32)
    favourites = draw(st.permutations(range(experts)))
    for row in range(rows):
        taken = favourites[:chosen] if draw(st.booleans()) else draw(st.permutations(range(experts)))[: draw(st.integers(0, chosen))]
        weights[row, list(taken)] = draw(st.sampled_from([0.5, 0.25, NAN]))
    return weights, chosen


def move(weights: np.ndarray, height: int, cols: int, expert: int, skip: int) -> dict[str, int]:
    return {"b": B, "expert": expert, "skip": skip, "rows": height, "span": len(weights), "cols": cols, "stride": 2, "b_stride": 1}


def listed(weights: np.ndarray, height: int, tiles: int) -> list[tuple[int, int]]:
    rows, experts = weights.shape
    shape = {"dst": 7, "b": B, "span": rows, "cols": experts, "b_stride": 1, "rows": height, "tiles": tiles}
    npu = fresh(2, [("V_EXPERT_TILES", shape)])
    put(npu, B, weights, 1)
    npu.run()
    words = npu.state.integers[7 : 7 + 2 * tiles].reshape(-1, 2)
    return [(int(expert), int(skip)) for expert, skip in words]


@quick
@given(routings(), st.integers(1, 24))
def test_the_most_tiles_are_always_enough_and_hold_every_row_of_every_expert_once(routing, height):
    weights, chosen = routing
    rows, experts = weights.shape
    tiles = listed(weights, height, most_tiles(rows, height, experts, chosen))
    for expert in range(experts):
        count = int((weights[:, expert] != 0).sum())
        skips = [skip for found, skip in tiles if found == expert and skip < count]
        assert skips == list(range(0, count, height))
    assert [expert for expert, _ in tiles] == sorted(expert for expert, _ in tiles)
    assert {expert for expert, _ in tiles} == set(range(experts))
    if height >= rows:
        assert tiles == [(expert, 0) for expert in range(experts)]


def test_some_routing_needs_the_most_tiles():
    weights = np.zeros((17, 8), np.float32)
    weights[:, :2] = 1
    assert most_tiles(17, 4, 8, 2) == 8 + 2 * 4
    assert listed(weights, 4, 16)[-1] == (7, 0)
    with pytest.raises(MachineFault, match="V_EXPERT_TILES: the experts need 16 tiles; the list has 15"):
        listed(weights, 4, 15)


@quick
@given(routings(), st.integers(1, 24), st.integers(1, 60))
def test_rows_gathered_and_scattered_back_are_added_once_per_expert_in_ascending_order(routing, height, cols):
    weights, chosen = routing
    rows, experts = weights.shape
    start = {"rows": rows, "cols": cols, "dst_stride": 2, "value": 0.0}
    ops: list = [("V_FILL", {"dst": DST, **start})]
    for expert, skip in listed(weights, height, most_tiles(rows, height, experts, chosen)):
        shape = move(weights, height, cols, expert, skip)
        ops += [("V_GATHER_ROWS", {"dst": 12288, "a": A, **shape}), ("V_SCATTER_ADD", {"dst": DST, "a": 12288, **shape})]
    npu = fresh(3, ops)
    put(npu, B, weights, 1)
    x = get(npu, A, rows, cols, 2)
    npu.run()
    expected = np.zeros_like(x)
    for expert in range(experts):
        for row in np.flatnonzero(weights[:, expert] != 0):
            expected[row] = bf16.add(expected[row], bf16.multiply(x[row], weights[row, expert]))
    np.testing.assert_array_equal(get(npu, DST, rows, cols, 2), expected)


def test_a_tile_is_filled_with_zeros_behind_its_last_row():
    weights = np.array([[0, 1], [0, 0], [0, 1]], np.float32)
    npu = fresh(4, [("V_GATHER_ROWS", {"dst": DST, "a": A, **move(weights, 4, 40, 1, 1)})])
    put(npu, B, weights, 1)
    x = get(npu, A, 3, 40, 2)
    npu.run()
    tile = get(npu, DST, 4, 40, 2)
    np.testing.assert_array_equal(tile[0], x[2])
    assert not tile[1:].any()


@pytest.mark.parametrize(("operand", "value"), [("skip", -1), ("expert", -1), ("expert", 2**40)])
@pytest.mark.parametrize("name", ["V_GATHER_ROWS", "V_SCATTER_ADD"])
def test_an_expert_or_a_row_that_there_is_not_is_a_fault(name, operand, value):
    shape = move(np.ones((3, 2)), 2, 40, 1, 0)
    npu = fresh(5, [(name, {"dst": DST, "a": A, **shape, operand: value})])
    with pytest.raises(MachineFault, match=name):
        npu.run()


def test_accesses_cover_any_choice_of_rows():
    numbers = {name: number for number, name in enumerate(("dst", "a", "b", "expert", "skip"))}
    sizes = {"rows": 4, "span": 9, "cols": 40, "stride": 2, "b_stride": 1}
    found = accesses(Op("V_SCATTER_ADD", {**numbers, **sizes}), [8192, 0, 4096, 3, 4, *([0] * 27)], SMALL)
    assert found == [
        Access("vector", 4099, 9, 1, 32, False),
        Access("vector", 0, 4, 40, 64, False),
        Access("vector", 8192, 9, 40, 64, False),
        Access("vector", 8192, 9, 40, 64, True),
    ]

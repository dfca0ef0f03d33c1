"""The analytic reading of a program: exact where nothing depends on addresses, close to the cycle reading elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask import UnmaskError
from unmask.isa.encoding import Op, encode
from unmask.isa.program import Program
from unmask.isa.table import Engine
from unmask.machine.analytic import analytic_time
from unmask.machine.analytic_listing import list_skeleton, skeleton_of
from unmask.machine.config import Machine
from unmask.machine.cycle import time_program

SMALL, HBM = Machine.preset("small"), Machine.preset("published-512")
HALT = Op("HALT")
FREE, FULL = 10, 11


def program(*ops: Op) -> Program:
    listed = [*ops, HALT]
    return Program(encode(listed), ["all"] * len(listed), 1 << 30, {}, {}, SMALL.model_dump())


def set_register(number: int, value: int) -> Op:
    return Op("S_LI", {"rd": number, "value": value})


def load(rows: int, cols: int, stride: int, wait: tuple[int, ...] = (), signal: tuple[int, ...] = ()) -> Op:
    operands = {"dst": 0, "src": 1, "rows": rows, "cols": cols, "dst_stride": -(-cols // 32), "src_stride": stride}
    return Op("L_VEC", operands, wait, signal)


def add(rows: int, cols: int, wait: tuple[int, ...] = (), signal: tuple[int, ...] = ()) -> Op:
    stride = -(-cols // 32)
    operands = {"dst": 0, "a": 0, "b": 0, "rows": rows, "cols": cols, "dst_stride": stride, "a_stride": stride, "b_stride": stride}
    return Op("V_ADD", operands, wait, signal)


def streaming(loaded: Callable[[], Op], worked: Callable[[], Op], inner: int, outer: int) -> Program:
    """Tiles through a ring of two, in a loop of loops."""
    return program(
        Op("SEM_SET", {"semaphore": FREE, "value": 2}),
        Op("SEM_SET", {"semaphore": FULL, "value": 0}),
        set_register(0, 0),
        set_register(1, 0),
        Op("LOOP", {"count": outer}),
        Op("LOOP", {"count": inner}),
        loaded(),
        worked(),
        Op("S_ADDI", {"rd": 1, "rs": 1, "value": 65536}),
        Op("END"),
        Op("END"),
    )


@settings(max_examples=30, deadline=None)  # type: ignore[misc]
@given(st.integers(1, 12), st.integers(1, 400), st.integers(1, 12), st.integers(1, 400), st.integers(1, 40), st.integers(1, 20))  # type: ignore[misc]
def test_loops_of_an_ideal_memory_are_timed_exactly(rows: int, cols: int, work_rows: int, work_cols: int, inner: int, outer: int) -> None:
    """Addresses are multiples of a beat, so that nothing depends on them; the iterations left out are as long as those that ran."""
    p = streaming(lambda: load(rows, cols, 1024, (FREE,), (FULL,)), lambda: add(work_rows, work_cols, (FULL,), (FREE,)), inner, outer)
    exact, found = time_program(p, SMALL), analytic_time(p, SMALL)
    assert (found.cycles, found.busy, found.phases, found.instructions) == (exact.cycles, exact.busy, exact.phases, exact.instructions)
    assert found.hbm_bytes == exact.hbm_bytes


def test_a_million_iterations_take_no_longer_to_time_than_a_hundred() -> None:
    p = streaming(lambda: load(4, 256, 1024, (FREE,), (FULL,)), lambda: add(4, 256, (FULL,), (FREE,)), 10**6, 10**6)
    short = streaming(lambda: load(4, 256, 1024, (FREE,), (FULL,)), lambda: add(4, 256, (FULL,), (FREE,)), 10**3, 10**3)
    assert analytic_time(p, SMALL).cycles == pytest.approx(10**6 * analytic_time(short, SMALL).cycles, rel=0.01)


@pytest.mark.parametrize(("rows", "cols", "stride"), [(64, 1024, 2048), (64, 1024, 8192), (2, 64, 4096), (512, 128, 256)])
@pytest.mark.parametrize("machine", ["published-512", "a6000-class", "h100-class", "edge"])
def test_a_stream_from_dram_takes_about_as_long(machine: str, rows: int, cols: int, stride: int) -> None:
    target = Machine.preset(machine)
    p = streaming(lambda: load(rows, cols, stride, (FREE,), (FULL,)), lambda: add(rows, cols, (FULL,), (FREE,)), 50, 4)
    assert analytic_time(p, target).cycles == pytest.approx(time_program(p, target).cycles, rel=0.1)


def test_bytes_are_those_of_whole_bursts() -> None:
    p = program(set_register(0, 0), set_register(1, 0), load(3, 20, 4096))
    assert analytic_time(p, HBM).hbm_bytes == time_program(p, HBM).hbm_bytes == {"load": 3 * 64, "store": 0}


def test_a_listing_counts_what_runs() -> None:
    p = streaming(lambda: load(4, 256, 1024, (FREE,), (FULL,)), lambda: add(4, 250, (FULL,), (FREE,)), 7, 5)
    skeleton = skeleton_of(p.ops, p.phases, HBM)
    listing = list_skeleton(skeleton, HBM)
    assert skeleton.repeats.tolist() == [1, 1, 1, 1, 1, 5, 35, 35, 35, 35, 5, 1]
    assert int(skeleton.repeats @ listing.asked) == 35 * 4 * 512
    assert int(skeleton.operations.sum()) == 35 * 4 * 250
    assert int(skeleton.counts.sum()) == int(skeleton.repeats.sum())
    assert np.count_nonzero(listing.busy[skeleton.engines == Engine.LOAD]) == 0


@pytest.mark.parametrize(
    ("ops", "match"),
    [
        ([add(1, 32, wait=(5,))], "instruction 0: waits for semaphore 5"),
        ([add(1, 0)], "cols is 0"),
        ([add(1, 32, signal=(5,)), load(1, 32, 64, signal=(5,))], "semaphore 5 is signalled by two engines"),
        ([Op("LOOP", {"count": 2})] * 9 + [Op("END")] * 9, "9 nested loops"),
    ],
)
def test_mistakes_are_named_as_the_cycle_reading_names_them(ops: list[Op], match: str) -> None:
    with pytest.raises(UnmaskError, match=match):
        analytic_time(program(*ops), SMALL)

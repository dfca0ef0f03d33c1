"""Random programs are legal, the same for a seed, and between them exercise everything."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.isa.table import BY_NAME
from unmask.machine.config import Machine
from unmask.machine.hazards import find_races
from unmask.rtl.lockstep.coverage import Coverage, universe
from unmask.rtl.lockstep.faulty import EVERY, fault_kinds, faulty
from unmask.rtl.lockstep.generator import Case, generate
from unmask.rtl.lockstep.machines import bench_machine
from unmask.rtl.lockstep.names import instructions_of
from unmask.rtl.lockstep.reference import Expected, expect

MACHINES = {vlen: bench_machine(Machine.preset("nano"), vlen) for vlen in (8, 32)}
NAMES = instructions_of("vector")


@cache
def some(count: int, vlen: int = 8, seed: int = 7) -> tuple[Sequence[Case], Sequence[Expected], Coverage]:
    """Programs, what they should do, and what they cover."""
    machine = MACHINES[vlen]
    coverage = Coverage(machine)
    cases = [generate(seed, index, machine, NAMES) for index in range(count)]
    expected = [expect(case.program, machine, case.parameters, coverage.see) for case in cases]
    for case, e in zip(cases, expected, strict=True):
        coverage.pairs(case.pairs, case.program.ops)
        coverage.starts(e.trace.engine, e.trace.start, e.trace.ready)
    return cases, expected, coverage


@settings(max_examples=20)
@given(seed=st.integers(0, 2**40), index=st.integers(0, 10**6), vlen=st.sampled_from([8, 32]))
def test_every_program_is_legal_and_runs_in_both_readings(seed: int, index: int, vlen: int) -> None:
    machine = MACHINES[vlen]
    case = generate(seed, index, machine, NAMES)
    assert find_races(case.program, machine, case.parameters) == []
    assert expect(case.program, machine, case.parameters).cycles > 0


def test_a_seed_gives_the_same_programs() -> None:
    first, second = (generate(3, 5, MACHINES[8], NAMES).program for _ in range(2))
    assert np.array_equal(first.words, second.words)
    assert np.array_equal(first.data["hbm"], second.data["hbm"])
    assert not np.array_equal(first.words[:50], generate(3, 6, MACHINES[8], NAMES).program.words[:50])


def test_only_the_instructions_of_the_unit_appear() -> None:
    cases, _, _ = some(20)
    assert {op.name for case in cases for op in case.program.ops} <= NAMES
    few = frozenset({"L_INT", "L_VEC", "ST_VEC", "ST_INT"})
    for index in range(5):
        engines = {op.name for op in generate(1, index, MACHINES[8], few).program.ops if BY_NAME[op.name].engine}
        assert engines <= few


@pytest.mark.slow
@pytest.mark.parametrize("vlen", [8, 32])
def test_a_few_hundred_programs_cover_everything(vlen: int) -> None:
    _, _, coverage = some(400, vlen)
    assert [point for point in universe(NAMES, MACHINES[vlen]) if not coverage.counts[point]] == []


def test_a_few_programs_have_every_instruction() -> None:
    _, _, coverage = some(60)
    assert sorted(name for name in NAMES if not coverage.counts[name]) == []


def test_faulty_programs_have_every_kind_of_fault_and_name_its_instruction() -> None:
    kinds = fault_kinds(NAMES)
    cases = [faulty(2, EVERY * index, MACHINES[8], NAMES) for index in range(len(kinds))]
    assert {case.what.split(":")[0] for case in cases} == set(kinds)
    for case in cases:
        assert 0 <= case.pc < len(case.job.words) - 1

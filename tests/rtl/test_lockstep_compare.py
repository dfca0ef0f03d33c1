"""A difference of one bit or one cycle is found, named, and shrunk to the instruction that makes it."""

from collections.abc import Sequence

import numpy as np
import pytest
from tests.rtl.fake import perfect_log
from tests.rtl.test_lockstep_generator import MACHINES, NAMES, some

from unmask.errors import UnmaskError
from unmask.isa.table import Engine
from unmask.rtl.lockstep.bench import RETIRE, START
from unmask.rtl.lockstep.compare import Comparison, compare
from unmask.rtl.lockstep.generator import Case, generate
from unmask.rtl.lockstep.reference import Space, expect
from unmask.rtl.lockstep.shrink import shrink


def changed(kind: int, field: str, by: int, programs: int = 6, which: float = 0.5) -> tuple[Comparison, int]:
    """What is found when one record of a perfect log is another; and its program."""
    _, expected, _ = some(programs)
    log, outcomes = perfect_log(expected)
    places = np.flatnonzero((log["kind"] == kind) & (log["engine"] != Engine.SEQUENCER))
    place = places[int(len(places) * which)]
    log[field][place] += by
    return compare(expected, log, outcomes, [True] * programs), int(log["program"][place])


def test_hardware_that_does_what_it_should_has_no_mismatch() -> None:
    _, expected, _ = some(20)
    log, outcomes = perfect_log(expected)
    found = compare(expected, log, outcomes, [True] * 20)
    assert (found.value_mismatches, found.cycle_mismatches, found.details) == (0, 0, [])
    assert found.instructions == sum(len(e.trace.pc) for e in expected)


@pytest.mark.parametrize("space", [Space.VECTOR, Space.FLOAT, Space.INTEGER, Space.HBM])
def test_a_wrong_bit_is_found_in_every_memory(space: Space) -> None:
    found, program = changed(space, "value", 1)
    assert found.value_mismatches >= 1
    assert found.failing == {program}
    assert any(detail.what == "value" and detail.where.startswith(space.name.lower()) for detail in found.details)


def test_a_wrong_register_is_found() -> None:
    _, expected, _ = some(6)
    log, outcomes = perfect_log(expected)
    log["value"][np.flatnonzero(log["kind"] == Space.REGISTER)[40]] ^= np.uint64(1 << 47)
    assert compare(expected, log, outcomes, [True] * 6).value_mismatches == 1


@pytest.mark.parametrize("space", [Space.VECTOR, Space.FLOAT, Space.INTEGER])
def test_a_write_to_another_place_is_found(space: Space) -> None:
    found, program = changed(space, "address", 1 << 20)
    assert {detail.what for detail in found.details} == {"value", "extra write"}
    assert found.failing == {program}


def test_a_write_after_its_instructions_end_is_found() -> None:
    _, expected, _ = some(6)
    log, outcomes = perfect_log(expected)
    places = np.flatnonzero((log["kind"] == Space.VECTOR) & (log["engine"] == Engine.VECTOR))
    log["cycle"][places[len(places) // 2]] += 1
    assert compare(expected, log, outcomes, [True] * 6).value_mismatches >= 1


@pytest.mark.parametrize(("kind", "what"), [(START, "start"), (RETIRE, "end")])
def test_a_wrong_cycle_is_found_unless_the_memory_stalls(kind: int, what: str) -> None:
    found, program = changed(kind, "cycle", 1)
    assert found.cycle_mismatches >= 1
    assert found.failing == {program}
    assert found.details[0].what in (what, "value", "extra write")


def test_a_missing_instruction_is_found() -> None:
    _, expected, _ = some(6)
    log, outcomes = perfect_log(expected)
    places = np.flatnonzero(log["kind"] == START)
    found = compare(expected, np.delete(log, places[-2]), outcomes, [True] * 6)
    assert found.cycle_mismatches >= 1
    assert any(detail.what == "missing" for detail in found.details)


def test_a_failing_program_is_shrunk_to_the_instruction_that_fails() -> None:
    machine = MACHINES[8]

    def fails(cases: Sequence[Case]) -> list[bool]:
        """Hardware whose V_MUL_I has the last bit of its first result wrong."""
        verdicts = []
        for case in cases:
            try:
                expected = expect(case.program, machine, case.parameters)
            except UnmaskError:
                verdicts.append(False)
                continue
            log, outcomes = perfect_log([expected])
            ops = case.program.ops
            wrong = [i for i, pc in enumerate(expected.trace.pc) if ops[pc].name == "V_MUL_I"]
            if wrong:
                mine = (log["kind"] == Space.VECTOR) & (log["engine"] == Engine.VECTOR)
                place = np.flatnonzero(mine & (log["cycle"] == expected.trace.end[wrong[0]] - 1))[0]
                log["value"][place] ^= np.uint64(1)
            verdicts.append(bool(compare([expected], log, outcomes, [True]).failing))
        return verdicts

    case = next(c for c in (generate(11, i, machine, NAMES) for i in range(40)) if any(op.name == "V_MUL_I" for op in c.program.ops))
    small = shrink(case, machine, fails)
    assert fails([small]) == [True]
    assert [op.name for op in small.program.ops if op.name.startswith(("V_", "L_", "F_", "I_", "ST_"))] == ["V_MUL_I"]
    assert len(small.program.ops) <= 4


def test_a_load_whose_end_is_put_off_keeps_its_words() -> None:
    """Of two loads to one place the second's words may be there before the first has ended."""
    _, expected, _ = some(6)
    log, outcomes = perfect_log(expected)
    log["cycle"][(log["kind"] == RETIRE) & (log["engine"] == Engine.LOAD)] += 40
    found = compare(expected, log, outcomes, [False] * 6)
    assert (found.value_mismatches, found.details) == (0, [])

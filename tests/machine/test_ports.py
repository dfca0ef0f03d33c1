"""On-chip memories with fewer ports than engines: who waits, for how long, and that nobody waits for ever.

`test_cycle.py` holds the times of random programs against a machine stepped cycle by cycle, `test_skip.py` skipped loops against walked
ones.
"""

import pytest
from hypothesis import given, settings

from unmask.errors import UnmaskError
from unmask.isa.encoding import Op
from unmask.isa.table import INSTRUCTIONS, Engine, Kind
from unmask.machine.access import accesses
from unmask.machine.analytic import analytic_time
from unmask.machine.config import PORT_USERS, Machine, Sram
from unmask.machine.cycle import time_program
from unmask.machine.memory import Dram
from unmask.machine.ports import require_all_ports

from .test_cycle import EXP, LOAD, SMALL, TIGHT, WORDS, program, programs, shallow

MM = "M_MM dst=r0 a=r0 b=r0 m=16 n=32 k=64 dst_stride=1 a_stride=2 transposed=0 format=0"
TILE = "L_MAT dst=r0 src=r1 scales=r2 rows=3 cols=64 src_stride=9 format=0"
ONE = {"vector_ports": 1, "matrix_ports": 1, "integer_ports": 1}


def times(text: str, ports: dict[str, int]) -> tuple[list[int], list[int]]:
    """When each instruction starts and ends."""
    trace = time_program(program(text), shallow(16, ports), trace=True).trace
    assert trace is not None
    return trace.start.tolist(), trace.end.tolist()


def starts(text: str, ports: dict[str, int]) -> list[int]:
    return times(text, ports)[0]


def test_the_engines_that_use_a_memory_are_those_whose_instructions_touch_it():
    found: dict[str, set[Engine]] = {}
    for row in INSTRUCTIONS:
        operands = {field.name: 0 if field.name in ("format", "running") or field.kind is Kind.REGISTER else 1 for field in row.fields}
        for access in accesses(Op(row.name, operands), [0] * 32, SMALL):
            found.setdefault(access.space, set()).add(row.engine)
    # The sequencer reads the integer SRAM by a port of its own; a single engine never waits.
    assert found.pop("integer") - {Engine.SEQUENCER} == set(PORT_USERS["integer"])
    assert found.pop("float") == found.pop("accumulators") == {Engine.VECTOR}
    found.pop("hbm")
    assert found == {memory: set(PORT_USERS[memory]) for memory in ("vector", "matrix")}


def test_an_engine_waits_for_the_end_of_another():
    load, exp = starts(f"{LOAD}\n{EXP}\nHALT", {})[:2]
    assert exp == load + 1
    # 8 cycles of occupancy and 100 of latency.
    assert starts(f"{LOAD}\n{EXP}\nHALT", {"vector_ports": 1})[:2] == [load, load + 108]


def test_a_pipelined_engine_keeps_its_port_while_anything_is_under_way():
    # The second load is under way when the first ends; the third instruction comes after both.
    assert starts(f"{LOAD}\n{LOAD}\n{EXP}\nHALT", {"vector_ports": 1})[:3] == [1, 9, 9 + 108]
    # One that touches another memory does not prolong it.
    assert starts(f"{LOAD}\nL_INT dst=r0 src=r0 count=3\n{EXP}\nHALT", {"vector_ports": 1})[:3] == [1, 9, 1 + 108]


def test_an_instruction_waits_for_all_of_its_memories():
    start, end = times(f"{TILE}\n{EXP}\n{MM}\nHALT", {"vector_ports": 1, "matrix_ports": 1})
    assert start[:2] == [1, 2]
    assert end[0] > end[1]
    assert start[2] == end[0]
    assert starts(f"{TILE}\n{EXP}\n{MM}\nHALT", {"vector_ports": 1})[2] == end[1]


def test_of_several_the_first_engine_starts():
    # Both wait for the store: the load, though it comes later in the program, goes first.
    store = "ST_VEC src=r0 dst=r2 rows=2 cols=300 src_stride=10 dst_stride=1024"
    begun, vector, load = starts(f"{store}\n{EXP}\n{LOAD}\nHALT", {"vector_ports": 1})[:3]
    assert load > begun + 100
    assert vector == load + 108


@settings(max_examples=100, deadline=None)
@given(programs())
def test_nobody_waits_for_ever(text):
    machine = shallow(2, ONE).model_copy(update={"hbm": Dram.model_validate(TIGHT | {"refresh": "bank"})})
    assert time_program(program(text), machine, parameters=WORDS).cycles > 0


def test_scarce_ports_are_refused_where_they_are_not_known():
    machine = shallow(2, {"matrix_ports": 1})
    with pytest.raises(UnmaskError, match=r"sram\.matrix_ports 1: expected 2 \(load, matrix\): nobody knows"):
        require_all_ports(machine, "nobody knows")
    with pytest.raises(UnmaskError, match=r"sram\.matrix_ports"):
        analytic_time(program(f"{EXP}\nHALT"), machine)
    require_all_ports(shallow(2), "they are all there")


@pytest.mark.parametrize("field", ["vector_ports", "matrix_ports", "integer_ports"])
def test_no_memory_has_more_ports_than_engines(field):
    for value in (0, 5):
        with pytest.raises(ValueError, match=field):
            Sram.model_validate(SMALL.sram.model_dump() | {field: value})


@pytest.mark.parametrize("value", [0, 3, 2048])
def test_banks_are_a_power_of_two(value):
    with pytest.raises(ValueError, match="matrix_banks"):
        Sram.model_validate(SMALL.sram.model_dump() | {"matrix_banks": value})


@pytest.mark.parametrize("name", ["small", "published-2048", "a6000-class", "h100-class", "edge"])
def test_presets_have_all_ports(name):
    assert not Machine.preset(name).sram.scarce_ports

"""Races are found where a semaphore is missing, and only there."""

import time

import pytest

from unmask.errors import UnmaskError
from unmask.isa.encoding import Op, assemble
from unmask.isa.program import Program
from unmask.isa.table import INSTRUCTIONS, Engine, Kind
from unmask.machine.access import _RULES, Access, accesses
from unmask.machine.config import Machine
from unmask.machine.hazards import find_races

SMALL = Machine.preset("small")
TILE = "rows=4 cols=64"


def program(text: str) -> Program:
    words = assemble(text)
    return Program(words, ["all"] * len(words), 0, {}, {}, {})


def races(text: str, parameters: dict[int, int] | None = None) -> list[tuple[int, int, str, int, str]]:
    return [tuple(race) for race in find_races(program(text), SMALL, parameters)]


def registers(**values: int) -> list[int]:
    return [values.get(f"r{number}", 0) for number in range(32)]


def ring(credits: int, load_wait: str = "wait=1", exp_wait: str = "wait=2") -> str:
    """Tiles loaded into two buffers by turns; exp reads them and hands the buffer back."""
    return f"""
SEM_SET semaphore=1 value={credits}
S_LI rd=r1 value=0
S_LI rd=r2 value=0
S_LI rd=r3 value=512
LOOP count=20
  L_VEC dst=r1 src=r2 {TILE} dst_stride=2 src_stride=128 {load_wait} signal=2
  V_EXP dst=r3 a=r1 {TILE} dst_stride=2 a_stride=2 {exp_wait} signal=1
  S_XORI rd=r1 rs=r1 value=256
  S_ADDI rd=r2 rs=r2 value=512
END
HALT
"""


def test_ring_of_two_buffers_with_two_credits_is_free_of_races():
    assert races(ring(2)) == []


def test_ring_with_one_credit_too_many_races():
    # The load of one tile may start while exp reads what was there two tiles before.
    assert races(ring(3)) == [(6, 5, "vector", 0, "write after read")]


def test_missing_wait_is_a_read_after_write():
    assert (5, 6, "vector", 0, "read after write") in races(ring(2, exp_wait=""))


def test_missing_credit_is_a_write_after_read():
    assert (6, 5, "vector", 0, "write after read") in races(ring(2, load_wait=""))


def test_a_drained_engine_orders_its_own_accesses():
    line = f"V_EXP dst=r0 a=r0 {TILE} dst_stride=2 a_stride=2"
    assert races(f"{line}\n{line}\nHALT") == []


INT_TO_GATHER = """
S_LI rd=r1 value=4096
L_INT dst=r0 src=r0 count=4 {}
L_GATHER dst=r1 table=r1 ids=r0 rows=4 cols=64 dst_stride=2 table_stride=128 limit=16 {}
HALT
"""


def test_a_pipelined_engine_may_read_before_its_earlier_write():
    assert races(INT_TO_GATHER.format("", "")) == [(1, 2, "integer", 0, "read after write")]
    assert races(INT_TO_GATHER.format("signal=3", "wait=3")) == []


def test_a_pipelined_engine_writes_in_order():
    assert races("L_INT dst=r0 src=r0 count=4\nL_INT dst=r0 src=r0 count=4\nHALT") == []


def test_a_product_of_what_an_earlier_one_makes_waits_for_it():
    line = "M_MM dst=r{} a=r{} b=r0 m=2 n=32 k=32 dst_stride=1 a_stride=1 transposed=0 format=0"
    text = f"S_LI rd=r1 value=256\nS_LI rd=r2 value=512\n{line.format(1, 0)} {{}}\n{line.format(2, 1)} {{}}\nHALT"
    assert races(text.format("", "")) == [(2, 3, "vector", 256, "read after write")]
    assert races(text.format("signal=3", "wait=3")) == []


def test_a_product_may_overwrite_what_earlier_ones_read_and_wrote_but_not_what_it_reads():
    line = "M_MM dst=r{} a=r{} b=r0 m=2 n=32 k=32 dst_stride=1 a_stride=1 transposed=0 format=0"
    text = f"S_LI rd=r1 value=256\n{line.format(1, 0)}\n{line.format(1, 0)}\n"
    assert races(f"{text}HALT") == []
    assert races(f"{text}S_LI rd=r2 value=512\n{line.format(0, 2)}\nHALT") == []
    assert races(f"{text}{line.format(0, 0)}\nHALT") == [(3, 3, "vector", 0, "write after read")]


def test_a_token_vouches_for_everything_before_it():
    # The vector engine waits only for the second load, and the store only for the vector engine; both imply the first load.
    text = f"""
S_LI rd=r1 value=256
L_VEC dst=r0 src=r0 {TILE} dst_stride=2 src_stride=128
L_VEC dst=r1 src=r0 {TILE} dst_stride=2 src_stride=128 signal=1
V_EXP dst=r1 a=r1 {TILE} dst_stride=2 a_stride=2 wait=1 signal=2
S_LI rd=r2 value=8192
ST_VEC src=r0 dst=r2 {TILE} src_stride=2 dst_stride=128 wait=2
HALT
"""
    assert races(text) == []


def test_the_sequencer_orders_what_it_dispatches_later():
    load = f"L_VEC dst=r0 src=r0 {TILE} dst_stride=2 src_stride=128 signal=1"
    exp = f"V_EXP dst=r0 a=r0 {TILE} dst_stride=2 a_stride=2"
    assert races(f"{load}\nSYNC engine=0 wait=1\n{exp}\nHALT") == []
    assert races(f"{load}\nSYNC engine=2 wait=1\n{exp}\nHALT") != []


def test_a_scalar_load_reads_the_integer_memory():
    text = "S_LI rd=r1 value=5\nL_INT dst=r0 src=r0 count=8 signal=1\n{}S_LD rd=r2 a=r1\nHALT"
    assert races(text.format(""), {5: 7}) == [(1, 2, "integer", 5, "read after write")]
    assert races(text.format("SYNC engine=0 wait=1\n"), {5: 7}) == []


def test_a_scalar_load_gives_addresses():
    # A store of what the load brought, at the address that the parameter names, one element beyond the loaded tile or inside it.
    text = (
        f"S_LI rd=r1 value=5\nS_LD rd=r2 a=r1\nL_VEC dst=r0 src=r0 {TILE} dst_stride=2 src_stride=128\n"
        "S_LI rd=r3 value=8192\nST_VEC src=r2 dst=r3 rows=1 cols=8 src_stride=1 dst_stride=16\nHALT"
    )
    assert races(text, {5: 256}) == []
    assert races(text, {5: 255}) == [(2, 4, "vector", 255, "read after write")]
    with pytest.raises(UnmaskError, match="instruction 1: S_LD reads integer SRAM word 5"):
        races(text)


def test_interleaved_tiles_do_not_touch():
    # Left and right halves of the same rows.
    text = """
S_LI rd=r1 value={}
L_VEC dst=r0 src=r0 rows=4 cols=32 dst_stride=2 src_stride=64
V_FILL dst=r1 rows=4 cols=32 dst_stride=2 value=0.0
HALT
"""
    assert races(text.format(32)) == []
    assert races(text.format(31)) == [(1, 2, "vector", 31, "write after write")]


def test_an_operand_may_be_replaced_element_by_element_only():
    add = f"S_LI rd=r1 value={{}}\nV_ADD dst=r0 a=r1 b=r0 {TILE} dst_stride=2 a_stride=2 b_stride=2\nHALT"
    assert races(add.format(0)) == []
    assert races(add.format(64)) == [(1, 1, "vector", 64, "write after read")]
    matmul = "M_MM dst=r0 a=r0 b=r0 m=16 n=64 k=64 dst_stride=2 a_stride=2 transposed=0 format=0\nHALT"
    assert races(matmul) == [(0, 0, "vector", 0, "write after read")]


def test_hbm_is_tracked_where_it_is_written():
    text = f"""
S_LI rd=r1 value=1000000000
S_LI rd=r2 value={{}}
S_LI rd=r4 value=512
V_FILL dst=r0 {TILE} dst_stride=2 value=1.0 signal=1
ST_VEC src=r0 dst=r1 {TILE} src_stride=2 dst_stride=128 wait=1
L_VEC dst=r4 src=r2 {TILE} dst_stride=2 src_stride=128
HALT
"""
    assert races(text.format(0)) == []
    assert races(text.format(1000000512)) == []
    assert races(text.format(1000000384)) == [(4, 5, "hbm", 1000000384, "read after write")]


def test_a_semaphore_set_before_its_last_wait_is_reported():
    text = "SYNC engine=1 signal=3\nSYNC engine=4 wait=3 {}\n{}SEM_SET semaphore=3 value=1\nHALT"
    assert races(text.format("", "")) == [(1, 2, "semaphore", 3, "set after wait")]
    assert races(text.format("signal=4", "SYNC engine=0 wait=4\n")) == []


def test_deadlock_is_an_error():
    with pytest.raises(UnmaskError, match="instruction 0: waits for semaphore 3"):
        races("SYNC engine=1 wait=3\nHALT")


def test_twenty_thousand_instructions_take_seconds():
    began = time.perf_counter()
    assert races(ring(2).replace("count=20", "count=10000")) == []
    assert time.perf_counter() - began < 20


def test_every_engine_instruction_has_a_rule():
    for row in INSTRUCTIONS:
        if row.engine is not Engine.SEQUENCER:
            op = Op(row.name, {spec.name: 0 if spec.kind is Kind.REGISTER or spec.name == "format" else 1 for spec in row.fields})
            found = accesses(op, registers(), SMALL)
            assert any(access.write for access in found), row.name
            assert all(access.rows >= 1 and access.cols >= 1 for access in found), row.name


def test_an_instruction_without_a_rule_is_an_error(monkeypatch):
    monkeypatch.delitem(_RULES, "V_FILL")
    with pytest.raises(UnmaskError, match="V_FILL: no rule"):
        races(f"V_FILL dst=r0 {TILE} dst_stride=2 value=0.0\nHALT")


@pytest.mark.parametrize(
    ("text", "regs", "expected"),
    [
        (
            "M_MM dst=r1 a=r2 b=r3 m=4 n=48 k=96 dst_stride=2 a_stride=3 transposed=0 format=0",
            {"r1": 1000, "r2": 2000, "r3": 7},
            [("vector", 2000, 4, 96, 96, False), ("matrix", 7, 48, 3, 3, False), ("vector", 1000, 4, 48, 64, True)],
        ),
        (
            "M_MM dst=r1 a=r2 b=r3 m=4 n=48 k=96 dst_stride=2 a_stride=3 transposed=1 format=1",
            {"r3": 7},
            [("vector", 0, 4, 96, 96, False), ("matrix", 7, 96, 2, 2, False), ("vector", 0, 4, 48, 64, True)],
        ),
        (
            "L_MAT dst=r1 src=r2 scales=r3 rows=5 cols=40 src_stride=4 format=0",
            {"r1": 3, "r2": 6400, "r3": 9600},
            [("hbm", 6400, 5, 64, 128, False), ("hbm", 9600, 5, 2, 4, False), ("matrix", 3, 5, 2, 2, True)],
        ),
        (
            "L_GATHER dst=r1 table=r2 ids=r3 rows=5 cols=64 dst_stride=2 table_stride=128 limit=100",
            {"r1": 3, "r2": 6400, "r3": 9},
            [("hbm", 6400, 100, 128, 128, False), ("integer", 9, 1, 5, 5, False), ("vector", 3, 5, 64, 64, True)],
        ),
        (
            "V_RED_SUM dst=r1 a=r2 rows=5 cols=64 a_stride=2 running=1",
            {"r1": 3, "r2": 64},
            [
                ("vector", 64, 5, 64, 64, False),
                ("accumulators", 0, 1, 5, 5, False),
                ("accumulators", 0, 1, 5, 5, True),
                ("float", 3, 1, 5, 5, True),
            ],
        ),
        (
            "V_RED_MAX dst=r1 a=r2 rows=5 cols=64 a_stride=2 running=1",
            {"r1": 3},
            [("vector", 0, 5, 64, 64, False), ("float", 3, 1, 5, 5, False), ("float", 3, 1, 5, 5, True)],
        ),
        (
            "V_RED_MAX_IDX dst=r1 index=r2 picked=r3 a=r4 b=r5 base=r6 rows=5 cols=64 a_stride=2 b_stride=3 running=0",
            {"r1": 3, "r2": 10, "r3": 20, "r4": 100, "r5": 200},
            [
                ("vector", 100, 5, 64, 64, False),
                ("vector", 200, 5, 64, 96, False),
                ("float", 3, 1, 5, 5, True),
                ("integer", 10, 1, 5, 5, True),
                ("float", 20, 1, 5, 5, True),
            ],
        ),
        ("V_TOPK_MASK dst=r1 f=r2 eligible=r3 k=r4 count=6", {"r1": 1, "r2": 2, "r3": 30}, [
            ("float", 2, 1, 6, 6, False), ("integer", 30, 1, 6, 6, False), ("integer", 1, 1, 6, 6, True),
        ]),
    ],
)  # fmt: skip
def test_accesses(text, regs, expected):
    op = program(f"{text}\nHALT").ops[0]
    assert accesses(op, registers(**regs), SMALL) == [Access(*entry) for entry in expected]

"""Instructions as objects, words and text are the same instructions."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.errors import UnmaskError
from unmask.isa.encoding import Op, assemble, check_loops, decode, decode_op, disassemble, encode, encode_op, format_op
from unmask.isa.table import BY_OPCODE, INSTRUCTIONS

from .strategies import instruction

each_row = pytest.mark.parametrize("row", INSTRUCTIONS, ids=lambda row: row.name)


@each_row
@settings(max_examples=15, deadline=None)
@given(st.data())
def test_words_round_trip(row, data):
    op = data.draw(instruction(row))
    word = encode_op(op)
    assert 0 <= word < 1 << 128
    assert decode_op(word) == op
    assert encode_op(decode_op(word)) == word


@each_row
@settings(max_examples=15, deadline=None)
@given(st.data())
def test_text_round_trips(row, data):
    op = data.draw(instruction(row))
    words = assemble(format_op(op))
    assert np.array_equal(words, encode([op]))
    assert decode(words) == [op]
    assert np.array_equal(assemble(disassemble(words)), words)


@settings(deadline=None)
@given(st.lists(st.sampled_from(INSTRUCTIONS).flatmap(instruction), max_size=12))
def test_programs_round_trip(ops):
    words = encode(ops)
    assert words.shape == (len(ops), 2)
    assert words.dtype == np.uint64
    assert decode(words) == ops
    assert np.array_equal(assemble(disassemble(words)), words)


def test_an_encoding_known_by_heart():
    # opcode 0x01; no waits, no signals: 24 ones; rd = 3 at bit 32; value = -1, 48 ones, at bit 37.
    assert encode_op(Op("S_LI", {"rd": 3, "value": -1})) == 0x01 | 0xFFFFFF << 8 | 3 << 32 | ((1 << 48) - 1) << 37
    assert encode_op(Op("HALT", wait=(1,), signal=(2, 3))) == 0x00 | 1 << 8 | 63 << 14 | 2 << 20 | 3 << 26


@pytest.mark.parametrize("value", [math.inf, -math.inf, -0.0, 1e-45])
def test_special_constants_keep_their_bits(value):
    op = Op("F_FILL", {"dst": 0, "count": 1, "value": value})
    back = decode(assemble(format_op(op)))[0].operands["value"]
    assert math.copysign(1, back) == math.copysign(1, value)
    assert back == np.float32(value)


def test_nan_survives_the_text():
    words = encode([Op("V_FILL", {"dst": 0, "rows": 1, "cols": 1, "dst_stride": 0, "value": math.nan})])
    assert np.array_equal(assemble(disassemble(words)), words)


def test_loop_bodies_are_indented():
    text = disassemble(assemble("LOOP count=2\nLOOP count=3\nSYNC engine=1\nEND\nEND\nHALT"))
    assert text == "LOOP count=2\n  LOOP count=3\n    SYNC engine=1\n  END\nEND\nHALT\n"


def test_comments_case_and_number_bases():
    assert decode(assemble("# nothing\n\n  s_li rd=r31 value=0x10 # sixteen\n")) == [Op("S_LI", {"rd": 31, "value": 16})]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("HALT\nJUMP", "line 2: unknown instruction 'JUMP'"),
        ("S_LI rd=r1", "line 1: S_LI takes the operands"),
        ("S_LI rd=r1 value", "line 1: expected field=value, not 'value'"),
        ("S_LI rd=1 value=2", "line 1: rd=1: expected rN"),
        ("S_LI rd=rx value=2", "line 1: rd=rx: expected rN"),
        ("S_LI rd=r32 value=2", "line 1: S_LI: operand rd = 32 is not an integer in"),
        ("S_LI rd=r1 value=two", "line 1: value=two: expected signed"),
        ("S_LI rd=r1 value=140737488355328", "line 1: S_LI: operand value = 140737488355328 is not"),
        ("S_LI rd=r1 value=1 speed=9", "line 1: S_LI has no operand 'speed'"),
        ("\n\nSYNC engine=8", "line 3: SYNC: operand engine = 8"),
        ("SYNC engine=1 wait=63", "line 1: SYNC: wait names at most two semaphores"),
        ("SYNC engine=1 signal=1,2,3", "line 1: SYNC: signal names at most two semaphores"),
        ("SYNC engine=1 wait=x", "line 1: wait=x: expected semaphore numbers"),
        ("V_FILL dst=r0 rows=1 cols=1 dst_stride=0 value=0.1", "line 1: V_FILL: operand value = 0.1 is not a BF16 value"),
        ("LOOP count=-1", "line 1: LOOP: operand count = -1"),
        ("F_FILL dst=r0 count=1 value=much", "line 1: value=much: expected fp32"),
    ],
)
def test_errors_name_the_line_and_the_operand(text, message):
    with pytest.raises(UnmaskError, match=message):
        assemble(text)


def test_a_constant_too_large_for_fp32_is_an_error():
    with pytest.raises(UnmaskError, match="line 1: F_FILL: operand value"):
        assemble("F_FILL dst=r0 count=1 value=1e39")


def test_illegal_opcodes_are_errors():
    for opcode in set(range(256)) - set(BY_OPCODE):
        with pytest.raises(UnmaskError, match=f"illegal opcode 0x{opcode:02x}"):
            decode_op(opcode)


def test_unknown_names_are_errors():
    with pytest.raises(UnmaskError, match="unknown instruction 'JUMP'"):
        encode_op(Op("JUMP"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("END\nHALT", "instruction 0: END without LOOP"),
        ("LOOP count=2\nHALT", "instruction 0: LOOP without END"),
        ("LOOP count=0\nEND\nHALT", "instruction 0: LOOP of 0 iterations"),
        ("SYNC engine=1", "a program ends in HALT"),
        ("", "a program ends in HALT"),
    ],
)
def test_malformed_loops_are_errors(text, message):
    with pytest.raises(UnmaskError, match=message):
        check_loops(decode(assemble(text)))


def test_loops_know_their_ends():
    assert check_loops(decode(assemble("LOOP count=2\nLOOP count=3\nEND\nEND\nHALT"))) == {0: 3, 1: 2}

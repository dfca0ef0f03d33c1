"""Assembly text that keeps phases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.errors import UnmaskError
from unmask.isa.encoding import Op, assemble, disassemble, encode
from unmask.isa.listing import assemble_like, listing, read_listing
from unmask.isa.program import Program

from .strategies import instruction
from .test_program import STRAIGHT, example, same


def test_a_listing_names_each_change_of_phase_once_and_still_assembles():
    program = example()
    assert listing(program).splitlines() == [
        "# entry step",
        "# phase head",
        "LOOP count=3",
        "  # phase attention",
        "  SYNC engine=2 wait=1",
        "# phase head",
        "END",
        "# phase end",
        "HALT",
    ]
    assert np.array_equal(assemble(listing(program)), program.words)


def test_a_listing_assembles_to_the_same_program():
    assert same(assemble_like(listing(example()), example()), example())


@settings(max_examples=50, deadline=None)
@given(ops=st.lists(st.sampled_from(STRAIGHT).flatmap(instruction), max_size=6), names=st.lists(st.text(), min_size=7, max_size=7))
def test_random_programs_with_any_phase_names_survive(ops, names):
    words = encode([*ops, Op("HALT")])
    program = Program(words, names[: len(words)], 0, {}, {}, {})
    again = read_listing(listing(program))
    assert np.array_equal(again.words, words)
    assert again.phases == program.phases
    assert again.entries == {"step": (0, len(words))}


@given(sizes=st.lists(st.integers(0, 3), min_size=1, max_size=4), names=st.lists(st.text(), min_size=4, max_size=4, unique=True))
def test_entries_survive_and_run_on_their_own(sizes, names):
    ops, entries = [], {}
    for name, size in zip(names, sizes, strict=False):
        entries[name] = (len(ops), len(ops) + size + 1)
        ops += [Op("SYNC", {"engine": 1})] * size + [Op("HALT")]
    program = Program(encode(ops), ["all"] * len(ops), 0, {}, {}, {}, entries=entries)
    again = assemble_like(listing(program), program)
    assert again.entries == entries
    for name, size in zip(names, sizes, strict=False):
        assert [op.name for op in again.entry(name).ops] == ["SYNC"] * size + ["HALT"]


def test_text_without_phases_keeps_those_of_the_other_program():
    assert same(assemble_like(disassemble(example().words), example()), example())


def test_comments_set_the_phases_of_a_longer_program():
    text = "# phase first\nSYNC engine=1\n\n# a remark\nSYNC engine=1 # phase of nothing\n  # phase last\nHALT"
    program = assemble_like(text, example())
    assert program.phases == ["first", "first", "last"]
    assert program.data.keys() == example().data.keys()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("HALT", "1 instructions without phases cannot take those of a program of 4"),
        ("SYNC engine=1\n# phase late\nHALT", "line 1: an instruction of no phase"),
        ('# phase "open\nHALT', 'line 1: phase "open: expected a name'),
        ("# entry a\n# phase a\nHALT\n# entry a\nHALT", "line 4: entry a begins a second time"),
        ("# phase a\nNOPE\nHALT", "line 2: unknown instruction 'NOPE'"),
        ("# phase a\nSYNC engine=1", "a program ends in HALT"),
    ],
)
def test_mistakes_are_named(text, message):
    with pytest.raises(UnmaskError, match=message):
        assemble_like(text, example())

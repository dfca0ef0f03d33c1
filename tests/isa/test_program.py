"""Program files."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.errors import UnmaskError
from unmask.isa.encoding import Op, assemble, encode
from unmask.isa.program import Program, Region
from unmask.isa.table import INSTRUCTIONS

from .strategies import instruction

STRAIGHT = [row for row in INSTRUCTIONS if row.name not in ("LOOP", "END")]


def example() -> Program:
    words = assemble("LOOP count=3\nSYNC engine=2 wait=1\nEND\nHALT")
    data = {"weights": np.arange(256, dtype=np.uint8), "ids": np.zeros(8, np.uint8)}
    regions = {"weights": Region(0, 256), "ids": Region(256, 8), "logits": Region(4096, 1024)}
    return Program(words, ["head", "attention", "head", "end"], 5120, regions, data, {"name": "small"}, {"model": {"layers": 2}})


def same(a: Program, b: Program) -> bool:
    plain = ("phases", "hbm_bytes", "regions", "machine", "about")
    return (
        np.array_equal(a.words, b.words)
        and all(getattr(a, name) == getattr(b, name) for name in plain)
        and a.data.keys() == b.data.keys()
        and all(np.array_equal(a.data[name], b.data[name]) for name in a.data)
    )


def test_a_file_holds_the_whole_program(tmp_path):
    program = example()
    program.save(tmp_path / "step.unmask")
    assert same(Program.load(tmp_path / "step.unmask"), program)
    assert [entry.name for entry in tmp_path.iterdir()] == ["step.unmask"]


@settings(max_examples=20, deadline=None)
@given(
    ops=st.lists(st.sampled_from(STRAIGHT).flatmap(instruction), max_size=8), names=st.lists(st.text(max_size=5), min_size=9, max_size=9)
)
def test_random_programs_survive_the_file(tmp_path_factory, ops, names):
    path = tmp_path_factory.mktemp("programs") / "random.unmask"
    program = Program(encode([*ops, Op("HALT")]), names[: len(ops) + 1], 0, {}, {}, {})
    program.save(path)
    assert same(Program.load(path), program)


def test_every_truncation_is_one_clear_error(tmp_path):
    path, cut = tmp_path / "step.unmask", tmp_path / "cut.unmask"
    example().save(path)
    content = path.read_bytes()
    for size in (0, 1, 8, 100, len(content) // 2, len(content) - 1):
        cut.write_bytes(content[:size])
        with pytest.raises(UnmaskError, match=r"cut\.unmask: not a readable unmask program"):
            Program.load(cut)


def test_other_files_are_not_programs(tmp_path):
    path = tmp_path / "text.unmask"
    path.write_text("HALT\n")
    with pytest.raises(UnmaskError, match="not a readable unmask program"):
        Program.load(path)
    with pytest.raises(UnmaskError, match="no such program file"):
        Program.load(tmp_path / "missing.unmask")


def test_a_file_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(UnmaskError, match="cannot write the program"):
        example().save(tmp_path / "no" / "step.unmask")


def test_phases_match_the_instructions():
    with pytest.raises(UnmaskError, match="2 phase names for 1 instructions"):
        Program(assemble("HALT"), ["a", "b"], 0, {}, {}, {})


def test_more_phases_than_a_byte_can_number(tmp_path):
    words = assemble("SYNC engine=1\n" * 299 + "HALT")
    program = Program(words, [f"layer {index}" for index in range(300)], 0, {}, {}, {})
    program.save(tmp_path / "many.unmask")
    assert same(Program.load(tmp_path / "many.unmask"), program)

"""The streaming sampling programs equal their reference bit for bit, and so each other, whatever the machine, formats and temperature."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.compiler.sampling.streamed import SamplingProgram
from unmask.decoding.policy import Policy
from unmask.errors import UnmaskError
from unmask.machine.cycle import time_program
from unmask.machine.hazards import find_races

from .sampling_cases import Case, machine

MACHINES = [
    machine("small"),
    machine("nano"),
    machine("nano", 1),
    machine("nano", 4),
    machine("small", 2, "mxfp8"),
    machine("nano", 3, "mxint8"),
    machine("small", logits="mxfp6_e2m3"),
]
STREAMS: list[SamplingProgram] = ["four-phase", "single-pass"]
COMMITS: list[dict] = [
    {},
    {"remasking": "random"},
    {"commit": "threshold", "threshold": 0.3},
    {"commit": "factor", "factor": 1.5},
    {"commit": "guided"},
    {"suppress_eos": True},
]


@st.composite
def cases(draw: st.DrawFn) -> dict:
    length, rule = draw(st.integers(6, 20)), draw(st.sampled_from(COMMITS))
    temperature = 0.0 if rule.get("commit") == "guided" else draw(st.sampled_from([0.0, 0.0, 0.7, 3.0]))
    policy = Policy(gen_length=length, block_length=length, steps=6, temperature=temperature, **rule)
    return {
        "policy": policy,
        "machine": draw(st.sampled_from(MACHINES)),
        "batch": draw(st.integers(1, 3)),
        "vocabulary": draw(st.sampled_from([8, 31, 64, 65, 200, 333])),
        "step": draw(st.integers(0, 5)),
        "scale": draw(st.sampled_from([0.3, 3.0, 30.0, 300.0])),
        "seed": draw(st.integers(0, 2**31)),
        "opening": draw(st.sampled_from([False, False, False, True])),
        "special": draw(st.booleans()),
        "chunk": draw(st.sampled_from([None, 32, 96])),
    }


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(cases())
def test_random_cases_equal_the_reference_and_each_other(fields):
    found = []
    for program in STREAMS:
        case = Case(**fields, sampling=program)
        case.check()
        found.append(case.run())
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("program", STREAMS)
@pytest.mark.parametrize(
    ("where", "temperature"),
    [(machine("nano", 1), 0.7), (machine("small", 3, "mxfp8"), 0.0), (machine("small"), 1.0), (machine("nano"), 0.0)],
)
def test_programs_are_free_of_races_and_deadlocks(program, where, temperature):
    policy = Policy(gen_length=9, block_length=9, steps=3, temperature=temperature)
    found, words = Case(policy, where, batch=2, vocabulary=200, sampling=program).program()
    assert find_races(found, where, words) == []
    assert time_program(found, where).cycles > 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"remasking": "entropy"}, "do not serve scorer 'entropy': expected sampling 'general'"),
        ({"cfg_scale": 1.0}, "do not serve cfg_scale 1"),
        ({"defer_eos": True}, "do not serve defer_eos"),
    ],
)
@pytest.mark.parametrize("program", STREAMS)
def test_what_only_the_general_program_does_is_an_error(program, fields, message):
    case = Case(Policy(gen_length=8, block_length=8, steps=1, **fields), sampling=program)
    with pytest.raises(UnmaskError, match=message):
        case.program()


@pytest.mark.parametrize("chunk", [0, -32, 33])
def test_a_chunk_is_whole_blocks(chunk):
    with pytest.raises(UnmaskError, match=f"chunk {chunk}: expected a positive multiple of 32"):
        Case(Policy(gen_length=8, block_length=8, steps=1), sampling="four-phase", chunk=chunk).program()

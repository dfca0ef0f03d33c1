"""Iterations of loops that are added up count as much as those that are walked."""

import re
from dataclasses import replace

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from unmask.errors import UnmaskError
from unmask.isa.encoding import assemble
from unmask.isa.program import Program
from unmask.isa.table import Engine
from unmask.machine.config import Machine
from unmask.machine.cycle import Timing, time_program
from unmask.machine.memory import Dram, Ideal

from .test_cycle import EXP, LOAD, PORTS, RANDOM, TIGHT, WORDS, program, programs, shallow

SMALL = Machine.preset("small")
MEMORIES = {
    "ideal": SMALL.hbm,
    "narrow": Ideal(gib=1, bytes_per_cycle=3, latency=7, beat_bytes=8),
    "uneven": Ideal(gib=1, bytes_per_cycle=10, latency=30, beat_bytes=24),
    "dram": Dram.model_validate(TIGHT | {"refresh": "bank"}),
    "refreshed": Dram.model_validate(TIGHT | {"refresh": "all", "ports": 1}),
}
# No loaded words, and addresses that come back to the same place in a beat after some iterations.
REPEATING = {
    **RANDOM,
    Engine.SEQUENCER: [
        "S_ADDI rd=r1 rs=r1 value=64",
        "S_ADDI rd=r2 rs=r2 value=4",
        "S_ADD rd=r2 rs=r1 rt=r3",
        "S_MULI rd=r3 rs=r3 value=5",
        "S_XORI rd=r2 rs=r2 value=12",
        "S_LI rd=r1 value=7",
        "SYNC engine=0",
    ],
    Engine.LOAD: [line for line in RANDOM[Engine.LOAD] if not line.startswith("L_GATHER")],
}
COUNTS = st.sampled_from([1, 2, 3, 4, 5, 17, 50])


def both(prog: Program, machine: Machine) -> tuple[Timing, Timing]:
    """With and without skipping."""
    return time_program(prog, machine, parameters=WORDS), time_program(prog, machine, parameters=WORDS, skip=False)


@pytest.mark.parametrize("memory", MEMORIES)
@settings(max_examples=60, deadline=None)
@given(st.one_of(programs(COUNTS), programs(COUNTS, REPEATING)), st.integers(1, 4), PORTS, st.data())
def test_skipped_iterations_count_as_walked_ones(memory, text, depth, ports, data):
    machine = shallow(depth, ports).model_copy(update={"hbm": MEMORIES[memory]})
    words = assemble(text)
    phases = [data.draw(st.sampled_from(["load", "attention", "sampling"])) for _ in words]
    prog = Program(words, phases, 0, {}, {}, {})
    try:
        fast = time_program(prog, machine, parameters=WORDS)
    except UnmaskError as error:  # too many tokens
        with pytest.raises(UnmaskError, match=re.escape(str(error))):
            time_program(prog, machine, parameters=WORDS, skip=False)
        return
    slow = time_program(prog, machine, parameters=WORDS, skip=False)
    event("skipped" if fast.skipped else "walked")
    assert slow.skipped == 0
    assert replace(fast, skipped=0) == slow
    assert 0 <= fast.skipped < sum(fast.instructions.values())


STREAM = f"""SEM_SET semaphore=1 value=2
LOOP count=20000
{LOAD} wait=1 signal=2
{EXP} wait=2 signal=1
S_ADDI rd=r2 rs=r2 value={{stride}}
END
{{after}}
HALT"""


@pytest.mark.parametrize(("stride", "share"), [(256, 0.99), (64, 0.99), (32, 0.98), (1, 0.5)])
def test_a_stream_is_skipped_once_it_repeats(stride, share):
    fast, slow = both(program(STREAM.format(stride=stride, after=LOAD)), SMALL)
    assert replace(fast, skipped=0) == slow
    assert fast.skipped > share * sum(fast.instructions.values())


def test_registers_are_what_they_would_be_after_a_loop():
    # What follows the loop loads a word at the address that the loop has reached, and from where that word says.
    after = "S_MULI rd=r5 rs=r2 value=1\nS_LD rd=r2 a=r5\n" + LOAD
    text = STREAM.format(stride=64, after=after)
    words = {20000 * 64: 32}
    found = [time_program(program(text), SMALL, parameters=words, skip=skip) for skip in (True, False)]
    assert found[0].skipped > 0
    assert replace(found[0], skipped=0) == found[1]
    assert found[0].hbm_bytes["load"] == 20000 * 512 + 576


def test_nested_loops_are_skipped_as_a_whole():
    inner = f"LOOP count=100\n{EXP}\nS_ADDI rd=r1 rs=r1 value=32\nEND"
    fast, slow = both(program(f"LOOP count=1000\n{inner}\n{LOAD} signal=1\nSYNC engine=4 wait=1\nEND\nHALT"), SMALL)
    assert replace(fast, skipped=0) == slow
    assert fast.skipped > 0.99 * sum(fast.instructions.values())


def test_dram_is_never_skipped_but_what_moves_nothing_is():
    edge = Machine.preset("edge")
    fast, slow = both(program(STREAM.format(stride=256, after=f"LOOP count=1000\n{EXP}\nEND")), edge)
    assert replace(fast, skipped=0) == slow
    assert 0.9 * 2000 < fast.skipped <= 2000


def test_what_is_traced_is_walked():
    text = STREAM.format(stride=64, after=EXP)
    whole = time_program(program(text), SMALL, trace=True)
    assert whole.skipped == 0
    some = time_program(program(text), SMALL, trace=500)
    assert some.skipped > 0
    assert some.trace is not None
    assert whole.trace is not None
    assert (some.trace.start == whole.trace.start[:500]).all()
    assert replace(some, skipped=0, trace=None) == replace(whole, trace=None)

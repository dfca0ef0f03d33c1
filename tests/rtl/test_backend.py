"""The hardware as an executor of programs: the memory and the cycles of the other readings, faults by name, an end when it is asked for."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from tests.rtl.test_lockstep import MACHINE

from unmask.errors import UnmaskError
from unmask.isa.encoding import assemble
from unmask.isa.program import Program, Region
from unmask.machine.cycle import time_program
from unmask.machine.functional import FunctionalMachine
from unmask.machine.state import MachineFault
from unmask.rtl.backend import RtlMachine, Run
from unmask.rtl.lockstep.build import harness

DOUBLE = """
S_LI rd=r1 value=0
S_LI rd=r2 value=512
L_VEC dst=r1 src=r1 rows=4 cols=32 dst_stride=1 src_stride=64 signal=0
V_ADD dst=r1 a=r1 b=r1 rows=4 cols=32 dst_stride=1 a_stride=1 b_stride=1 wait=0 signal=1
ST_VEC src=r1 dst=r2 rows=4 cols=32 src_stride=1 dst_stride=64 wait=1
HALT
"""
LONG = "LOOP count=60000\nS_LI rd=r1 value=0\nEND\nHALT\n"
BEYOND = "S_LI rd=r1 value=1020\nL_VEC dst=r0 src=r1 rows=1 cols=32 dst_stride=1 src_stride=64\nHALT\n"


@cache
def library() -> Path:
    return harness(MACHINE)


def program(**entries: str) -> Program:
    """Entries by their text, on a memory of 1 KiB of which the first half is given and the second asked for."""
    words = {name: assemble(text) for name, text in entries.items()}
    ends = np.cumsum([len(part) for part in words.values()]).tolist()
    places = {name: (end - len(words[name]), end) for name, end in zip(words, ends, strict=True)}
    regions = {"in": Region(0, 512), "out": Region(512, 512)}
    return Program(np.concatenate(list(words.values())), ["all"] * ends[-1], 1024, regions, {}, {}, entries=places)


def values(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0x3C00, 0x4200, 256).astype("<u2")


def test_runs_leave_the_memory_and_take_the_cycles_of_the_other_readings() -> None:
    double = program(step=DOUBLE, wait="LOOP count=5\nS_LI rd=r1 value=0\nEND\nHALT\n")
    rtl, functional = RtlMachine(double, MACHINE, library()), FunctionalMachine(double, MACHINE)
    for seed, entry in enumerate(("step", "wait", "step")):
        for machine in (rtl, functional):
            machine.write("in", values(seed))
            machine.run(entry)
        assert np.array_equal(rtl.read("out", "<u2"), functional.read("out", "<u2"))
    assert rtl.read("out", "<u2").any()
    assert rtl.runs == [Run(name, time_program(double.entry(name), MACHINE).cycles) for name in ("step", "wait", "step")]
    assert rtl.cycles == sum(run.cycles for run in rtl.runs)
    rtl.close()


def test_a_fault_names_its_instruction() -> None:
    rtl = RtlMachine(program(step=BEYOND, double=DOUBLE), MACHINE, library())
    with pytest.raises(MachineFault, match=r"instruction 1 \(L_VEC\): fault address of the hardware"):
        rtl.run("step")
    rtl.run("double")
    assert [run.entry for run in rtl.runs] == ["double"]


def test_what_watches_may_end_a_run_and_the_next_one_is_clean() -> None:
    seen = []

    def watch(cycles: int, seconds: float) -> None:
        seen.append(cycles)
        if len(seen) == 2:
            raise KeyboardInterrupt

    both = program(long=LONG, double=DOUBLE)
    rtl, functional = RtlMachine(both, MACHINE, library(), watch), FunctionalMachine(both, MACHINE)
    with pytest.raises(KeyboardInterrupt):
        rtl.run("long")
    assert 0 < seen[0] < seen[1] < 120_000
    for machine in (rtl, functional):
        machine.write("in", values(1))
        machine.run("double")
    assert np.array_equal(rtl.read("out", "<u2"), functional.read("out", "<u2"))


def test_mistakes_are_named() -> None:
    rtl = RtlMachine(program(step=DOUBLE), MACHINE, library())
    with pytest.raises(UnmaskError, match="no entry 'other'"):
        rtl.run("other")
    with pytest.raises(UnmaskError, match="region 'there'"):
        rtl.write("there", values(0))
    with pytest.raises(UnmaskError, match="cannot be loaded"):
        RtlMachine(program(step=DOUBLE), MACHINE, Path(__file__))

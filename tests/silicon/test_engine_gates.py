"""The whole sampling engine in gates: sampling steps of the shipped model, random programs, every output in every cycle as in the RTL."""

from __future__ import annotations

from pathlib import Path

import pytest

from unmask.cli.sampling_run import sampling_recording
from unmask.rtl.speed import machine_of
from unmask.silicon.gatesim import compare
from unmask.silicon.liberty import Library

SMALLEST = Path(__file__).with_name("smallest.toml")


def test_the_smallest_engine_in_gates_samples_as_the_rtl_and_pytorch(osu018: Library, cache: Path, iverilog: None) -> None:
    machine = machine_of(str(SMALLEST))
    recorded = sampling_recording(machine, cache / "recording", programs=1, vocabulary=64)
    found = compare("sampler", machine, osu018, 100_000, cache, cycles=0, quick=True, recorded=recorded)
    assert found.mismatches == 0, found.first
    assert "in four phases; 1 random programs" in found.inputs
    assert found.cycles > 5_000


@pytest.mark.slow
def test_the_engine_of_32_lanes_in_asap7_samples_as_the_rtl_and_pytorch(asap7: Library, cache: Path, iverilog: None, sta: None) -> None:
    machine = machine_of("sampler", 32)
    found = compare("sampler", machine, asap7, 1000, cache, cycles=0, recorded=sampling_recording(machine, cache / "recording", programs=3))
    assert found.mismatches == 0, found.first

"""The latencies at which the hardware is made for its clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from unmask.machine.config import Machine
from unmask.rtl.speed import machine_of

BEFORE_DRAM = str(Path(__file__).parents[2] / "examples" / "machines" / "rtl-tiny-hbm2e.toml")


def latencies(machine: Machine) -> dict[str, int]:
    parts = {**machine.vector.model_dump(), **machine.sequencer.model_dump()}
    return {name: value for name, value in parts.items() if name.endswith("latency")}


@pytest.mark.parametrize(("name", "whole"), [("sampler", False), ("rtl-tiny", True), (BEFORE_DRAM, True)])
def test_machines_that_hardware_is_made_of_state_its_latencies(name: str, whole: bool) -> None:
    machine = machine_of(name)
    assert latencies(machine) == latencies(machine_of(name, machine.vector.vlen, whole=whole))


def test_the_whole_machine_has_longer_functions_than_a_sampling_engine() -> None:
    whole, engine = (machine_of("rtl-tiny", 32, whole=whole) for whole in (True, False))
    assert whole.vector.function_latency > engine.vector.function_latency

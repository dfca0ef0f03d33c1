"""Trees of buffers on nets that drive much."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.silicon.fanout import MOST, with_trees
from unmask.silicon.liberty import Library

DRIVER, CLOCK = 2, 3


def _module(inverters: int, flip_flops: int, outputs: int = 0) -> dict[str, Any]:
    """A net, and a clock, that so many cells are on, and output bits."""
    cells: dict[str, Any] = {}
    for index in range(inverters):
        cells[f"$flatten\\part_{index % 3}.u{index}"] = {"type": "INVX1", "connections": {"A": [DRIVER], "Y": [100 + index]}}
    for index in range(flip_flops):
        cells[f"r{index}"] = {"type": "DFFPOSX1", "connections": {"CLK": [CLOCK], "D": [DRIVER], "Q": [5000 + index]}}
    ports = {"a": {"direction": "input", "bits": [DRIVER]}, "clk": {"direction": "input", "bits": [CLOCK]}}
    ports["mask"] = {"direction": "output", "bits": [DRIVER] * outputs}
    return {"cells": cells, "ports": ports, "netnames": {"last": {"bits": [9999, "x"]}}}


@settings(max_examples=30, deadline=None)
@given(inverters=st.integers(0, 400), flip_flops=st.integers(0, 200), outputs=st.integers(0, 50))
def test_no_net_drives_much_and_every_sink_is_equally_far(osu018: Library, inverters: int, flip_flops: int, outputs: int) -> None:
    module = _module(inverters, flip_flops, outputs)
    before = dict(module["cells"])
    added = with_trees(module, osu018, "clk", 4.0)
    buffer = osu018.driver
    assert set(added) <= {buffer.name}
    assert sum(added.values()) == len(module["cells"]) - len(before)
    pins = {cell.name: {pin.name: pin.capacitance for pin in cell.pins if pin.direction == "input"} for cell in osu018.cells.values()}
    loads: dict[int, float] = {}
    drivers = {cell["connections"]["Y"][0]: cell for name, cell in module["cells"].items() if name not in before}
    depths = set()

    def depth(bit: int) -> int:
        return 0 if bit == DRIVER else 1 + depth(drivers[bit]["connections"]["A"][0])

    for bit in module["ports"]["mask"]["bits"]:
        loads[bit] = loads.get(bit, 0.0) + 4.0
        depths.add(depth(bit))
    for name, cell in module["cells"].items():
        for pin, capacitance in pins[cell["type"]].items():
            bit = cell["connections"][pin][0]
            if bit == CLOCK:
                continue
            loads[bit] = loads.get(bit, 0.0) + capacitance / osu018.load_of(buffer)
            if name in before:
                depths.add(depth(bit))
    assert all(load <= MOST for load in loads.values())
    assert len(depths) <= 1
    assert bool(added) == any(depths)


def test_a_buffer_lies_where_all_its_sinks_lie(osu018: Library) -> None:
    module = _module(90, 0)
    module["cells"] = dict(sorted(module["cells"].items()))
    with_trees(module, osu018, "clk", 4.0)
    trees = [name for name in module["cells"] if "fanout" in name]
    assert {name.partition(".")[0] for name in trees if "." in name} == {f"$flatten\\part_{index}" for index in range(3)}

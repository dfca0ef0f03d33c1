"""From Amaranth to gates and back: the netlist does what the RTL does, and its figures add up."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from tests.silicon.designs import Crossed, Multiplier, Rows, Scales, Twins

from unmask.errors import UnmaskError
from unmask.rtl.speed import machine_of
from unmask.silicon import icarus, synthesis
from unmask.silicon.blocks import Design
from unmask.silicon.gates import Gates
from unmask.silicon.gatesim import compare
from unmask.silicon.liberty import Library
from unmask.silicon.measure import random_inputs
from unmask.silicon.reference import rtl_outputs
from unmask.silicon.synthesis import Netlist, synthesize
from unmask.silicon.timing import analyse

RESET = 4


@pytest.fixture(scope="module")
def netlist(osu018: Library, cache: Path) -> Netlist:
    return synthesize(Twins(), "twins", osu018, 5000, cache)


@pytest.fixture(scope="module")
def gates(netlist: Netlist) -> Gates:
    return Gates(netlist)


def test_equal_modules_are_one_block() -> None:
    design = Design(Twins(), "twins")
    assert dict(design.instances) == {"twins": 1, "one": 2}


def test_the_text_of_a_block_does_not_depend_on_what_else_is_there() -> None:
    """Its mapping is kept by its text; Amaranth numbers what crosses into a module by what the whole design has."""
    texts = {Design(Crossed(others), "crossed").blocks["halves"].text for others in range(3)}
    assert len(texts) == 1
    assert "crossing$" in texts.pop()


def test_units_of_lanes_are_converted_once_and_do_what_they_did(osu018: Library, cache: Path) -> None:
    design = Design(Scales(), "scales")
    assert design.instances["scale"] == 2
    netlist = synthesize(Scales(), "scales", osu018, 10_000, cache)
    gates = Gates(netlist)
    stimulus = random_inputs(gates, 100, reset=RESET)
    expected = rtl_outputs(Scales(), gates.inputs, gates.outputs, stimulus[RESET:])
    # Their registers have no reset: the first results are of what they powered up with.
    assert np.array_equal(gates.run(stimulus)[0][RESET + 1 :], expected[1:])


def test_what_abc_gives_up_on_is_mapped_by_the_spare_recipe(osu018: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthesis, "RECIPES", {"first": "no_such_command", "second": "strash;&get -n;no_such_command"})
    netlist = synthesize(Multiplier(), "multiplier", osu018, 5000, tmp_path)
    gates = Gates(netlist)
    stimulus = random_inputs(gates, 100, reset=RESET)
    expected = rtl_outputs(Multiplier(), gates.inputs, gates.outputs, stimulus[RESET:])
    assert np.array_equal(gates.run(stimulus)[0][RESET:], expected)
    monkeypatch.setattr(synthesis, "SPARE", "no_such_command")
    with pytest.raises(UnmaskError, match="map_spare"):
        synthesize(Multiplier(), "multiplier", osu018, 5000, tmp_path / "again")


def test_a_large_memory_is_a_macro_with_ports_that_tell_how_it_is_read() -> None:
    small, large = Design(Rows(16), "rows"), Design(Rows(128), "rows")
    assert not any(block.macro for block in small.blocks.values())
    (macro,) = [block for block in large.blocks.values() if block.macro]
    assert macro.memory_bits == 128 * 8
    text = "".join(block.text for block in large.blocks.values())
    assert len(re.findall(r"connect \\r\d_en_through ", text)) == 1
    assert len(re.findall(r"connect \\r\d_en ", text)) == 0
    assert len(re.findall(r"connect \\r\d_data ", text)) == 2


def test_the_netlist_does_what_the_rtl_does(gates: Gates) -> None:
    stimulus = random_inputs(gates, 300, reset=RESET)
    expected = rtl_outputs(Twins(), gates.inputs, gates.outputs, stimulus[RESET:])
    for seed in range(3):
        seen, _ = gates.run(stimulus, seed)
        assert np.array_equal(seen[RESET:], expected)
    assert 0.3 < expected[20:].mean() < 0.7


def test_icarus_agrees_and_knows_every_output_after_reset(netlist: Netlist, gates: Gates, tmp_path: Path, iverilog: None) -> None:
    stimulus = random_inputs(gates, 100, reset=RESET)
    seen = icarus.simulate(netlist, gates, stimulus, tmp_path)
    assert (seen[0] == icarus.UNKNOWN).all()
    assert np.array_equal(seen[RESET:], gates.run(stimulus)[0][RESET:])


def test_a_gate_of_another_kind_is_noticed(netlist: Netlist) -> None:
    gates = Gates(netlist)
    stimulus = random_inputs(gates, 100, reset=RESET)
    right = gates.run(stimulus)[0]
    broken = {name: cell for name, cell in netlist.flat["cells"].items() if cell["type"] == "XOR2X1"}
    assert broken
    try:
        for cell in broken.values():
            cell["type"] = "XNOR2X1"
        wrong = Gates(netlist).run(stimulus)[0]
    finally:
        for cell in broken.values():
            cell["type"] = "XOR2X1"
    assert not np.array_equal(right[RESET:], wrong[RESET:])


def test_toggles_are_counted_per_net(gates: Gates) -> None:
    stimulus = random_inputs(gates, 200, reset=RESET)
    seen, toggles = gates.run(stimulus)
    nets = np.concatenate([port.nets for port in gates.outputs])
    changes = np.count_nonzero(np.diff(seen.astype(int), axis=0), axis=0)
    assert np.array_equal(toggles[nets], changes)
    still = np.repeat(stimulus[:1], 50, axis=0)
    assert gates.run(still, skip=10)[1].sum() == 0


def test_a_cell_weighs_the_same_in_a_block_and_in_the_whole(netlist: Netlist, osu018: Library) -> None:
    flat = sum(osu018.cells[cell["type"]].area for cell in netlist.flat["cells"].values())
    assert netlist.area == pytest.approx(flat)
    assert netlist.registers == 2 * (12 + 16)


def test_power_grows_with_activity_and_slack_with_the_period(netlist: Netlist, gates: Gates, tmp_path: Path, sta: None) -> None:
    def at(period: float, rate: float, folder: str) -> tuple[float, float]:
        found = analyse(netlist, gates, period, tmp_path / folder, np.full(gates.nets, rate))
        assert found.critical is not None
        return found.critical.slack_ps, found.power.total_mw

    slack, power = at(5000, 0.1, "a")
    more_slack, less_power = at(10000, 0.1, "b")
    assert more_slack == pytest.approx(slack + 5000, abs=1)
    assert less_power == pytest.approx(power / 2, rel=0.01)
    assert at(5000, 0.4, "c")[1] > 1.2 * power


def test_given_rates_and_uniform_ones_are_the_same_to_opensta(netlist: Netlist, gates: Gates, tmp_path: Path, sta: None) -> None:
    given = analyse(netlist, gates, 5000, tmp_path / "given", np.full(gates.nets, 0.2)).power
    uniform = analyse(netlist, gates, 5000, tmp_path / "uniform", rate=0.2).power
    assert given.total_mw == pytest.approx(uniform.total_mw, rel=0.1)


def test_a_unit_of_the_engine_survives_mapping(osu018: Library, cache: Path, iverilog: None, sta: None) -> None:
    found = compare("max_tree", machine_of("sampler", 8), osu018, 10_000, cache, cycles=300, with_icarus=True)
    assert found.mismatches == 0
    assert found.compared > 10_000


def test_what_a_stimulus_must_be(gates: Gates) -> None:
    with pytest.raises(UnmaskError, match="stimulus"):
        gates.run(np.zeros((5, 3), np.uint8))


@pytest.mark.slow
def test_a_multiplier_in_asap7(asap7: Library, cache: Path, sta: None, iverilog: None) -> None:
    netlist = synthesize(Multiplier(), "multiplier", asap7, 1000, cache)
    gates = Gates(netlist)
    stimulus = random_inputs(gates, 300, reset=RESET)
    seen, toggles = gates.run(stimulus, skip=RESET)
    assert np.array_equal(seen[RESET:], rtl_outputs(Multiplier(), gates.inputs, gates.outputs, stimulus[RESET:]))
    assert np.array_equal(icarus.simulate(netlist, gates, stimulus, cache / "icarus")[RESET:], seen[RESET:])
    found = analyse(netlist, gates, 1000, cache / "sta", toggles / (len(stimulus) - RESET))
    assert found.critical is not None
    assert found.critical.slack_ps > 0
    assert 5 < netlist.area < 100
    assert 0.01 < found.power.total_mw < 1

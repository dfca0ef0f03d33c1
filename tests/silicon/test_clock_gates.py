"""Clock gates: found in a library, put before registers with an enable, simulated as Icarus does, and accounted for in power."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.silicon.designs import Held

from unmask.silicon import icarus
from unmask.silicon.gates import Gates
from unmask.silicon.liberty import Library, load_library
from unmask.silicon.measure import random_inputs
from unmask.silicon.reference import rtl_outputs
from unmask.silicon.synthesis import synthesize
from unmask.silicon.timing import analyse

RESET, SETTLE = 4, 40
KIT = """library (kit) { time_unit : "1ps"; leakage_power_unit : "1pW"; capacitive_load_unit (1,ff); voltage_unit : "1V";
cell (INV) { area : 1; pin (A) { direction : input; capacitance : 0.5; } pin (Y) { direction : output; function : "(!A)"; } }
cell (BUF) { area : 2; pin (A) { direction : input; capacitance : 0.5; } pin (Y) { direction : output; function : "A"; } }
cell (DFF) { area : 3; ff (IQ,IQN) { next_state : "D"; clocked_on : "CK"; } pin (D) { direction : input; }
  pin (CK) { direction : input; } pin (Q) { direction : output; function : "IQ"; } }
cell (ICG) { area : 4; clock_gating_integrated_cell : latch_posedge_precontrol;
  pg_pin (VDD) { pg_type : primary_power; } pg_pin (VSS) { pg_type : primary_ground; }
  statetable ("CK E SE", "IQ") { table : "L L L : - : L"; }
  pin (IQ) { direction : internal; internal_node : "IQ"; }
  pin (G) { clock_gate_out_pin : true; direction : output; state_function : "CK & IQ";
    internal_power () { related_pin : "CK"; when : "E + SE"; related_pg_pin : VDD; rise_power (scalar) { values ("0.25"); }
      fall_power (t) { values ("1, 2, 1.5", "7, 8, 9"); } }
    internal_power () { related_pin : "CK"; when : "E + SE"; related_pg_pin : VSS; fall_power (scalar) { values ("64"); } } }
  pin (CK) { clock_gate_clock_pin : true; direction : input; capacitance : 1;
    internal_power () { when : "(!E * !SE * !G)"; related_pg_pin : VDD; rise_power (t) { values ("-0.25, 1"); }
      fall_power (t) { values ("0.75, 1"); } }
    internal_power () { when : "(E * !G)"; related_pg_pin : VDD; fall_power (scalar) { values ("32"); } } }
  pin (E) { clock_gate_enable_pin : true; direction : input; capacitance : 1; }
  pin (SE) { clock_gate_test_pin : true; direction : input; capacitance : 1; } } }"""


def test_a_clock_gate_is_known_by_its_pins_and_by_what_a_cycle_costs_it(tmp_path: Path) -> None:
    (tmp_path / "kit.lib").write_text(KIT)
    library = load_library(tmp_path / "kit.lib", tmp_path / "cache")
    gate = library.clock_gate
    assert gate is not None
    assert (gate.cell, gate.clock, gate.enable, gate.output, gate.low, gate.area) == ("ICG", "CK", "E", "G", ("SE",), 4)
    # The supply's rise and the most of any load's fall; the ground's are the same charge.
    assert (gate.running, gate.stopped) == (2.25, 0.5)
    assert library.energy_unit == 1e-15
    assert not library.cells["ICG"].sequential


def test_a_charge_is_counted_where_it_enters(tmp_path: Path) -> None:
    (tmp_path / "kit.lib").write_text(KIT)
    text = load_library(tmp_path / "kit.lib", tmp_path / "cache").full.read_text()
    assert text.count("internal_power") == KIT.count("internal_power") - 1
    assert "64" not in text
    assert text.count("{") == text.count("}")


def test_without_a_clock_gate_enables_stay_multiplexers(osu018: Library, cache: Path) -> None:
    assert osu018.clock_gate is None
    gates = Gates(synthesize(Held(), "held", osu018, 5000, cache))
    assert gates.clock_gates == {}
    stimulus = random_inputs(gates, 200, reset=RESET)
    expected = rtl_outputs(Held(), gates.inputs, gates.outputs, stimulus[RESET:])
    assert np.array_equal(gates.run(stimulus)[0][RESET + SETTLE :], expected[SETTLE:])


@pytest.mark.slow
def test_registers_behind_clock_gates_do_what_the_rtl_does(asap7: Library, cache: Path, sta: None, iverilog: None) -> None:
    netlist = synthesize(Held(), "held", asap7, 1000, cache)
    gates = Gates(netlist)
    assert len(gates.clock_gates) == 2, "one with the enable, which the reset joins, and one with its own"
    stimulus = random_inputs(gates, 400, reset=RESET)
    expected = rtl_outputs(Held(), gates.inputs, gates.outputs, stimulus[RESET:])[SETTLE:]
    seen, toggles = gates.run(stimulus, skip=RESET)
    for found in (seen, gates.run(stimulus, seed=1)[0], icarus.simulate(netlist, gates, stimulus, cache / "icarus")):
        assert np.array_equal(found[RESET + SETTLE :], expected)
    rates = toggles / (len(stimulus) - RESET - 1)
    assert 0.3 < gates.clocked(rates) < 0.5
    found = analyse(netlist, gates, 1000, cache / "sta", rates)
    stopped = analyse(netlist, gates, 1000, cache / "sta", np.zeros(gates.nets)).power
    every = analyse(netlist, gates, 1000, cache / "sta").power
    assert found.critical is not None
    assert stopped.clock_mw < 0.05 * every.clock_mw
    assert stopped.clock_mw < found.power.clock_mw < every.clock_mw
    assert 0 < stopped.total_mw < 0.2 * found.power.total_mw

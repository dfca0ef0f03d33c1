"""How this OpenSTA adds up the energy inside a cell, asked of a cell whose energy is known."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from unmask.errors import UnmaskError
from unmask.silicon.tools import run

_TIMES = "".join(f'{kind} (scalar) {{ values ("1"); }}\n' for kind in ("cell_rise", "cell_fall", "rise_transition", "fall_transition"))
_RISE, _FALL = 1.0, 3.0
"""Energies of the known inverter's output edges, fJ."""
_LIBRARY = f"""library (known) {{
delay_model : table_lookup;
time_unit : "1ps"; voltage_unit : "1V"; current_unit : "1mA"; capacitive_load_unit (1,ff); leakage_power_unit : "1pW";
nom_voltage : 1; nom_temperature : 25; nom_process : 1;
operating_conditions (all) {{ process : 1; temperature : 25; voltage : 1; }}
default_operating_conditions : all;
cell (INV) {{
pin (A) {{ direction : input; capacitance : 0; }}
pin (Y) {{ direction : output; function : "!A";
timing () {{ related_pin : "A"; timing_sense : negative_unate;
{_TIMES}}}
internal_power () {{ related_pin : "A"; rise_power (scalar) {{ values ("{_RISE}"); }} fall_power (scalar) {{ values ("{_FALL}"); }} }}
}}
}}
}}
"""
_NETLIST = """module known (a, y);
  input a;
  output y;
  INV i (.A(a), .Y(y));
endmodule
"""
_SCRIPT = """read_liberty known.lib
read_verilog known.v
link_design known
create_clock -name clk -period 1000
set_input_delay 0 -clock clk [get_ports a]
sta::set_power_input_port_activity [get_ports a] 1 0.5
report_power -instances [get_cells i] -digits 9
exit
"""


@cache
def internal_power_scale() -> float:
    """What the internal power that OpenSTA reports is to be multiplied by.

    Every toggle is a rise or a fall, so that an output that toggles once a cycle costs the mean of the two energies. Debian 12's OpenSTA
    charges both at every toggle: 0.5.

    Raises:
        UnmaskError: OpenSTA is missing or failed, or reports something else.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, text in (("known.lib", _LIBRARY), ("known.v", _NETLIST), ("known.tcl", _SCRIPT)):
            (folder / file).write_text(text)
        report = run("sta", ["-no_splash", "-exit", "known.tcl"], folder)
    rows = [line.split() for line in report.splitlines() if line.endswith(" i")]
    reported = float(rows[0][0]) if rows else float("nan")
    expected = (_RISE + _FALL) / 2 * 1e-15 / 1000e-12
    for scale in (1.0, 0.5):
        if abs(reported * scale - expected) < 1e-3 * expected:
            return scale
    raise UnmaskError(f"OpenSTA reports {reported} W inside an inverter that takes {expected} W: expected that or twice as much")

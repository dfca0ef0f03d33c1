"""What OpenSTA reports of energy inside cells, against cells whose energy is known."""

from pathlib import Path

import pytest

from unmask.silicon.calibration import internal_power_scale
from unmask.silicon.tools import missing, run

pytestmark = pytest.mark.skipif(bool(missing("sta")), reason="needs OpenSTA")

TIMES = "".join(f'{kind} (scalar) {{ values ("1"); }}' for kind in ("cell_rise", "cell_fall", "rise_transition", "fall_transition"))
REGISTER = f"""library (known) {{
delay_model : table_lookup; time_unit : "1ps"; voltage_unit : "1V"; current_unit : "1mA"; capacitive_load_unit (1,ff);
leakage_power_unit : "1pW"; nom_voltage : 1; nom_temperature : 25; nom_process : 1;
operating_conditions (all) {{ process : 1; temperature : 25; voltage : 1; }}
default_operating_conditions : all;
cell (DFF) {{ ff (IQ,IQN) {{ clocked_on : "CK"; next_state : "D"; }}
pin (D) {{ direction : input; capacitance : 0; }}
pin (CK) {{ direction : input; clock : true; capacitance : 0;
internal_power () {{ rise_power (scalar) {{ values ("5"); }} fall_power (scalar) {{ values ("2"); }} }} }}
pin (Q) {{ direction : output; function : "IQ"; timing () {{ related_pin : "CK"; timing_type : rising_edge; {TIMES} }} }}
}} }}"""


def test_a_clock_pin_takes_the_energy_of_both_edges_in_a_cycle(tmp_path: Path) -> None:
    (tmp_path / "known.lib").write_text(REGISTER)
    (tmp_path / "known.v").write_text("module known (ck, d, q); input ck, d; output q; DFF f (.CK(ck), .D(d), .Q(q)); endmodule\n")
    lines = ["read_liberty known.lib", "read_verilog known.v", "link_design known", "create_clock -name ck -period 500 [get_ports ck]"]
    (tmp_path / "known.tcl").write_text("\n".join([*lines, "report_power -instances [get_cells f] -digits 9", "exit", ""]))
    report = run("sta", ["-no_splash", "-exit", "known.tcl"], tmp_path)
    internal = next(float(line.split()[0]) for line in report.splitlines() if line.endswith(" f"))
    assert internal * internal_power_scale() == pytest.approx((5 + 2) * 1e-15 / 500e-12)

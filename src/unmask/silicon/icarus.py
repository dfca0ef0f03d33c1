"""A netlist in Icarus, four-valued, with cell models that yosys writes from the Liberty functions: a second opinion on `gates`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from unmask.silicon.gates import Bits, Gates
from unmask.silicon.synthesis import CLOCK, Netlist
from unmask.silicon.tools import run, yosys
from unmask.silicon.verilog import names_of, verilog

UNKNOWN = 2


def simulate(netlist: Netlist, gates: Gates, stimulus: Bits, folder: Path) -> Bits:
    """Simulate from unknown flip-flops.

    Args:
        stimulus: [cycles, bits] of all inputs, as `Gates.run` takes them.
        folder: for the files.

    Returns:
        [cycles, bits] of all outputs at the end of each cycle: 0, 1 or `UNKNOWN`.

    Raises:
        UnmaskError: Icarus is missing, or a tool fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = names_of(gates, netlist.flat)
    (folder / "netlist.v").write_text(verilog(gates, names, netlist.top))
    library = netlist.library
    kinds = {kind for _, kind, _ in gates.instances}
    used = " ".join(sorted(kinds - library.clock_gates.keys()))
    (folder / "gates.v").write_text("\n".join(library.clock_gates[kind].verilog for kind in sorted(kinds & library.clock_gates.keys())))
    models = f"read_liberty -ignore_miss_func {library.logic.resolve()}\nselect {used}\n"
    yosys(f"{models}write_verilog -noattr -selected cells.v\n", folder, "models")
    inputs = [bit for port in gates.inputs for bit in names.ports[port.name]]
    outputs = [bit for port in gates.outputs for bit in names.ports[port.name]]
    # The highest bit of a Verilog vector is written first.
    rows = ["".join(map(str, row)) for row in stimulus[:, ::-1].tolist()]
    (folder / "stimulus.txt").write_text("\n".join([*rows, ""]))
    connections = [f".{CLOCK}(clk)"] * (CLOCK in gates.ports)
    connections += [f".{bit}(given[{index}])" for index, bit in enumerate(inputs)]
    connections += [f".{bit}(seen[{index}])" for index, bit in enumerate(outputs)]
    (folder / "bench.v").write_text(
        f"""`timescale 1ns/1ps
module bench;
  reg clk = 0;
  reg [{len(inputs) - 1}:0] stimulus [0:{len(stimulus) - 1}];
  reg [{len(inputs) - 1}:0] given;
  wire [{len(outputs) - 1}:0] seen;
  {netlist.top} dut ({", ".join(connections)});
  integer cycle;
  initial begin
    $readmemb("stimulus.txt", stimulus);
    for (cycle = 0; cycle < {len(stimulus)}; cycle = cycle + 1) begin
      given = stimulus[cycle];
      #5 $display("%b", seen);
      clk = 1;
      #5 clk = 0;
    end
    $finish;
  end
endmodule
"""
    )
    run("iverilog", ["-g2005", "-o", "bench.vvp", "bench.v", "netlist.v", "cells.v", "gates.v"], folder)
    lines = [line for line in run("vvp", ["-n", "bench.vvp"], folder).splitlines() if line and set(line) <= set("01xz")]
    codes = {"0": 0, "1": 1, "x": UNKNOWN, "z": UNKNOWN}
    return np.array([[codes[bit] for bit in reversed(line)] for line in lines], np.uint8).reshape(len(stimulus), len(outputs))

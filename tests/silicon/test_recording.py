"""The RTL in Icarus: models of memory macros, and steps that leave what PyTorch leaves."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from tests.silicon.designs import Rows

from unmask.cli.sampling_run import sampling_run
from unmask.errors import UnmaskError
from unmask.rtl.speed import machine_of
from unmask.silicon.bench import model, rtl_verilog
from unmask.silicon.blocks import Design
from unmask.silicon.gates import Port
from unmask.silicon.recording import Run, record
from unmask.silicon.tools import run
from unmask.silicon.units import unit_named

SMALLEST = Path(__file__).with_name("smallest.toml")

BENCH = """
module bench;
  reg clk = 0, rst = 0;
  reg [6:0] address = 5;
  reg [7:0] data = 17;
  wire [7:0] direct, through;
  rows dut (.clk(clk), .rst(rst), .address(address), .data(data), .direct(direct), .through(through));
  initial begin
    #1 $display("%0d", direct);
    #1 clk = 1;
    #1 $display("%0d %0d", direct, through);
    data = 18;
    #1 clk = 0;
    #1 address = 6;
    #1 $display("%0d %0d", direct, through);
  end
endmodule
"""


def test_a_macro_is_read_as_its_ports_say(tmp_path: Path, iverilog: None) -> None:
    text, modules = rtl_verilog(Design(Rows(128), "rows"))
    assert modules["rows"]["ports"]["through"]["direction"] == "output"
    (tmp_path / "bench.v").write_text(text + BENCH)
    run("iverilog", ["-g2005", "-s", "bench", "-o", "bench.vvp", "bench.v"], tmp_path)
    # Before the edge nothing is there; the port with a clock sees what is written at the edge, and keeps it.
    assert run("vvp", ["-n", "bench.vvp"], tmp_path).split() == ["0", "17", "17", "0", "17"]


def test_words_of_a_mask_are_written_apart() -> None:
    text = model("unmask_sram_4x16_1r1w_0", {"clk": 1, "r0_en": 1, "r0_addr": 2, "r0_data": 16, "w0_mask": 2, "w0_addr": 2, "w0_data": 16})
    assert "if (w0_mask[1]) words[w0_addr][15:8] <= w0_data[15:8];" in text


@pytest.mark.slow
def test_a_step_on_the_rtl_is_recorded_and_a_wrong_token_noticed(tmp_path: Path, iverilog: None) -> None:
    machine = machine_of(str(SMALLEST))

    def port(name: str, width: int, direction: str) -> Port:
        return Port(name, direction, np.zeros(width, np.int32))

    inputs = [port("rst", 1, "input"), port("vector_sram.bank0__r0_data", 128, "input")]
    design = Design(unit_named("sampler").build(machine), "sampler")
    gates = cast(Any, SimpleNamespace(design=design, inputs=inputs, outputs=[port("busy", 1, "output")]))
    step = sampling_run(machine, "single-pass", 0.8, 32, 3)
    found = record(machine, [step], "a step", gates, tmp_path)
    assert found.after_reset(inputs) == 1
    assert 100 < found.outputs.sum() < len(found.outputs)
    assert found.inputs[:, 1:].any()
    with pytest.raises(UnmaskError, match="PyTorch"):
        record(machine, [Run(step.case, {"tokens": step.leaves["tokens"] + 1})], "a step", gates, tmp_path)

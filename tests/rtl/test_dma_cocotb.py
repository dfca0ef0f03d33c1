"""The cocotb bench of the load and the store engine, in Verilator."""

import os
import sysconfig
from pathlib import Path

import pytest
from cocotb_tools.runner import get_runner
from tests.rtl.cocotb_dma import ENGINES, shape_of
from tests.rtl.dma_bench import Flat
from tests.rtl.streaming import _verilog as verilog

ROOT = Path(__file__).resolve().parents[2]
VERILATOR = Path(sysconfig.get_path("purelib")) / "verilator"


@pytest.mark.slow
@pytest.mark.parametrize("name", ENGINES)
def test_the_cocotb_bench_passes(name, tmp_path, monkeypatch):
    engine = ENGINES[name]
    source = tmp_path / "unit.v"
    source.write_text(verilog(Flat(engine(shape_of(engine)), shape_of(engine))))
    monkeypatch.setenv("VERILATOR_ROOT", str(VERILATOR))
    monkeypatch.setenv("PATH", f"{VERILATOR / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "src")]))
    # Verilator's makefile wants to be told how to include its precompiled header; without optimisation the unit compiles in half the time.
    monkeypatch.setenv("MAKEFLAGS", "CFG_CXXFLAGS_PCH_I=-include OPT_FAST=-O0 OPT_GLOBAL=-O0")
    runner = get_runner("verilator")
    runner.build(
        sources=[source],
        hdl_toplevel="unit",
        build_dir=tmp_path / "build",
        build_args=["-Wno-fatal", "-Wno-lint", "--x-assign", "0", "-O1"],
        timescale=("1ns", "1ps"),
    )
    results = runner.test(
        test_module="tests.rtl.cocotb_dma",
        hdl_toplevel="unit",
        build_dir=tmp_path / "build",
        test_dir=tmp_path,
        extra_env={"UNMASK_ENGINE": name},
    )
    assert "<failure" not in results.read_text()

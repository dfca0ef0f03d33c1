"""Liberty: expressions, units, merging, and which flip-flop is used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unmask.errors import UnmaskError
from unmask.silicon.liberty import Library, load_library
from unmask.silicon.logic import truth_table

GATE = """library ({name}) {{ time_unit : "10ps"; leakage_power_unit : "1nW"; capacitive_load_unit (1,pf); {cells} }}"""
INVERTER = """cell (INV) { area : 1; pin (A) { direction : input; capacitance : 0.5; }
  pin (Y) { direction : output; function : "(!A)"; } }"""
REGISTER = """cell (%s) { area : %s; ff (IQ,IQN) { next_state : "D"; clocked_on : "CK"; } pin (D) { direction : input; }
  pin (CK) { direction : input; } pin (Q) { direction : output; function : "%s"; } }"""


@pytest.mark.parametrize(
    ("expression", "meaning"),
    [
        ("A B + C", lambda a, b, c: a & b | c),
        ("(A * !B) | C'", lambda a, b, c: a & ~b | ~c),
        ("!(A + B) ^ C", lambda a, b, c: ~(a | b) ^ c),
        ("A ^ B & C", lambda a, b, c: (a ^ b) & c),
        ("(!(A B))' + 0", lambda a, b, c: a & b),
    ],
)
def test_an_expression_means_what_liberty_says(expression: str, meaning: object) -> None:
    index = np.arange(8)
    a, b, c = ((index >> bit & 1).astype(bool) for bit in range(3))
    assert np.array_equal(truth_table(expression, ["A", "B", "C"]), meaning(a, b, c))  # type: ignore[operator]


@pytest.mark.parametrize("expression", ["A +", "(A", "A ? B", "D", "A B)"])
def test_a_broken_expression_is_refused(expression: str) -> None:
    with pytest.raises(UnmaskError, match="Liberty function"):
        truth_table(expression, ["A", "B"])


def write(folder: Path, **files: str) -> Path:
    for name, cells in files.items():
        (folder / f"{name}.lib").write_text(GATE.format(name=name, cells=cells))
    return folder


def test_the_files_of_a_folder_are_one_library(tmp_path: Path) -> None:
    registers = REGISTER % ("SMALL", 3, "IQ") + REGISTER % ("LARGE", 5, "IQ")
    library = load_library(write(tmp_path, gates=INVERTER, registers=registers), tmp_path)
    assert set(library.cells) == {"INV", "SMALL", "LARGE"}
    assert (library.time_unit, library.leakage_unit, library.capacitance_unit) == (1e-11, 1e-9, 1e-12)
    assert library.cells["SMALL"].sequential
    assert library.cells["INV"].area == 1


def test_the_smallest_flip_flop_counts_its_inverter(tmp_path: Path) -> None:
    inverted, plain = REGISTER % ("INVERTED", 3.5, "IQN"), REGISTER % ("PLAIN", 4, "IQ")
    text = load_library(write(tmp_path, kit=INVERTER + inverted + plain), tmp_path).registers.read_text()
    assert "PLAIN" in text
    assert "INVERTED" not in text


def test_no_liberty_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnmaskError, match="expected a Liberty file"):
        load_library(tmp_path, tmp_path)
    with pytest.raises(UnmaskError, match=r"missing\.lib"):
        load_library(tmp_path / "missing.lib", tmp_path)


def test_the_library_of_debian_is_understood(osu018: Library) -> None:
    assert osu018.time_unit == 1e-9
    assert osu018.cells["NAND2X1"].inputs == ["A", "B"]
    assert osu018.cells["DFFPOSX1"].plain
    assert not osu018.cells["DFFSR"].plain


def test_cells_that_only_lose_time_are_left_out(tmp_path: Path) -> None:
    buffers = "".join(
        f"cell ({name}) {{ area : {area}; pin (A) {{ direction : input; capacitance : 1; }} "
        'pin (Y) { direction : output; function : "A"; } }\n'
        for name, area in (("HB1xp67", 1), ("BUFx2", 2), ("BUFx3", 3), ("CLKDLYx1", 0.5))
    )
    cells = INVERTER + REGISTER % ("DFF", 3, "IQ") + buffers
    (tmp_path / "a.lib").write_text(GATE.format(name="a", cells=cells))
    library = load_library(tmp_path / "a.lib", tmp_path / "cache")
    assert {"BUFx2", "BUFx3", "DFF", "INV"} == set(library.cells)
    assert library.driver.name == "BUFx3"

"""Spaces of machines: their files, the values of their fields, and the machines that they make."""

from __future__ import annotations

from pathlib import Path

import pytest

from unmask import Machine, UnmaskError
from unmask.explore.describe import machine_text
from unmask.explore.fields import Varied
from unmask.explore.space import Space, read_space
from unmask.machine.config import presets

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "spaces").glob("*.toml"))


def space(**fields: object) -> Space:
    return Space(Machine.preset("small"), {name.replace("__", "."): Varied.model_validate(value) for name, value in fields.items()})


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_are_spaces(path: Path) -> None:
    described = read_space(path)
    found = Space(Machine.load(described.machine), described.fields)
    assert set(found.fields) == set(described.fields)
    assert len(found.distributions) >= 3


@pytest.mark.parametrize("name", presets())
def test_a_machine_s_text_is_that_machine(name: str, tmp_path: Path) -> None:
    machine = Machine.preset(name).model_copy(update={"description": 'a "quoted" \\ line\n\x7f'})
    path = tmp_path / "machine.toml"
    path.write_text(machine_text(machine, ("one remark",)))
    assert Machine.load(str(path)) == machine


def test_parameters_and_values_go_both_ways() -> None:
    found = space(
        vector__vlen={"powers_of_two": [16, 64]},
        matrix__rows={"range": [1, 7], "step": 2},
        clock_ghz={"range": [0.5, 1.5]},
        formats__kv=["mxint4", "mxint8"],
        vector__granule={"same_as": "vector.vlen"},
    )
    parameters = {"log2 vector.vlen": 5, "matrix.rows": 3, "clock_ghz": 0.75, "formats.kv": "mxint4"}
    assert found.distributions.keys() == parameters.keys()
    values = found.values(parameters)
    assert values == {"vector.vlen": 32, "matrix.rows": 3, "clock_ghz": 0.75, "formats.kv": "mxint4", "vector.granule": 32}
    machine = found.machine(values, "mine")
    assert (machine.name, machine.vector.vlen, machine.vector.granule, machine.matrix.rows) == ("mine", 32, 32, 3)
    assert (machine.clock_ghz, machine.formats.kv) == (0.75, "mxint4")
    assert machine.sram == found.base.sram
    first = Space(machine, found.fields).first
    assert first == parameters


def test_a_base_machine_outside_the_space_is_no_point_of_it() -> None:
    assert space(vector__vlen={"powers_of_two": [2048, 4096]}).first is None
    assert space(matrix__rows={"range": [100, 200]}).first is None
    assert space(formats__kv=["mxfp6"]).first is None
    assert space(matrix__rows=[1, 2], vector__vlen={"same_as": "matrix.rows"}).first is None


def test_values_that_are_no_machine_say_which() -> None:
    with pytest.raises(UnmaskError, match="matrix: mlen 3 is not a multiple of blen 2"):
        space(matrix__mlen=[3]).machine({"matrix.mlen": 3, "matrix.blen": 2})
    with pytest.raises(UnmaskError, match=r"vector.vlen: 48 is not a power of two"):
        space(vector__vlen=[48]).machine({"vector.vlen": 48})


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("machine = 'small'", "fields: Field required"),
        ("machine = 'small'\n[fields]\n", "fields: Dictionary should have at least 1 item"),
        ("machine = 'small'\nmodle = 'x'\n[fields]\n'matrix.rows' = [1]", "modle: Extra inputs"),
        (
            "machine = 'small'\n[fields]\n'matrix.rows' = { step = 1 }",
            "expected one of choices, powers_of_two, range and same_as, not none",
        ),
        ("machine = 'small'\n[fields]\n'matrix.rows' = { choices = [1], step = 1 }", "step belongs to range"),
        ("machine = 'small'\n[fields]\n'matrix.rows' = { powers_of_two = [1, 12] }", r"\[1, 12\]: expected two powers of two"),
        ("machine = 'small'\n[fields]\n'matrix.rows' = { range = [4, 1] }", "expected the lower bound first"),
        ("machine = 'small'\n[fields]\n'matrix.rows' = []", "fields.matrix.rows.choices"),
        ("machine = 'small'\n[fields]\n'matrix.rows' = [1]\n[limits]\nsram = 0", "limits.sram"),
        ("machine = ", "not TOML"),
    ],
)
def test_a_file_that_is_no_space_says_why(text: str, match: str, tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text(text)
    with pytest.raises(UnmaskError, match=match):
        read_space(path)


@pytest.mark.parametrize("name", ["matrix.row", "matrix", "nothing.rows", "hbm.overrides", "name.length"])
def test_a_name_that_is_no_field_is_told(name: str) -> None:
    with pytest.raises(UnmaskError, match=f"fields.{name}: no field of machine small that is one value"):
        Space(Machine.preset("small"), {name: Varied(choices=(1,))})


def test_a_field_that_is_the_same_as_nothing_is_told() -> None:
    with pytest.raises(UnmaskError, match=r"same_as 'matrix.blen': expected another varied field"):
        space(matrix__rows={"same_as": "matrix.blen"})


def test_a_machine_file_lies_beside_the_space(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(machine_text(Machine.preset("small")))
    (tmp_path / "space.toml").write_text("machine = 'own.toml'\n[fields]\n'matrix.rows' = [1, 2]")
    assert Machine.load(read_space(tmp_path / "space.toml").machine) == Machine.preset("small")

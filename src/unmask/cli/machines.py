"""`unmask machines`: the machines that ship, side by side, or one of them in full."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unmask.cli.options import JsonOption

if TYPE_CHECKING:
    from pydantic import BaseModel

    from unmask.machine.config import Machine


def machines(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show this one in full: a preset, or the path of a .toml file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the machines that programs can be compiled for."""
    from unmask.machine.config import Machine, presets

    if name is not None:
        machine = Machine.load(name)
        if as_json:
            print(json.dumps(_with_peak(machine)))
        else:
            _print_one(machine)
        return
    every = [Machine.preset(preset) for preset in presets()]
    if as_json:
        print(json.dumps([_with_peak(machine) for machine in every]))
    else:
        _print_table(every)


def _peak(machine: Machine) -> int:
    """Element products per cycle of a busy matrix engine: each sub-array finishes blen x blen over blen values of K in blen cycles."""
    return machine.matrix.rows * machine.matrix.mlen * machine.matrix.blen


def _with_peak(machine: Machine) -> dict[str, Any]:
    return {**machine.model_dump(), "peak_multiplies_per_cycle": _peak(machine)}


def _matrix_shape(machine: Machine) -> str:
    array = machine.matrix
    return f"{array.rows} x {array.mlen // array.blen} of {array.blen} x {array.blen}"


def _print_table(every: list[Machine]) -> None:
    table = Table("", *(escape(machine.name) for machine in every), box=None, pad_edge=False)
    rows: dict[str, list[str]] = {
        "clock": [f"{m.clock_ghz:g} GHz" for m in every],
        "matrix engine": [_matrix_shape(m) for m in every],
        "peak multiplies per cycle": [f"{_peak(m):,}" for m in every],
        "vector lanes": [f"{m.vector.vlen}" for m in every],
        "vector SRAM": [f"{m.sram.vector_kib:,} KiB" for m in every],
        "matrix SRAM": [f"{m.sram.matrix_kib:,} KiB" for m in every],
        "float SRAM": [f"{m.sram.float_words:,} words" for m in every],
        "integer SRAM": [f"{m.sram.integer_words:,} words" for m in every],
        "HBM": [f"{m.hbm.gib} GiB" for m in every],
        "HBM bandwidth": [f"{m.hbm.bytes_per_cycle * m.clock_ghz:g} GB/s each way" for m in every],
        "weights": [m.formats.weights for m in every],
        "activations": [m.formats.activations for m in every],
        "keys and values": [m.formats.kv for m in every],
    }
    for what, figures in rows.items():
        table.add_row(what, *figures)
    Console(highlight=False).print(table)


def _print_one(machine: Machine) -> None:
    table = Table("field", "value", "meaning", box=None, pad_edge=False)
    _add_fields(table, machine, "")
    table.add_row("peak", f"{_peak(machine):,}", "multiplies per cycle of a busy matrix engine")
    Console(highlight=False).print(table)


def _add_fields(table: Table, part: BaseModel, prefix: str) -> None:
    from pydantic import BaseModel

    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        if isinstance(value, BaseModel):
            _add_fields(table, value, f"{prefix}{name}.")
        else:
            table.add_row(f"{prefix}{name}", escape(f"{value:g}" if isinstance(value, float) else str(value)), field.description or "")

"""`unmask machines`: the machines that ship, side by side, or one of them in full."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unmask.cli.options import JsonOption
from unmask.errors import UnmaskError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from unmask.machine.config import Machine


def machines(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show this one in full: a preset, or the path of a .toml file.")
    ] = None,
    as_toml: Annotated[bool, typer.Option("--toml", help="Print NAME's machine file, to change and to give to --machine.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the machines that programs can be compiled for."""
    from unmask.explore.describe import machine_text
    from unmask.machine.config import Machine, presets

    if as_toml and (name is None or as_json):
        raise UnmaskError("--toml prints one machine's file; expected a NAME, and no --json")
    if name is not None:
        machine = Machine.load(name)
        if as_toml:
            print(machine_text(machine), end="")
        elif as_json:
            print(json.dumps(_with_peak(machine)))
        else:
            _print_one(machine)
        return
    every = [Machine.preset(preset) for preset in presets()]
    if as_json:
        print(json.dumps([_with_peak(machine) for machine in every]))
    else:
        _print_table(every)


def _with_peak(machine: Machine) -> dict[str, Any]:
    return {
        **machine.model_dump(),
        "peak_multiplies_per_cycle": machine.peak_multiplies,
        "peak_tops": machine.peak_tops,
        "memory_gbps": machine.memory_gbps,
    }


def _memory(machine: Machine) -> str:
    from unmask.machine.memory import Dram

    if not isinstance(machine.hbm, Dram):
        return "ideal"
    return f"{machine.hbm.devices} x {machine.hbm.device}"


def _print_table(every: list[Machine]) -> None:
    table = Table("", box=None, pad_edge=False)
    table.columns[0].no_wrap = True
    for what in ("GHz", "MX TOPS", "lanes", "vector KiB", "memory", "GB/s"):
        table.add_column(what, no_wrap=True)
    for m in every:
        figures = (f"{m.clock_ghz:g}", f"{m.peak_tops:,.1f}", f"{m.vector.vlen}", f"{m.sram.vector_kib}")
        table.add_row(escape(m.name), *figures, _memory(m), f"{m.memory_gbps:,.1f}")
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    for m in every:
        if m.gpu is not None:
            gpu, reach = m.gpu, f"{m.peak_tops:,.0f} MX TOPS and {m.memory_gbps:,.0f} GB/s"
            console.print(f"{escape(m.name)}: {reach}; {gpu.name}: {gpu.bf16_tflops:g} TFLOP/s dense BF16 and {gpu.memory_gbps:,g} GB/s")


def _print_one(machine: Machine) -> None:
    from unmask.machine.memory import Dram

    table = Table("field", "value", "meaning", box=None, pad_edge=False)
    _add_fields(table, machine, "")
    table.add_row("peak", f"{machine.peak_multiplies:,}", "multiplies per cycle of a busy matrix engine")
    table.add_row("", f"{machine.peak_tops:,.1f}", "TOPS of it, MX operands, a multiplication and an addition each")
    table.add_row("bandwidth", f"{machine.memory_gbps:,.1f}", "GB/s of the memory, as its data sheet has it")
    if isinstance(machine.hbm, Dram):
        _add_fields(table, machine.hbm.figures, f"{machine.hbm.device}.")
    Console(highlight=False).print(table)


def _add_fields(table: Table, part: BaseModel, prefix: str) -> None:
    from pydantic import BaseModel

    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        if isinstance(value, BaseModel):
            _add_fields(table, value, f"{prefix}{name}.")
        elif value is not None:
            table.add_row(f"{prefix}{name}", escape(f"{value:g}" if isinstance(value, float) else str(value)), field.description or "")

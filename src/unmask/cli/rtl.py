"""`unmask rtl`: the hardware as Verilog."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unmask.cli.synth import WHOLE, machine_for

rtl = typer.Typer(name="rtl", help="The hardware as Verilog.", no_args_is_help=True)


@rtl.callback()
def _rtl() -> None:
    """The hardware as Verilog."""


@rtl.command("emit")
def emit_unit(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to write to; made if it is not there.")],
    unit: Annotated[str, typer.Option(help="What to write: sampler, or npu, the whole machine.")] = "sampler",
    machine: Annotated[
        str | None, typer.Option(help="Preset or .toml file of the machine that the unit is built for; by default sampler or rtl-tiny.")
    ] = None,
    vlen: Annotated[int | None, typer.Option(help="Lanes, a power of two from 8 to 2048; by default the machine's.")] = None,
    black_box: Annotated[bool, typer.Option("--black-box", help="Leave the SRAMs to macros.")] = False,
    matrix_port: Annotated[bool, typer.Option("--matrix-port", help="Give the sampler the port that a matrix unit is driven by.")] = False,
) -> None:
    """Write a unit's Verilog, its port list, an integration note and the machine it was built for."""
    from unmask.rtl.emit import emit
    from unmask.rtl.speed import machine_of

    built = machine_of(machine_for(unit, machine), vlen, whole=unit in WHOLE)
    for path in emit(unit, built, output, black_box=black_box, matrix_port=matrix_port):
        print(path)

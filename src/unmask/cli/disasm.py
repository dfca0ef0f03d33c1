"""`unmask disasm`: a program file as assembly text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unmask.cli.files import load_program, write_text


def disasm(
    program: Annotated[Path, typer.Argument(metavar="PROGRAM", help="A program file.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file instead of standard output.")] = None,
) -> None:
    """Print a program as assembly, with a comment wherever the phase changes; `unmask asm` reads it back."""
    from unmask.isa.listing import listing

    write_text(listing(load_program(program)), output)

"""`unmask asm`: assembly text to a program file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unmask.cli.files import check_output, load_program, read_text
from unmask.errors import UnmaskError


def asm(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Assembly text, as `unmask disasm` prints it.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The program file to write.")],
    like: Annotated[Path, typer.Option(help="A program file: its memory content, regions and machine are kept.")],
) -> None:
    """Assemble text to a program that differs from another in its instructions only.

    Lines `# phase NAME` name the phase of what follows. Text without any keeps the other program's phases.
    """
    from unmask.isa.listing import assemble_like

    check_output(output)
    text, other = read_text(source), load_program(like)
    try:
        program = assemble_like(text, other)
    except UnmaskError as error:
        raise UnmaskError(f"{source}: {error}") from None
    program.save(output)
    typer.echo(f"{output}: {len(program.words):,} instructions")

"""`unmask isa`: the manual page of the instruction set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unmask.cli.files import write_text


def isa(output: Annotated[Path | None, typer.Option("--output", "-o", help="A file instead of standard output.")] = None) -> None:
    """Print the manual of the instruction set, as Markdown."""
    from unmask.isa.manual import manual

    write_text(manual(), output)

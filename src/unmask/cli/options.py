"""Options that several commands share: what to run, and on which machine. How to decode is in `unmask.cli.policy`."""

from __future__ import annotations

from typing import Annotated

import typer

Prompt = Annotated[str, typer.Argument(metavar="PROMPT", help="The text to continue.")]
MachineOption = Annotated[str, typer.Option("--machine", help="A preset (see `unmask machines`), or the path of a .toml file.")]
ModelOption = Annotated[str, typer.Option("--model", help="A shipped checkpoint's name, or a checkpoint folder.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]

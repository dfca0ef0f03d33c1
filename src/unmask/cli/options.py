"""Options that several commands share: what to run, and on which machine. How to decode is in `unmask.cli.policy`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Prompt = Annotated[str, typer.Argument(metavar="PROMPT", help="The text to continue.")]
MachineOption = Annotated[str, typer.Option("--machine", help="A preset (see `unmask machines`), or the path of a .toml file.")]
ModelOption = Annotated[str, typer.Option("--model", help="A shipped checkpoint's name, or a checkpoint folder.")]
SkipOption = Annotated[
    bool, typer.Option("--skip/--no-skip", help="Add up a loop's iterations once they repeat, instead of walking each: no figure changes.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]
Weights = Annotated[str | None, typer.Option(help="MX format of the weights; by default the checkpoint's or the machine's.")]
Activations = Annotated[str | None, typer.Option(help="MX format of the matrix engine's left operands.")]
Kv = Annotated[str | None, typer.Option(help="MX format of keys and values.")]
LogitsFormat = Annotated[str | None, typer.Option("--logits", help="Format of logits in memory: bf16 or an MX format.")]
SamplingOption = Annotated[
    str, typer.Option("--sampling", help="The program that samples: general, four-phase, single-pass or fused (see docs/sampling.md).")
]
SmoothingOption = Annotated[
    str | None,
    typer.Option("--smoothing", help="What keys and values are divided by before they are packed: none, baos, static, tensor ..."),
]
CostsOption = Annotated[
    Path | None, typer.Option("--costs", metavar="FILE", help="A .toml with the prices of energy and area to change (docs/energy.md).")
]

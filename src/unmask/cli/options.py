"""Options that several commands share: what to run, on which machine, and how to decode."""

from __future__ import annotations

from typing import Annotated

import typer

from unmask.decoding.policy import Remasking

DEFAULT_GEN_LENGTH = 64
DEFAULT_BLOCK_LENGTH = 32
DEFAULT_STEPS = 64
DEFAULT_TEMPERATURE = 0.7
DEFAULT_REMASKING: Remasking = "random"
DEFAULT_SEED = 3
"""Of the seeds from 3 to 8, one whose text of the shipped model reads well after "My fellow citizens,"."""

Prompt = Annotated[str, typer.Argument(metavar="PROMPT", help="The text to continue.")]
MachineOption = Annotated[str, typer.Option("--machine", help="A preset (see `unmask machines`), or the path of a .toml file.")]
ModelOption = Annotated[str, typer.Option("--model", help="A shipped checkpoint's name, or a checkpoint folder.")]
GenLength = Annotated[int, typer.Option(min=1, help="New tokens.")]
BlockLength = Annotated[int, typer.Option(min=1, help="Tokens per block, unmasked left to right; must divide --gen-length.")]
Steps = Annotated[int, typer.Option(min=1, help="Denoising steps in all, the same number for every block.")]
Temperature = Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token; above, Gumbel noise of that strength.")]
RemaskingOption = Annotated[
    Remasking, typer.Option("--remasking", help="What ranks a step's candidates: their probability, or a uniform draw.")
]
SuppressEos = Annotated[bool, typer.Option("--suppress-eos", help="Never take the end-of-text token.")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the noise; the same seed gives the same text.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]

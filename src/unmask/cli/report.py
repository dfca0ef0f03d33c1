"""`unmask report`: runs as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unmask.cli.files import check_output, write_text


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...", help="What generate, compare, sim, bench sampling, search and synth print with --json; traces of sim."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file, which needs no other and no network.")] = Path("report.html"),
) -> None:
    """Show runs as one HTML page: the canvas, time by phase, roofline, timeline, energy, the die, the GPU, the front of a search."""
    check_output(output)

    from unmask.report.html.page import page
    from unmask.report.html.runs import read_run

    write_text(page([read_run(path) for path in runs]), output)
    print(f"{output}: {len(runs)} run{'s' if len(runs) > 1 else ''}, {output.stat().st_size:,} bytes")

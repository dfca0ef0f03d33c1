"""`unmask formats`: the number formats, and how far the machine's functions are from the real ones."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from unmask.cli.options import JsonOption

if TYPE_CHECKING:
    from unmask.numerics.accuracy import Accuracy


def formats(
    checkpoint: Annotated[
        str | None,
        typer.Option(metavar="CHECKPOINT", help="Also measure what each MX format does to the matrices of this checkpoint."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the number formats, and measure the machine's functions over every BF16 number."""
    from unmask.numerics.accuracy import measure

    rows = _formats()
    if checkpoint is not None:
        for name, error in _weight_errors(checkpoint).items():
            rows[name]["weight_error"] = error
    measured = measure()
    if as_json:
        print(json.dumps({"formats": list(rows.values()), "functions": [asdict(accuracy) for accuracy in measured]}))
        return
    console = Console(highlight=False)
    console.print(_format_table(rows, checkpoint))
    console.print(_function_table(measured))


def _formats() -> dict[str, dict[str, Any]]:
    """What is to say of each format, by its name."""
    from unmask.numerics import mx

    bf16 = {"name": "bf16", "element": "bf16", "element_bits": 16, "block": 1, "bits_per_value": 16.0}
    bf16 |= {"max": (2 - 2.0**-7) * 2.0**127, "min_normal": 2.0**-126, "min_positive": 2.0**-133}
    rows: dict[str, dict[str, Any]] = {"bf16": bf16}
    for name, form in mx.FORMATS.items():
        element = form.element
        rows[name] = {
            "name": name,
            "element": element.name,
            "element_bits": element.bits,
            "block": mx.BLOCK,
            "bits_per_value": form.bits_per_element,
            "max": element.max,
            "min_normal": 2.0**element.emin if element.kind == "float" else None,
            "min_positive": 2.0**-element.fraction,
        }
    return rows


def _weight_errors(checkpoint: str) -> dict[str, float]:
    from unmask.numerics import mx
    from unmask.quant.error import weight_errors

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("measuring", total=None)
        return weight_errors(checkpoint, mx.FORMATS, lambda done, whole: progress.update(task, completed=done, total=whole))


def _format_table(rows: dict[str, dict[str, Any]], checkpoint: str | None) -> Table:
    columns = ["format", "element", "bits/value", "block", "largest", "least normal", "least positive"]
    table = Table(box=None, pad_edge=False, title="of an element, before its block's scale of 2^-127 to 2^127", title_justify="left")
    for column in columns + ([] if checkpoint is None else ["error of weights"]):
        table.add_column(column, justify="left" if column in ("format", "element") else "right", no_wrap=True)
    for row in rows.values():
        normal = "-" if row["min_normal"] is None else f"{row['min_normal']:g}"
        sizes = [f"{row['bits_per_value']:g}", str(row["block"]), f"{row['max']:g}", normal, f"{row['min_positive']:g}"]
        errors = [] if checkpoint is None else [f"{row['weight_error']:.3%}" if "weight_error" in row else "-"]
        table.add_row(row["name"], row["element"], *sizes, *errors)
    return table


def _function_table(measured: list[Accuracy]) -> Table:
    table = Table(box=None, pad_edge=False, title="\nlargest errors over every finite BF16 number", title_justify="left")
    for column in ("function", "result", "where", "inputs", "ulp", "relative", "absolute"):
        table.add_column(column, justify="right" if column in ("inputs", "ulp", "relative", "absolute") else "left", no_wrap=True)
    for a in measured:
        table.add_row(a.name, a.result, a.domain, f"{a.count:,}", f"{a.ulp:.4f}", f"{a.relative:.2e}", f"{a.absolute:.2e}")
    return table

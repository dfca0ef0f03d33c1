"""`unmask quantize`: a checkpoint's matrices packed to a machine's number formats."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from unmask.cli.options import JsonOption


def quantize(
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="A checkpoint folder, or the name of a shipped one.")],
    output: Annotated[Path, typer.Option(help="The folder to make.")],
    weights: Annotated[str, typer.Option(help="Format of every matrix; `unmask formats` lists the MX formats.")],
    activations: Annotated[str, typer.Option(help="Format of activations on the machine that runs it; recorded.")] = "mxint8",
    kv: Annotated[str, typer.Option(help="Format of keys and values; recorded.")] = "mxint8",
    logits: Annotated[str, typer.Option(help="Format of logits in HBM, an MX format or bf16; recorded.")] = "bf16",
    embedding: Annotated[str, typer.Option(help="Format of the embedding table, an MX format or bf16.")] = "bf16",
    as_json: JsonOption = False,
) -> None:
    """Write a machine checkpoint; one that was interrupted goes on when the command is given again."""
    from unmask.quant.checkpoint import quantize_checkpoint
    from unmask.quant.layout import CheckpointFormats

    formats = CheckpointFormats(weights, activations, kv, logits, embedding)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    done, whole = 0, 0
    try:
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            task = progress.add_task("quantizing", total=None)

            def report(now: int, of: int) -> None:
                nonlocal done, whole
                done, whole = now, of
                progress.update(task, completed=now, total=of)

            result = quantize_checkpoint(checkpoint, output, formats, report)
    except KeyboardInterrupt:
        share = f" after {done / whole:.0%} of the checkpoint" if whole else ""
        typer.echo(f"unmask: stopped{share}; the same command goes on from the last finished file", err=True)
        raise typer.Exit(130) from None
    speed = result.converted_bytes / 1e6 / result.seconds
    if as_json:
        facts = {**asdict(result), "folder": str(result.folder), "formats": asdict(formats), "source_megabytes_per_second": speed}
        print(json.dumps(facts))
        return
    print(f"{result.packed:,} tensors in {weights}, {result.kept:,} in bf16{'' if embedding == 'bf16' else f', embedding in {embedding}'}")
    print(f"{result.source_bytes:,} bytes of weights are now {result.stored_bytes:,}")
    print(f"{result.converted_bytes:,} bytes converted in {result.seconds:.1f} s, {speed:,.0f} MB/s")
    print(f"machine checkpoint in {result.folder}")

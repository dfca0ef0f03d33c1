"""`unmask bench sampling`: the sampling of one denoising step, by each of its programs, beside the published figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unmask.cli.energy import show_costs
from unmask.cli.options import CostsOption, JsonOption, MachineOption, SkipOption
from unmask.cli.printed import print_json

if TYPE_CHECKING:
    from unmask.compiler.sampling.published import Published


def sampling(
    machine: MachineOption = "published-2048",
    batch: Annotated[int, typer.Option("--batch", help="Sequences.", min=1)] = 16,
    block: Annotated[int, typer.Option("--block", help="Positions of a sequence.", min=1)] = 32,
    vocab: Annotated[int, typer.Option("--vocab", help="Tokens of the vocabulary.", min=1)] = 126464,
    program: Annotated[
        str, typer.Option("--program", help="four-phase, single-pass, fused, or general (the policies' own).")
    ] = "single-pass",
    temperature: Annotated[float, typer.Option("--temperature", help="Of Gumbel noise; 0 for the arg-max.", min=0)] = 0.0,
    chunk: Annotated[int | None, typer.Option("--chunk", help="Logits of each of the two buffers of four-phase.")] = None,
    width: Annotated[int, typer.Option("--width", help="Of the hidden states before the LM head (fused).", min=1)] = 4096,
    plot: Annotated[Path | None, typer.Option("--plot", help="Also draw how time scales, as PNG files in this folder.")] = None,
    costs: CostsOption = None,
    skip: SkipOption = True,
    as_json: JsonOption = False,
) -> None:
    """Time the sampling of one denoising step. Nothing is sampled: time does not depend on values."""
    from unmask.compiler.sampling.measure import measure
    from unmask.compiler.sampling.published import SOURCE, published
    from unmask.compiler.sampling.streamed import sampling_named
    from unmask.compiler.sampling.workload import Workload, sampling_program
    from unmask.machine.config import Machine
    from unmask.silicon.cost.events import count_events
    from unmask.silicon.cost.figures import cost_figures
    from unmask.silicon.cost.table import load_costs

    target, prices, work = Machine.load(machine), load_costs(costs), Workload(batch, block, vocab, temperature, width)
    found = measure(work, target, program, chunk, skip=skip)
    ran = sampling_program(work, target, sampling_named(program), chunk)
    found |= cost_figures(count_events(ran, target, found["cycles"], found["hbm_bytes_by_engine"]), prices)
    theirs = published(target.vector.vlen, batch, block, vocab)
    if theirs is not None:
        found["published"] = {"source": SOURCE, **vars(theirs)}
    if plot is not None:
        from unmask.cli.sampling_plots import draw

        found["plots"] = [str(path) for path in draw(plot, target, program)]
    if as_json:
        print_json(found)
    else:
        _print(found, theirs)


def _print(found: dict[str, Any], theirs: Published | None) -> None:
    from unmask.compiler.sampling.published import SOURCE

    console = Console(highlight=False)
    console.print(
        f"sampling, program {found['program']}: batch {found['batch']}, block {found['block']}, vocabulary {found['vocabulary']:,}, "
        f"temperature {found['temperature']:g}, machine {escape(found['machine'])}, logits {found['logits']}"
    )
    alone = ", sampling alone" if found["program"] == "fused" else ""
    table = Table("", "here", *([f"published, {SOURCE}{alone}"] if theirs else []), box=None, pad_edge=False)

    def row(what: str, here: str, there: str = "") -> None:
        table.add_row(what, here, *([there] if theirs else []))

    row("latency", f"{found['ms']:.4f} ms", f"{theirs.ms:g} ms" if theirs else "")
    row("cycles", f"{found['cycles']:,}", f"{theirs.cycles:,}" if theirs and theirs.cycles else "")
    for part, cycles in found["breakdown"].items():
        there = theirs.breakdown.get(part) if theirs and theirs.breakdown else None
        row(f"  {part}", f"{cycles:,} ({cycles / found['cycles']:.1%})", "" if there is None else f"{there:,}")
    row("moved over HBM", f"{found['hbm_bytes']:,} bytes")
    row("memory bound", f"{found['bound_ms']:.4f} ms")
    for memory, used in found["sram_bytes"].items():
        sizes = {"vector": "8 MB", "float": f"{theirs.float_kb} kB", "integer": f"{theirs.integer_kb} kB"} if theirs else {}
        row(f"{memory} SRAM used", f"{used:,} bytes", f"{sizes[memory]} there is" if sizes else "")
    if "lm_head_cycles" in found:
        row("LM head alone", f"{found['lm_head_cycles']:,} cycles")
        row("sampling adds", f"{found['added']:.2%}")
    console.print(table)
    console.print()
    show_costs(found, console)
    for path in found.get("plots", ()):
        console.print(f"wrote {escape(path)}", soft_wrap=True)

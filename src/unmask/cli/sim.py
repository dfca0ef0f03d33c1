"""`unmask sim`: how long a whole generation takes on a machine, without weights or values."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from unmask.cli import options
from unmask.cli.files import check_output
from unmask.cli.policy import policy_from, takes_policy
from unmask.cli.printed import print_json, typed
from unmask.errors import UnmaskError
from unmask.report.plots import check_plots, write_plots

PANEL = "Decoding"
TRACED = ("model", "batch", "prompt", "generate", "block", "formats", "policy", "assumptions")
"""What a trace says of the generation."""


class Reading(StrEnum):
    """How the programs are timed."""

    CYCLE = "cycle"
    ANALYTIC = "analytic"


@takes_policy
def sim(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="llada-8b, dream-7b, llada-moe-7b-a1b, a shipped checkpoint or a folder with a config.json."),
    ],
    machine: options.MachineOption = "small",
    batch: Annotated[int, typer.Option(help="Sequences that are decoded side by side.", min=1)] = 1,
    prompt: Annotated[int, typer.Option(help="Tokens of each prompt.", min=1)] = 512,
    gen_length: Annotated[
        int, typer.Option("--generate", "--gen-length", help="New tokens of each sequence.", min=1, rich_help_panel=PANEL)
    ] = 256,
    block_length: Annotated[
        int | None,
        typer.Option("--block", "--block-length", help="Tokens per block; by default the policy's.", min=1, rich_help_panel=PANEL),
    ] = None,
    tokens_per_step: Annotated[
        float | None,
        typer.Option(help="Of --commit threshold and factor: how many tokens a step commits on average, an assumption; by default 1."),
    ] = None,
    weights: options.Weights = None,
    activations: options.Activations = None,
    kv: options.Kv = None,
    logits: options.LogitsFormat = None,
    smoothing: options.SmoothingOption = None,
    sampling: options.SamplingOption = "general",
    plot: Annotated[Path | None, typer.Option(help="A folder for a roofline and the phases of each kind of step, PNG and HTML.")] = None,
    trace: Annotated[
        Path | None, typer.Option(help="A Chrome trace of each kind of step, under 50 MB: engines, phases, memories; see `unmask trace`.")
    ] = None,
    trace_window: Annotated[
        str, typer.Option(metavar="START:END", help="Cycles of each step to trace; by default as many from its beginning as fit.")
    ] = ":",
    reading: Annotated[
        Reading, typer.Option(help="cycle: exact. analytic: in closed form, within some percent of it and in milliseconds.")
    ] = Reading.CYCLE,
    costs: options.CostsOption = None,
    skip: options.SkipOption = True,
    as_json: options.JsonOption = False,
    **decoding: Any,
) -> None:
    """Time a whole generation of MODEL: every step, every layer, warm and refine steps of the cache, sampling.

    Each kind of step is compiled from the model's sizes and timed once. The policy is LLaDA's unless another is named.
    """
    policy = policy_from(decoding | {"policy": decoding["policy"] or "llada", "gen_length": gen_length, "block_length": block_length})

    if plot is not None:
        check_plots(plot)
    if trace is not None:
        if reading is not Reading.CYCLE:
            raise UnmaskError(f"--trace shows instructions one by one, which the {reading} reading does not time; expected --reading cycle")
        check_output(trace)

    from unmask.cli.sim_tables import show
    from unmask.cli.target import target_machine
    from unmask.compiler.analytic import ASSUMPTION, estimate_generation
    from unmask.compiler.generation import time_generation
    from unmask.compiler.sampling.streamed import sampling_named
    from unmask.models.catalogue import architecture, catalogue
    from unmask.report.costs import of_generation
    from unmask.report.generation import figures
    from unmask.report.trace import Window, steps_of, write_trace
    from unmask.silicon.cost.table import load_costs

    window, prices = Window.parse(trace_window), load_costs(costs)
    shape = architecture(model)
    formats = {"weights": weights, "activations": activations, "kv": kv, "logits": logits, "smoothing": smoothing}
    target = target_machine(machine, None if model in catalogue() else model, formats)
    timed = partial(time_generation, skip=skip) if reading is Reading.CYCLE else estimate_generation
    done = timed(shape, policy, target, prompt, batch, tokens_per_step, sampling_named(sampling))
    found = {"model": model, "reading": reading.value, **figures(done), **of_generation(done, prices)}
    if reading is Reading.ANALYTIC:
        found["assumptions"].append(ASSUMPTION)
    if plot is not None:
        found["plots"] = [str(path) for path in write_plots(found, plot)]
    if trace is not None:
        drawn = write_trace(trace, steps_of(done), target, window, {"command": typed()} | {name: found[name] for name in TRACED})
        found["trace"] = {"file": str(trace), "steps": {name: step._asdict() for name, step in drawn.items()}}
    if as_json:
        print_json(found)
    else:
        show(found)
        for path in found.get("plots", ()):
            print(path)
        if trace is not None:
            print(f"{trace}: `unmask trace {trace}` shows it")

"""`unmask gpu`: the model of a GPU beside published measurements, and measurements of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unmask.cli import options
from unmask.cli.files import check_output
from unmask.cli.policy import policy_from, takes_policy

if TYPE_CHECKING:
    from unmask.baselines.measured import MeasuredProfile
    from unmask.baselines.profile import Check
    from unmask.baselines.published import Comparison

gpu = typer.Typer(help="The GPU that a machine is held against: its cost model, and measuring one.", no_args_is_help=True)
GpuOption = Annotated[str, typer.Option("--gpu", help="a6000, a100, h100, or the path of a .toml file with a data sheet.")]


@gpu.command("check")
def check_profile(
    profile: Annotated[Path, typer.Argument(metavar="CSV", help="Columns layer_name, input, kv_cache, tp_size, latency(ns).")],
    gpu: GpuOption = "a6000",
    least: Annotated[int, typer.Option(help="Shortest input that counts.", min=1)] = 16,
    most: Annotated[int, typer.Option(help="Longest input that counts.", min=1)] = 2048,
    as_json: options.JsonOption = False,
) -> None:
    """Hold the model of a GPU against a published profile of Llama-3.1-8B, layer by layer, and against published dLLM figures."""
    from unmask.baselines.gpu import Gpu
    from unmask.baselines.profile import check, read_profile
    from unmask.baselines.published import comparisons

    found = check(Gpu.load(gpu), read_profile(profile), least, most)
    published = comparisons()
    if as_json:
        print(json.dumps({"gpu": found.gpu.name, **_figures(found, least, most), "published": [_beside(one) for one in published]}))
        return
    console = Console(highlight=False)
    table = Table("layer", box=None, pad_edge=False)
    for title in ("error, %", "bias, %", "worst, %", "at length"):
        table.add_column(title, justify="right")
    for layer, figures in _by_layer(found).items():
        table.add_row(layer, *(f"{figures[name]:.2f}" for name in ("mape", "bias", "worst")), str(figures["worst_length"]))
    table.add_row("all", f"{found.mape:.2f}")
    missing = _missing(found)
    console.print(f"{escape(found.gpu.name)}, lengths {least} to {most}, mean absolute error. Coefficients: {escape(found.gpu.fit.source)}")
    console.print(table)
    if missing:
        console.print(f"Without {', '.join(missing)}: the profile has none of these lengths.")
    _print_published(console, published)


@gpu.command("measure")
@takes_policy
def measure_gpu(
    model: Annotated[str, typer.Option("--model", help="A published model, built at its full size with random weights.")] = "llada-8b",
    batch: Annotated[int, typer.Option(help="Sequences that are decoded side by side.", min=1)] = 1,
    prompt: Annotated[int, typer.Option(help="Tokens of each prompt.", min=1)] = 512,
    gen_length: Annotated[int, typer.Option("--generate", "--gen-length", help="New tokens of each sequence.", min=1)] = 256,
    repeats: Annotated[int, typer.Option(help="Generations that are timed, after one that is not.", min=1)] = 3,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Where the profile goes, JSON.")] = None,
    as_json: options.JsonOption = False,
    **decoding: Any,
) -> None:
    """Measure the PyTorch reference on this machine's CUDA device, transformer and sampling of every kind of step apart.

    The policy is LLaDA's unless another is named.
    """
    policy = policy_from(decoding | {"policy": decoding["policy"] or "llada", "gen_length": gen_length})
    if output is not None:
        check_output(output)

    from unmask.baselines.measure import measure, require_cuda

    require_cuda()
    profile = measure(model, policy, prompt, batch, repeats)
    if output is not None:
        profile.write(output)
    if as_json:
        print(profile.model_dump_json())
    else:
        _print_measured(profile, output)


def _figures(found: Check, least: int, most: int) -> dict[str, Any]:
    return {
        "lengths": [least, most],
        "mape": found.mape,
        "mape_by_layer": found.mape_by_layer,
        "by_layer": _by_layer(found),
        "layers_missing": _missing(found),
        "measurements": len(found.predictions),
        "fit": found.gpu.fit.source,
        "command": found.gpu.fit.command,
    }


def _missing(found: Check) -> list[str]:
    from unmask.baselines.profile import LAYERS

    return [layer for layer in LAYERS if layer not in found.mape_by_layer]


def _by_layer(found: Check) -> dict[str, dict[str, float]]:
    figures = {}
    for layer, mape in found.mape_by_layer.items():
        own = [one for one in found.predictions if one.measured.layer == layer]
        worst = max(own, key=lambda one: abs(one.error))
        bias = 100 * sum(one.error for one in own) / len(own)
        figures[layer] = {"mape": mape, "bias": bias, "worst": 100 * worst.error, "worst_length": worst.measured.tokens}
    return figures


def _beside(one: Comparison) -> dict[str, Any]:
    return {**vars(one), "error": one.error}


def _print_published(console: Console, published: list[Comparison]) -> None:
    console.print("\nPublished figures that nothing is fitted to")
    for source in dict.fromkeys(one.source for one in published):
        table = Table("  assumed", box=None, pad_edge=False)
        for title in ("published", "model", "error, %"):
            table.add_column(title, justify="right", no_wrap=True)
        for one in (one for one in published if one.source == source):
            figures = f"{one.published:.3g} {one.unit}", f"{one.predicted:.3g} {one.unit}", f"{100 * one.error:+.0f}"
            table.add_row(f"  {escape(one.assumed)}", *figures)
        console.print(escape(source))
        console.print(table)


def _print_measured(profile: MeasuredProfile, output: Path | None) -> None:
    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False)
    for title in ("batch", "rows", "keys", "head rows", "transformer, ms", "sampling, ms", "steps"):
        table.add_column(title, justify="right")
    for step in profile.steps:
        sizes = (str(size) for size in step.kind)
        table.add_row(*sizes, f"{1e3 * step.transformer_s:.3f}", f"{1e3 * step.sampling_s:.3f}", str(step.repeats))
    power = "" if profile.power_w is None else f", {profile.power_w:.0f} W"
    console.print(f"{escape(profile.device)}, {profile.model}, {profile.dtype}, medians{power}")
    console.print(table)
    if output is not None:
        console.print(f"{escape(str(output))}: the profile")

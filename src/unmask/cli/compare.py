"""`unmask compare`: a machine beside a GPU on the same generation."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from unmask.cli import options
from unmask.cli.gpu import GpuOption
from unmask.cli.policy import policy_from, takes_policy
from unmask.cli.printed import print_json
from unmask.cli.sim import PANEL, Reading
from unmask.errors import UnmaskError


class Softmax(StrEnum):
    """Dtype in which the GPU computes confidences."""

    BF16 = "bf16"
    FP32 = "fp32"
    FP64 = "fp64"


@takes_policy
def compare(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="llada-8b, dream-7b, llada-moe-7b-a1b, a shipped checkpoint or a folder with a config.json."),
    ],
    machine: options.MachineOption = "a6000-class",
    gpu: GpuOption = "a6000",
    batch: Annotated[int, typer.Option(help="Sequences that are decoded side by side.", min=1)] = 16,
    prompt: Annotated[int, typer.Option(help="Tokens of each prompt.", min=1)] = 128,
    gen_length: Annotated[
        int, typer.Option("--generate", "--gen-length", help="New tokens of each sequence.", min=1, rich_help_panel=PANEL)
    ] = 128,
    block_length: Annotated[
        int | None,
        typer.Option("--block", "--block-length", help="Tokens per block; by default the policy's.", min=1, rich_help_panel=PANEL),
    ] = None,
    tokens_per_step: Annotated[
        float | None, typer.Option(help="Of --commit threshold and factor: tokens that a step commits on average; by default 1.")
    ] = None,
    profile: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of `unmask gpu measure`: measured steps, which replace the model's.")
    ] = None,
    softmax: Annotated[Softmax, typer.Option("--gpu-softmax", help="Dtype of the GPU's confidences.")] = Softmax.BF16,
    weights: options.Weights = None,
    activations: options.Activations = None,
    kv: options.Kv = None,
    logits: options.LogitsFormat = None,
    smoothing: options.SmoothingOption = None,
    sampling: options.SamplingOption = "general",
    reading: Annotated[
        Reading, typer.Option(help="Of the machine. analytic: in closed form, within some percent. cycle: exact, in minutes.")
    ] = Reading.ANALYTIC,
    costs: options.CostsOption = None,
    as_json: options.JsonOption = False,
    **decoding: Any,
) -> None:
    """Hold a machine against a GPU: the same model, policy, batch and lengths on both, and the published NPU's gains beside them.

    The GPU is modelled kernel by kernel as PyTorch runs it, or measured where --profile says so. The policy is LLaDA's unless another is
    named.
    """
    policy = policy_from(decoding | {"policy": decoding["policy"] or "llada", "gen_length": gen_length, "block_length": block_length})

    from unmask.baselines.gpu import Gpu
    from unmask.baselines.measured import MeasuredProfile
    from unmask.cli.compare_tables import show
    from unmask.cli.target import target_machine
    from unmask.compiler.analytic import ASSUMPTION, estimate_generation
    from unmask.compiler.generation import GenerationTime, time_generation
    from unmask.compiler.sampling.streamed import sampling_named
    from unmask.machine.config import Machine
    from unmask.models.catalogue import architecture, catalogue
    from unmask.report import comparison
    from unmask.silicon.cost.table import load_costs

    yardstick, prices = Gpu.load(gpu), load_costs(costs)
    measured = None if profile is None else MeasuredProfile.read(profile)
    if measured is not None and measured.model != model:
        raise UnmaskError(f"{profile}: a profile of {measured.model}; expected one of {model}")
    formats = {"weights": weights, "activations": activations, "kv": kv, "logits": logits, "smoothing": smoothing}
    shape = architecture(model)
    target = target_machine(machine, None if model in catalogue() else model, formats)
    work = comparison.Workload(shape, policy, prompt, batch, tokens_per_step, sampling_named(sampling))
    read = time_generation if reading is Reading.CYCLE else estimate_generation

    def timed(on: Machine) -> GenerationTime:
        return partial(read, work.shape, policy)(on, prompt, batch, tokens_per_step, work.sampling)

    found = comparison.compare(work, target, yardstick, timed, prices, softmax.value, measured)
    if reading is Reading.ANALYTIC:
        found["assumptions"].append(ASSUMPTION)
    found = {"model": model, "reading": reading.value} | found
    found["sim"] = {"model": model, "reading": reading.value} | found["sim"]
    if as_json:
        print_json(found)
    else:
        show(found)

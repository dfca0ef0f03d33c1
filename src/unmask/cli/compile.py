"""`unmask compile`: a prompt's denoising step as a program file."""

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
from unmask.cli.target import diffusion_network, target_machine
from unmask.cli.text import encode_prompt

if TYPE_CHECKING:
    from unmask.isa.program import Program
    from unmask.machine.config import Machine


@takes_policy
def compile_prompt(
    prompt: options.Prompt,
    output: Annotated[Path, typer.Option("--output", "-o", help="The program file to write.")],
    machine: options.MachineOption = "small",
    model: options.ModelOption = "sotu",
    weights: options.Weights = None,
    activations: options.Activations = None,
    kv: options.Kv = None,
    logits: options.LogitsFormat = None,
    smoothing: options.SmoothingOption = None,
    sampling: options.SamplingOption = "general",
    as_json: options.JsonOption = False,
    **decoding: Any,
) -> None:
    """Compile the denoising step that continues PROMPT to a program file; `unmask run` runs it.

    The program fits every prompt of as many tokens."""
    policy = policy_from(decoding)
    check_output(output)

    from unmask.compiler.lower import compile_step
    from unmask.compiler.sampling.streamed import sampling_named
    from unmask.machine.cycle import time_program
    from unmask.models.checkpoint import resolve_checkpoint, shipped_checkpoints
    from unmask.models.tokenizer import load_tokenizer
    from unmask.quant.smoothing.static import scales_for

    target = target_machine(
        machine, model, {"weights": weights, "activations": activations, "kv": kv, "logits": logits, "smoothing": smoothing}
    )
    network = diffusion_network(model)
    ids = encode_prompt(prompt, load_tokenizer(model), (network.config.mask_token_id, network.config.eos_token_id))
    scales = scales_for(target.formats.smoothing, model, network)
    program = compile_step(network, policy, target, len(ids), kv_scales=scales, sampling=sampling_named(sampling))
    checkpoint = model if model in shipped_checkpoints() else str(resolve_checkpoint(model).resolve())
    program.about |= {"checkpoint": checkpoint, "prompt_ids": ids}
    cycles = {entry: time_program(program.entry(entry), target).cycles for entry in program.entries}
    program.save(output)
    summary = _summary(program, target, cycles, output) | {"checkpoint": checkpoint, "prompt_ids": ids, "steps": policy.steps}
    if as_json:
        print(json.dumps(summary))
    else:
        _print(summary)


def _summary(program: Program, machine: Machine, cycles: dict[str, int], path: Path) -> dict[str, Any]:
    from unmask.compiler.context import capacities

    return {
        "path": str(path),
        "machine": machine.name,
        "instructions": len(program.words),
        "instruction_bytes": program.words.nbytes,
        "file_bytes": path.stat().st_size,
        "hbm_bytes": program.hbm_bytes,
        "positions": program.about["positions"],
        "sram_high_water": program.about["sram_high_water"],
        "sram_capacity": capacities(machine),
        "entries": {
            entry: {"instructions": end - first, "row_tile": program.about["row_tiles"][entry], "cycles_per_step": cycles[entry]}
            for entry, (first, end) in program.entries.items()
        },
    }


def _print(summary: dict[str, Any]) -> None:
    table = Table("program", escape(summary["path"]), box=None, pad_edge=False)
    table.add_row("machine", escape(summary["machine"]))
    table.add_row("instructions", f"{summary['instructions']:,} ({summary['instruction_bytes']:,} bytes)")
    table.add_row("file", f"{summary['file_bytes']:,} bytes, weights included")
    table.add_row("HBM", f"{summary['hbm_bytes']:,} bytes")
    for name, used in summary["sram_high_water"].items():
        memory, unit = name.split("_")
        table.add_row(f"{memory} SRAM", f"{used:,} of {summary['sram_capacity'][name]:,} {unit}")
    for entry, step in summary["entries"].items():
        tile = step["row_tile"]
        height = f"{tile['rows']} rows" + (f" of {tile['sequences']} sequences" if tile["sequences"] > 1 else "")
        table.add_row(f"step {entry}", f"{step['cycles_per_step']:,} cycles, {step['instructions']:,} instructions, tiles of {height}")
    table.add_row("steps", f"{summary['steps']:,}")
    Console(highlight=False, soft_wrap=True).print(table)

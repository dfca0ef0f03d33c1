"""`unmask run`: simulate a program file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from unmask.cli.options import JsonOption
from unmask.errors import UnmaskError

if TYPE_CHECKING:
    from unmask.isa.program import Program
    from unmask.models.tokenizer import Tokenizer


def run_program(
    path: Annotated[Path, typer.Argument(metavar="PROGRAM", help="A program file of `unmask compile`.")],
    prompt: Annotated[str | None, typer.Argument(help="Another prompt of as many tokens; by default the one compiled for.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**32 - 1, help="Of the noise; by default the one compiled in.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Generate on the simulated machine from a program file alone: weights, machine and decoding policy are inside."""
    from unmask.compiler.host import simulate
    from unmask.isa.program import Program

    program = Program.load(path)
    if missing := {"model", "policy", "positions"} - program.about.keys():
        raise UnmaskError(f"{path}: not a program of `unmask compile`: it does not state its {', '.join(sorted(missing))}")
    tokenizer, reason = _tokenizer(program)
    if prompt is None:
        ids = program.about.get("prompt_ids")
        if ids is None:
            raise UnmaskError(f"{path}: the program holds no prompt; give one")
    elif tokenizer is None:
        raise UnmaskError(f"cannot read the prompt: {reason}")
    else:
        ids = tokenizer.encode(prompt)
    with Progress(console=Console(stderr=True), transient=True, disable=as_json) as progress:
        task = progress.add_task("denoising", total=program.about["policy"]["steps"])
        done = simulate(program, ids, seed=seed, on_step=lambda _: progress.advance(task))
    tokens, eos = done.new_tokens, program.about["model"]["eos_token_id"]
    kept = tokens[: tokens.index(eos)] if eos in tokens else tokens
    result = {
        "text": None if tokenizer is None else tokenizer.decode(kept),
        "no_text_because": reason,
        "tokens": tokens,
        "seed": done.policy.seed if seed is None else seed,
        "steps": len(done.steps),
        "machine": done.machine.name,
        "clock_ghz": done.machine.clock_ghz,
        "cycles": done.cycles,
        "seconds_at_clock": done.seconds,
        "tokens_per_second": len(tokens) / done.seconds,
        "cycles_by_engine": done.total(done.step_timing.busy),
        "cycles_by_phase": done.total(done.step_timing.phases),
    }
    if as_json:
        print(json.dumps(result))
    else:
        _print(result)


def _tokenizer(program: Program) -> tuple[Tokenizer | None, str | None]:
    """The tokenizer of the checkpoint that a program was compiled from, or why there is none."""
    from unmask.models.tokenizer import load_tokenizer

    checkpoint = program.about.get("checkpoint")
    if checkpoint is None:
        return None, "the program does not name its checkpoint, whose tokenizer is needed"
    try:
        return load_tokenizer(checkpoint), None
    except UnmaskError as error:
        return None, str(error)


def _print(result: dict[str, Any]) -> None:
    if result["text"] is None:
        print(" ".join(map(str, result["tokens"])))
        typer.echo(f"token ids, not text: {result['no_text_because']}", err=True)
    else:
        print(result["text"])
    print(
        f"\n{len(result['tokens'])} tokens in {result['steps']} steps on machine {result['machine']}: {result['cycles']:,} cycles, "
        f"{result['seconds_at_clock'] * 1e3:.3f} ms at {result['clock_ghz']:g} GHz, {result['tokens_per_second']:,.0f} tokens/s"
    )

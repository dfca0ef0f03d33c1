"""`unmask run`: simulate a program file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from unmask.cli import costs
from unmask.cli.energy import show_costs
from unmask.cli.files import load_program
from unmask.cli.options import CostsOption, JsonOption
from unmask.cli.printed import print_json
from unmask.cli.text import encode_prompt, new_text, printable
from unmask.errors import UnmaskError

if TYPE_CHECKING:
    from unmask.isa.program import Program
    from unmask.models.tokenizer import Tokenizer


def run_program(
    path: Annotated[Path, typer.Argument(metavar="PROGRAM", help="A program file of `unmask compile`.")],
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="Another prompt of as many tokens; by default the one compiled for.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**32 - 1, help="Seed of the noise; by default the one that was compiled in.")
    ] = None,
    prices: CostsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Generate on the simulated machine from a program file alone: weights, machine and decoding policy are inside."""
    from unmask.compiler.host import simulate
    from unmask.silicon.cost.table import load_costs

    table = load_costs(prices)
    program = load_program(path)
    if missing := {"model", "policy", "positions"} - program.about.keys():
        raise UnmaskError(f"{path}: not a program of `unmask compile`: it does not state its {', '.join(sorted(missing))}")
    mask, eos = (_stated_token(path, program, name) for name in ("mask_token_id", "eos_token_id"))
    tokenizer, reason = _tokenizer(program)
    if prompt is None:
        ids = _stated_prompt(path, program)
    elif tokenizer is None:
        raise UnmaskError(f"cannot read the prompt: {reason}")
    else:
        ids = encode_prompt(prompt, tokenizer, (mask, eos))
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=as_json or not console.is_terminal) as progress:
        task = progress.add_task("denoising", total=_stated_steps(program))
        try:
            done = simulate(program, ids, seed=seed, on_step=lambda _: progress.advance(task))
        except UnmaskError as error:
            raise UnmaskError(f"{path}: {error}") from None
    result = costs.of_simulation(done, [program], table) | {
        "text": None if tokenizer is None else new_text(tokenizer, done.new_tokens(), eos),
        "no_text_because": reason,
        "seed": done.policy.seed if seed is None else seed,
    }
    if as_json:
        print_json(result)
    else:
        _print(result)


def _stated_token(path: Path, program: Program, name: str) -> int:
    model = program.about["model"]
    token = model.get(name) if isinstance(model, dict) else None
    if not isinstance(token, int):
        raise UnmaskError(f"{path}: the program's model states {name} as {token!r}; expected a token id")
    return token


def _stated_prompt(path: Path, program: Program) -> list[int]:
    ids = program.about.get("prompt_ids")
    if ids is None:
        raise UnmaskError(f"{path}: the program holds no prompt; give one")
    if not isinstance(ids, list) or not all(isinstance(token, int) for token in ids):
        raise UnmaskError(f"{path}: the program's prompt_ids are damaged; expected a list of token ids")
    return ids


def _stated_steps(program: Program) -> int | None:
    """The length of the progress bar; `simulate` is who refuses a damaged policy."""
    policy = program.about["policy"]
    steps = policy.get("steps") if isinstance(policy, dict) else None
    return steps if isinstance(steps, int) else None


def _tokenizer(program: Program) -> tuple[Tokenizer | None, str | None]:
    """The tokenizer of the checkpoint that a program was compiled from, or why there is none."""
    from unmask.models.tokenizer import load_tokenizer

    checkpoint = program.about.get("checkpoint")
    if not isinstance(checkpoint, str):
        return None, "the program does not name its checkpoint, whose tokenizer is needed"
    try:
        return load_tokenizer(checkpoint), None
    except UnmaskError as error:
        return None, str(error)


def _print(result: dict[str, Any]) -> None:
    if result["text"] is None:
        print(" ".join(map(str, result["tokens"])))
        typer.echo(f"token ids, not text: {printable(result['no_text_because'])}", err=True)
    else:
        print(printable(result["text"]).lstrip())
    print(f"\n{len(result['tokens'])} tokens in {result['steps']} steps on machine {printable(result['machine'])}")
    print(f"{result['cycles']:,} cycles, {result['seconds_at_clock'] * 1e3:.3f} ms at {result['clock_ghz']:g} GHz")
    print(f"{result['tokens_per_second']:,.0f} tokens/s")
    show_costs(result, Console(highlight=False, soft_wrap=True))

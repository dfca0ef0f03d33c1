"""The coefficients of a GPU's model: refit them to a profile, or see how well they predict lengths that they were not fitted to.

`python bench/gpu.py fit CSV --gpu a6000`: the tables for the GPU's data file.
`python bench/gpu.py cross-validate CSV --gpu a6000`: mean absolute error over lengths that were left out in turn, each predicted
by coefficients that were fitted to the others, from guesses.
`python bench/gpu.py between CSV --gpu a6000`: lengths that were not measured, against a straight line between the two measured beside them.
CSV has the columns layer_name, input, kv_cache, tp_size, latency(ns), as LLMServingSim publishes its profiles.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path
from typing import Any

from unmask.baselines.fit import cross_validate, fit_gpu
from unmask.baselines.gpu import Gpu
from unmask.baselines.profile import LEAST, MOST, Check, Measured, Predicted, check, predicted_seconds, read_profile

FITTED = ("stream", "gemm", "attention")
OFFSETS = (1, 4, 8, 15)
"""From a measured length to one that was not."""


def show(what: str, found: Check) -> None:
    """Print errors in percent."""
    print(f"{what}: {found.mape:.2f} %  " + "  ".join(f"{layer} {error:.2f}" for layer, error in found.mape_by_layer.items()))


def between(gpu: Gpu, rows: list[Measured]) -> dict[int, Check]:
    """Predictions for lengths some tokens above a measured one, beside a straight line to the next, by how many tokens."""
    found = {}
    for offset in OFFSETS:
        predictions = []
        for layer in dict.fromkeys(row.layer for row in rows):
            own = sorted((row for row in rows if row.layer == layer), key=lambda row: row.tokens)
            for below, above in pairwise(own):
                share = offset / (above.tokens - below.tokens)
                if share < 1:
                    line = (1 - share) * below.seconds + share * above.seconds
                    there = below._replace(tokens=below.tokens + offset, seconds=line)
                    predictions.append(Predicted(there, predicted_seconds(gpu, there)))
        found[offset] = Check(gpu, tuple(predictions))
    return found


def table(name: str, values: dict[str, Any]) -> None:
    """Print a TOML table, four digits of every number."""
    print(f"\n[{name}]")
    for key, value in values.items():
        if not isinstance(value, dict):
            print(f"{key} = {value:.4g}")
    for key, value in values.items():
        if isinstance(value, dict):
            table(f"{name}.{key}", value)


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("fit", "cross-validate", "between"))
    parser.add_argument("profile", type=Path)
    parser.add_argument("--gpu", default="a6000")
    parser.add_argument("--least", type=int, default=LEAST)
    parser.add_argument("--most", type=int, default=MOST)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    gpu = Gpu.load(asked.gpu)
    rows = [row for row in read_profile(asked.profile) if asked.least <= row.tokens <= asked.most]
    show("the data file's coefficients, all lengths", check(gpu, rows, asked.least, asked.most))
    if asked.what == "cross-validate":
        show(f"lengths left out, {asked.folds} folds", cross_validate(gpu, rows, asked.folds, asked.trials, asked.seed))
        return
    if asked.what == "between":
        for offset, found in between(gpu, rows).items():
            show(f"{offset} above a measured length", found)
        return
    fitted = fit_gpu(gpu, rows, asked.trials, asked.seed)
    show("refitted, all lengths", check(fitted, rows, asked.least, asked.most))
    for name in FITTED:
        table(f"fit.{name}", getattr(fitted.fit, name).model_dump())


if __name__ == "__main__":
    main()

"""Coefficients of a GPU from a profile, and how well they predict lengths that they were not fitted to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.baselines.gemm import gemm_seconds
from unmask.baselines.gpu import Gemm, Gpu
from unmask.baselines.profile import LLAMA_3_1_8B, Check, Measured, Predicted, check, products
from unmask.models.layers import Architecture

_Array = NDArray[np.float64]
STREAM = ("element_us", "reduce_us", "gather_us", "dram", "strided", "gather", "l2", "l2_share")
GEMM = ("fixed_us", "dram", "math", "droop", "overlap", "split_k")
ATTENTION = ("fixed_us", "math", "block_us")
_NEUTRAL: dict[str, dict[str, float]] = {
    "stream": {"element_us": 2, "reduce_us": 4, "gather_us": 1, "dram": 0.9, "strided": 0.5, "gather": 0.5, "l2": 2, "l2_share": 0.7},
    "gemm": {"fixed_us": 4, "dram": 0.9, "math": 0.8, "droop": 0.1, "overlap": 5, "split_k": 2},
    "attention": {"fixed_us": 2, "math": 0.6, "block_us": 1},
}
"""Guesses that know nothing of the profile, for cross-validation to start from; tiles start even."""
_MOST = {**dict.fromkeys(("dram", "strided", "gather", "math", "droop"), 0.999), "overlap": 50.0}
"""Of coefficients that are shares, and of a norm."""


def fit_gpu(gpu: Gpu, rows: Iterable[Measured], trials: int = 2000, seed: int = 0, shape: Architecture = LLAMA_3_1_8B) -> Gpu:
    """The GPU with the coefficients of streams, products and attention fitted; what the profile has no layer for stays as it is.

    Args:
        gpu: where the search starts.
        rows: the profile.
        trials: random steps of each of the three searches; they minimise the mean absolute relative error.
        seed: of the steps.
        shape: of the profiled network.
    """
    rows = list(rows)
    linear = [row for row in rows if row.layer in products(shape) and row.parallel == 1]
    attention = [row for row in rows if row.layer == "attn"]
    streams = [row for row in rows if row.layer not in products(shape) and row.layer != "attn"]
    rng = np.random.default_rng(seed)
    if linear:
        gpu = _with(gpu, "gemm", _fitted_gemm(gpu, linear, trials, rng, shape))
    for part, names, layers in (("stream", STREAM, streams), ("attention", ATTENTION, attention)):
        if layers:
            gpu = _with(gpu, part, _fitted_part(gpu, part, names, layers, max(trials // 8, 1), rng, shape))
    return gpu


def cross_validate(gpu: Gpu, rows: Iterable[Measured], folds: int = 4, trials: int = 2000, seed: int = 0) -> Check:
    """Predictions for every length by coefficients that were fitted without it: every `folds`-th length is left out in turn.

    The searches start from guesses, not from the data file's coefficients, which know the whole profile.
    """
    rows = list(rows)
    lengths = sorted({row.tokens for row in rows})
    start = gpu
    for part, values in _NEUTRAL.items():
        start = _with(start, part, values)
    start = _with(start, "gemm", {"tiles": dict.fromkeys(gpu.fit.gemm.tiles, 1.0)})
    predictions: list[Predicted] = []
    for fold in range(folds):
        left_out = set(lengths[fold::folds])
        fitted = fit_gpu(start, [row for row in rows if row.tokens not in left_out], trials, seed)
        predictions += check(fitted, [row for row in rows if row.tokens in left_out], least=1, most=max(lengths)).predictions
    return Check(gpu, tuple(predictions))


def _with(gpu: Gpu, part: str, values: dict[str, Any]) -> Gpu:
    fit = gpu.fit.model_dump()
    return Gpu.model_validate({**gpu.model_dump(), "fit": {**fit, part: {**fit[part], **values}}})


def _fitted_gemm(gpu: Gpu, rows: Sequence[Measured], trials: int, rng: np.random.Generator, shape: Architecture) -> dict[str, Any]:
    tiles = list(gpu.fit.gemm.tiles)
    groups: dict[tuple[int, int], list[Measured]] = {}
    for row in rows:
        groups.setdefault(products(shape)[row.layer], []).append(row)
    data = [(n, k, np.array([r.tokens for r in group]), np.array([r.seconds for r in group])) for (n, k), group in groups.items()]
    start = np.array([*(getattr(gpu.fit.gemm, name) for name in GEMM), *gpu.fit.gemm.tiles.values()])

    def values(x: _Array) -> dict[str, Any]:
        return {**dict(zip(GEMM, x.tolist(), strict=False)), "tiles": dict(zip(tiles, x[len(GEMM) :].tolist(), strict=True))}

    def loss(x: _Array) -> float:
        fit = Gemm.model_construct(**values(x), narrow_tiles={})
        errors = [np.abs(gemm_seconds(gpu, m, n, k, fit=fit) / seconds - 1) for n, k, m, seconds in data]
        return float(np.concatenate(errors).mean())

    return values(_search(start, loss, (*GEMM, *tiles), trials, rng))


def _fitted_part(
    gpu: Gpu, part: str, names: tuple[str, ...], rows: Sequence[Measured], trials: int, rng: np.random.Generator, shape: Architecture
) -> dict[str, Any]:
    start = np.array([getattr(getattr(gpu.fit, part), name) for name in names])
    most = max(row.tokens for row in rows)

    def loss(x: _Array) -> float:
        return check(_with(gpu, part, dict(zip(names, x.tolist(), strict=True))), rows, 1, most, shape).mape

    return dict(zip(names, _search(start, loss, names, trials, rng).tolist(), strict=True))


def _search(start: _Array, loss: Callable[[_Array], float], names: Sequence[str], trials: int, rng: np.random.Generator) -> _Array:
    """A random walk downhill: some coefficients change by a factor; steps grow with success and shrink without."""
    most = np.array([_MOST.get(name, np.inf) for name in names])
    best, least = start, loss(start)
    size = np.full(len(start), 0.05)
    for _ in range(trials):
        moved = rng.random(len(start)) < 1 / len(start)
        moved[rng.integers(len(start))] = True
        tried = np.where(moved, np.minimum(best * np.exp(size * rng.standard_normal(len(start))), most), best)
        found = loss(tried)
        if found < least:
            best, least = tried, found
        size[moved] = np.clip(size[moved] * (1.3 if best is tried else 0.98), 0.003, 0.3)
    return best

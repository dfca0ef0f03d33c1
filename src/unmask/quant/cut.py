"""The most probable tokens of a row in the machine's number formats: a binary search over the ordered bits of its logits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unmask.numerics import accumulator, bf16, functions

F32 = NDArray[np.float32]
KEY_BITS = 16


def row_sums(x: F32) -> F32:
    """Exact sums of the rows of bf16-valued float32 [rows, cols], rounded once to float32 [rows]; NaN where an element has no place."""
    total, invalid = accumulator.sum_rows(x)
    return np.where(invalid, np.float32(np.nan), accumulator.to_fp32(total, accumulator.VECTOR_FRACTION))


def largest_key(keys: NDArray[np.uint16], weights: F32, limit: F32) -> NDArray[np.int64]:
    """Per row the largest key whose columns at or above it weigh more than the limit; 0 if none does.

    Args:
        keys: [rows, cols], of `bf16.ordered`.
        weights: [rows, cols], bf16-valued and not negative.
        limit: float32 [rows].
    """
    found = np.zeros(len(keys), np.int64)
    for bit in reversed(range(KEY_BITS)):
        trial = found | 1 << bit
        measure = row_sums(np.where(keys >= trial[:, None], weights, np.float32(0)))
        found = np.where(measure > limit, trial, found)
    return found


def cut(logits: F32, maximum: F32, temperature: float, top_p: float | None, top_k: int | None) -> F32:
    """The logits with those of improbable tokens at minus infinity.

    Dream's cuts (Ye et al., arXiv 2508.15487), by value: equal logits stay or go together. `top_p` keeps the fewest largest logits whose
    exponentials sum to more than `top_p` of all, `top_k` so many and those that tie with the last. Logits at or above both bounds stay,
    and so does NaN.

    Args:
        logits: [rows, vocabulary], bf16-valued.
        maximum: float32 [rows].
        temperature: of the exponentials.
        top_p: below 1 to cut; compared in FP32.
        top_k: below the vocabulary to cut.
    """
    keys = bf16.ordered(logits)
    kept = np.ones(logits.shape, np.bool_)
    if cuts_mass(top_p):
        weights = exponentials(logits, maximum, temperature)
        kept &= keys >= largest_key(keys, weights, row_sums(weights) * np.float32(top_p))[:, None]
    if cuts_count(top_k, logits.shape[1]):
        ones, limit = np.ones(logits.shape, np.float32), np.full(len(logits), rank_limit(top_k), np.float32)
        kept &= keys >= largest_key(keys, ones, limit)[:, None]
    return np.where(kept | np.isnan(logits), logits, np.float32(-np.inf))


def cuts_mass(top_p: float | None) -> bool:
    """Whether `top_p` leaves anything out."""
    return top_p is not None and top_p < 1


def cuts_count(top_k: int | None, vocabulary: int) -> bool:
    """Whether `top_k` leaves anything out."""
    return top_k is not None and top_k < vocabulary


def rank_limit(top_k: int | None) -> float:
    """What a count of columns exceeds exactly if it is at least `top_k`."""
    return float(top_k or 0) - 0.5


def sharpness(temperature: float) -> float:
    """1 / temperature as the BF16 lanes multiply it; 1 at temperature 0, which has no distribution to sharpen."""
    return bf16.rounded(1 / temperature) if temperature else 1.0


def exponents(logits: F32, maximum: F32, temperature: float) -> F32:
    """(logit - maximum) / temperature in two BF16 operations, [rows, vocabulary]; `maximum` float32 [rows]."""
    difference = bf16.subtract(logits, bf16.round(maximum)[:, None])
    scale = sharpness(temperature)
    return difference if scale == 1 else bf16.multiply(difference, np.array(scale, np.float32))


def exponentials(logits: F32, maximum: F32, temperature: float) -> F32:
    """exp of `exponents`."""
    return functions.exp(exponents(logits, maximum, temperature))

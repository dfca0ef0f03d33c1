"""Sums of exponentials that need no maximum: exact, in any order, in a window that follows the largest term.

A term is `functions.weight`, e^x of 8 significant bits and any exponent. The line of exponents is cut into bins at multiples of
`BIN_BITS`. The level of a row is the bin of its largest term's leading bit, and its sum keeps two bins: that one and the next lower one.
A term adds its bits in either bin to that bin's counter; what lies below both is cut off. A term that raises the level by one makes the
upper counter the lower one, by more it clears both: nothing is rescaled or rounded.

The result is sum(floor(term / 2^bottom)) with bottom fixed by the largest term alone, because a bin that is kept at the end was kept
whenever something was added to it. It depends neither on order nor on tiling. This is the pre-rounded summation of Demmel and Nguyen ("Fast
reproducible floating-point summation", ARITH 2013) in integers. At least 32 bits below the largest term's leading bit are kept.
"""

from __future__ import annotations

import numpy as np

from unmask.numerics import accumulator, functions
from unmask.numerics._arrays import Bool, Float32, Int64

BIN_BITS = 32
LOWEST = -(2**40)
"""The level of a row without terms."""

_BIN = (1 << BIN_BITS) - 1
_LEADING = 7
_FREE_BITS = 19


def level(x: Float32) -> Int64:
    """The bin of the leading bit of e^x, int64 of the shape of x (bf16-valued float32); `LOWEST` for infinities and NaN.

    It never falls as x grows, so the level of a row is that of its maximum.
    """
    significand, exponent = functions.weight(x)
    return np.where(significand == 0, LOWEST, (exponent + _LEADING) // BIN_BITS)


def add(state: Int64, levels: Int64, upper: Int64, lower: Int64) -> None:
    """Add to rows' sums, in place.

    Args:
        state: int64 [rows, 3]: level, upper and lower counter of each row.
        levels: int64 [rows]: those of the terms; only larger ones change a row's.
        upper, lower: int64 [rows]: the terms' bits in either bin, counted at the larger of both levels.
    """
    rise = np.maximum(levels - state[:, 0], 0)
    state[:, 2] = np.where(rise == 0, state[:, 2], np.where(rise == 1, state[:, 1], 0)) + lower
    state[:, 1] = np.where(rise == 0, state[:, 1], 0) + upper
    state[:, 0] += rise


def empty(rows: int) -> Int64:
    """The state of rows without terms, int64 [rows, 3]."""
    return np.tile(np.array([LOWEST, 0, 0], np.int64), (rows, 1))


def add_rows(state: Int64, x: Float32) -> None:
    """Add e^x for every column of x (bf16-valued float32 [rows, cols]) to the rows' sums, in place; infinities and NaN add nothing."""
    significand, exponent = functions.weight(x)
    levels = np.maximum(level(x).max(axis=1), state[:, 0])
    place = exponent - BIN_BITS * levels[:, None]
    add(state, levels, _shifted(significand, place).sum(axis=1), (_shifted(significand, place + BIN_BITS) & _BIN).sum(axis=1))


def add_scaled(state: Int64, levels: Int64, x: Float32) -> Bool:
    """Add terms that `scaled` brought to given levels, bf16-valued float32 [rows, cols].

    Returns bool [rows], true where a row holds what `scaled` never gives for a finite number: a NaN, or anything outside [0, 1). It adds
    nothing.
    """
    held = (x >= 0) & (x < 1)
    whole = np.floor(np.where(held, x, 0).astype(np.float64) * 2.0 ** (2 * BIN_BITS)).astype(np.uint64)
    upper, lower = (whole >> np.uint64(BIN_BITS)).astype(np.int64), (whole & np.uint64(_BIN)).astype(np.int64)
    add(state, levels, upper.sum(axis=1), lower.sum(axis=1))
    return np.asarray(~held.all(axis=1), dtype=np.bool_)


def scaled(x: Float32, levels: Int64) -> Float32:
    """e^x 2^(-32 (level + 1)), bf16-valued float32 of the shape of x.

    x: bf16-valued; levels: int64 that broadcast, none below those of x, so that the result is below 1. Exact down to 2^-126. 0 for minus
    infinity, NaN for infinity and NaN.
    """
    significand, exponent = functions.weight(x)
    places = np.clip(exponent - BIN_BITS * (levels + 1), -1000, 0)
    values = np.ldexp(significand.astype(np.float64), places).astype(np.float32)
    return np.where(np.isnan(x) | (x == np.inf), np.float32(np.nan), np.where(values < 2.0**-126, np.float32(0), values))


def to_fp32(state: Int64) -> Float32:
    """The sums of rows (int64 [rows, 3]) times 2^(-32 (level + 1)), float32 [rows], rounded once; rows of fewer than 2^18 terms."""
    upper, lower = state[:, 1] + (state[:, 2] >> BIN_BITS), state[:, 2] & _BIN
    short = upper < 1 << (BIN_BITS - 1)
    near = accumulator.to_fp32(np.where(short, (upper << BIN_BITS) | lower, 0), 2 * BIN_BITS)
    dropped = (lower & ((1 << _FREE_BITS) - 1)) != 0
    far = accumulator.to_fp32((upper << (BIN_BITS - _FREE_BITS)) | (lower >> _FREE_BITS) | dropped, 2 * BIN_BITS - _FREE_BITS)
    return np.where(short, near, far)


def confidence(picked: Float32, state: Int64) -> Float32:
    """e^picked over the sums of rows, float32 [rows]: the weight exact, the sum and its reciprocal and the product rounded to FP32 each.

    picked: bf16-valued [rows], each one of its row's terms.
    """
    with np.errstate(invalid="ignore"):
        return functions.canonical(scaled(picked, state[:, 0]) * functions.reciprocal_fp32(to_fp32(state)))


def _shifted(significand: Int64, places: Int64) -> Int64:
    """floor(significand * 2^places) modulo 2^64; places of 56 at most are whole."""
    left = significand.astype(np.uint64) << np.clip(places, 0, 63).astype(np.uint64)
    return (left >> np.clip(-places, 0, 63).astype(np.uint64)).astype(np.int64)

"""The vector engine's reductions: along rows to one scalar each, and down columns."""

from __future__ import annotations

import numpy as np

from unmask.machine.semantics.registry import bit_word, comparable, effect, two_tiles
from unmask.machine.state import F32, State
from unmask.numerics import accumulator, bf16


def _accumulate(s: State, dst: int, x: F32, running: int) -> None:
    """Add each row of `x` to its accumulator, and round the sums to the float SRAM."""
    total, invalid = s.row_accumulators(len(x))
    if not running:
        total[:], invalid[:] = 0, False
    addend, bad = accumulator.sum_rows(x)
    total += addend
    invalid |= bad
    s.scalars(dst, len(x))[:] = np.where(invalid, np.float32(np.nan), accumulator.to_fp32(total, accumulator.VECTOR_FRACTION))


@effect("V_RED_SUM")
def _v_red_sum(s: State, dst: int, a: int, rows: int, cols: int, a_stride: int, running: int) -> None:
    _accumulate(s, dst, s.tile(a, rows, cols, a_stride), running)


@effect("V_RED_MAX")
def _v_red_max(s: State, dst: int, a: int, rows: int, cols: int, a_stride: int, running: int) -> None:
    scores = comparable(s.tile(a, rows, cols, a_stride))
    # The first of equals, so that the sign of a zero does not depend on how numpy compares.
    top = scores[np.arange(rows), scores.argmax(axis=1)]
    best = s.scalars(dst, rows)
    previous = comparable(best)
    best[:] = np.where(top > previous, top, previous) if running else top


@effect("V_RED_MAX_IDX")
def _v_red_max_idx(
    s: State,
    dst: int,
    index: int,
    picked: int,
    a: int,
    b: int,
    base: int,
    rows: int,
    cols: int,
    a_stride: int,
    b_stride: int,
    running: int,
) -> None:
    scores, companion = two_tiles(s, a, b, rows, cols, a_stride, b_stride)
    scores = comparable(scores)
    column, row = scores.argmax(axis=1), np.arange(rows)
    top = scores[row, column]
    best, where, value = s.scalars(dst, rows), s.words(index, rows), s.scalars(picked, rows)
    wins = top > comparable(best) if running else np.ones(rows, bool)
    best[wins], where[wins], value[wins] = top[wins], base + column[wins], companion[row, column][wins]


@effect("V_RED_SUM_GE")
def _v_red_sum_ge(
    s: State, dst: int, a: int, b: int, key: int, bit: int, rows: int, cols: int, a_stride: int, b_stride: int, running: int
) -> None:
    values, compared = two_tiles(s, a, b, rows, cols, a_stride, b_stride)
    trial = s.words(key, rows) | bit_word(bit)
    _accumulate(s, dst, np.where(bf16.ordered(compared) >= trial[:, None], values, np.float32(0)), running)


@effect("V_COL_ABSMAX")
def _v_col_absmax(s: State, dst: int, a: int, rows: int, cols: int, a_stride: int, running: int) -> None:
    magnitudes = np.abs(s.tile(a, rows, cols, a_stride))
    top = np.where(np.isnan(magnitudes), np.float32(0), magnitudes).max(axis=0)
    result = s.tile(dst, 1, cols, 0)[0]
    # What was there counts only if it is more than 0, so that the sign of a zero does not depend on how numpy compares.
    result[:] = np.where(running & (result > top), result, top)

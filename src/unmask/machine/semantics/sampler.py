"""The vector engine's sampler: window sums of exponentials, and maximum, index and sum of a row in one stream."""

from __future__ import annotations

import numpy as np

from unmask.machine.semantics.lanes import noisy
from unmask.machine.semantics.registry import comparable, effect
from unmask.machine.state import F32, State
from unmask.numerics import window


@effect("V_EXP_WIN")
def _v_exp_win(s: State, dst: int, a: int, f: int, rows: int, cols: int, dst_stride: int, a_stride: int) -> None:
    levels = window.level(comparable(s.scalars(f, rows)))
    s.tile(dst, rows, cols, dst_stride)[:] = window.scaled(s.tile(a, rows, cols, a_stride), levels[:, None])


@effect("V_RED_SUM_WIN")
def _v_red_sum_win(s: State, dst: int, a: int, f: int, rows: int, cols: int, a_stride: int, running: int) -> None:
    part = s.accumulator_rows(0, rows)
    x = s.tile(a, rows, cols, a_stride)
    _restart(s, part, running)
    s.invalid[part] |= window.add_scaled(s.windows[part], window.level(comparable(s.scalars(f, rows))), x)
    s.scalars(dst, rows)[:] = np.where(s.invalid[part], np.float32(np.nan), window.to_fp32(s.windows[part]))


@effect("V_SAMPLE")
def _v_sample(
    s: State,
    a: int,
    first: int,
    token: int,
    seed: int,
    step: int,
    position: int,
    period: int,
    temperature: int,
    rows: int,
    cols: int,
    a_stride: int,
    running: int,
) -> None:
    part = s.accumulator_rows(first, rows)
    x = s.tile(a, rows, cols, a_stride)
    positions = position + np.arange(rows) % period
    _restart(s, part, running)
    _keep_best(s, part, x, comparable(noisy(x, seed, step, positions, token, temperature) if temperature % 2**16 else x), token, running)
    window.add_rows(s.windows[part], x)
    s.invalid[part] |= (np.isnan(x) | (x == np.inf)).any(axis=1)


@effect("V_SAMPLE_END")
def _v_sample_end(s: State, dst: int, index: int, first: int, count: int) -> None:
    part = s.accumulator_rows(first, count)
    s.words(index, count)[:] = s.candidates[part]
    confidence = window.confidence(s.picked[part], s.windows[part])
    s.scalars(dst, count)[:] = np.where(s.invalid[part], np.float32(np.nan), confidence)


@effect("F_EXP_WIN")
def _f_exp_win(s: State, dst: int, a: int, f: int, count: int) -> None:
    s.scalars(dst, count)[:] = window.scaled(s.scalars(a, count), window.level(comparable(s.scalars(f, count))))


def _restart(s: State, part: slice, running: int) -> None:
    if not running:
        s.windows[part], s.invalid[part] = window.empty(part.stop - part.start), False


def _keep_best(s: State, part: slice, x: F32, scores: F32, token: int, running: int) -> None:
    column, row = scores.argmax(axis=1), np.arange(len(x))
    top, best = scores[row, column], s.best[part]
    wins = top > best if running else np.ones(len(x), bool)
    best[wins], s.picked[part][wins], s.candidates[part][wins] = top[wins], x[row, column][wins], token + column[wins]

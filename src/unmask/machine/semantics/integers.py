"""The vector engine's integer unit: words of the integer SRAM, and the masks made of scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unmask.machine.semantics.registry import bit_word, comparable, effect
from unmask.machine.state import F32, State


@effect("I_EQ_I")
def _i_eq_i(s: State, dst: int, a: int, count: int, value: int) -> None:
    s.words(dst, count)[:] = s.words(a, count) == value


@effect("I_FILL")
def _i_fill(s: State, dst: int, value: int, count: int) -> None:
    s.words(dst, count)[:] = np.array(value & 0xFFFFFFFF, np.uint32).astype(np.int32)


@effect("I_SET_BIT_GT")
def _i_set_bit_gt(s: State, dst: int, a: int, b: int, bit: int, count: int) -> None:
    s.words(dst, count)[s.scalars(a, count) > s.scalars(b, count)] |= bit_word(bit)


def _ranked(scores: F32, eligible: NDArray[np.int32]) -> NDArray[np.int64]:
    """Indices of the eligible entries by score, descending, ties to the lowest."""
    candidates = np.flatnonzero(eligible)
    return candidates[np.argsort(-comparable(scores)[candidates], kind="stable")]


def _mark(s: State, dst: int, chosen: NDArray[np.int64], count: int) -> None:
    mask = s.words(dst, count)
    mask[:] = 0
    mask[chosen] = 1


@effect("V_TOPK_MASK")
def _v_topk_mask(s: State, dst: int, f: int, eligible: int, k: int, count: int) -> None:
    s.check_sorter(count)
    ranked = _ranked(s.scalars(f, count), s.words(eligible, count))
    _mark(s, dst, ranked[: max(k, 0)], count)


@effect("V_THRESHOLD_MASK")
def _v_threshold_mask(s: State, dst: int, f: int, eligible: int, count: int, value: float) -> None:
    scores = s.scalars(f, count)
    ranked = _ranked(scores, s.words(eligible, count))
    reached = comparable(scores[ranked]) >= np.float32(value)
    _mark(s, dst, np.concatenate((ranked[:1], ranked[reached])), count)


@effect("V_BARS_MASK")
def _v_bars_mask(s: State, dst: int, f: int, eligible: int, bars: int, count: int) -> None:
    s.check_sorter(count)
    scores, bar = s.scalars(f, count), s.scalars(bars, count)
    ranked = _ranked(scores, s.words(eligible, count))
    cleared = comparable(scores[ranked]) >= bar[: len(ranked)]
    cleared[:1] = True
    _mark(s, dst, ranked[: int(np.logical_and.accumulate(cleared).sum())], count)


@effect("V_SELECT_INT")
def _v_select_int(s: State, dst: int, mask: int, a: int, b: int, count: int) -> None:
    s.words(dst, count)[:] = np.where(s.words(mask, count) != 0, s.words(a, count), s.words(b, count))

"""The vector engine's routing of rows to the experts of a mixture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unmask.machine.semantics.registry import comparable, effect
from unmask.machine.state import MachineFault, State
from unmask.numerics import bf16


@effect("V_TOPK_ROW")
def _v_topk_row(s: State, dst: int, a: int, b: int, k: int, rows: int, cols: int, dst_stride: int, a_stride: int, b_stride: int) -> None:
    best = np.argsort(-comparable(s.tile(b, rows, cols, b_stride)), axis=1, kind="stable")[:, :k]
    kept = np.zeros((rows, cols), np.float32)
    np.put_along_axis(kept, best, np.take_along_axis(s.tile(a, rows, cols, a_stride), best, axis=1), axis=1)
    s.tile(dst, rows, cols, dst_stride)[:] = kept


@effect("V_EXPERT_TILES")
def _v_expert_tiles(s: State, dst: int, b: int, span: int, cols: int, b_stride: int, rows: int, tiles: int) -> None:
    counts = (s.tile(b, span, cols, b_stride) != 0).sum(axis=0)
    pairs = [(expert, skip) for expert, count in enumerate(counts.tolist()) for skip in range(0, max(count, 1), rows)]
    if len(pairs) > tiles:
        raise MachineFault(f"V_EXPERT_TILES: the experts need {len(pairs)} tiles; the list has {tiles}")
    pairs += [(cols - 1, span)] * (tiles - len(pairs))
    s.words(dst, 2 * tiles)[:] = np.array(pairs, np.int32).reshape(-1)


def _taken(s: State, b: int, expert: int, skip: int, rows: int, span: int, b_stride: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The rows of an expert's tile, and their weights."""
    weights = s.tile(b, span, expert + 1, b_stride)[:, -1]
    if skip < 0:
        raise MachineFault(f"{skip} rows skipped: expected at least 0")
    taken = np.flatnonzero(weights != 0)[skip : skip + rows]
    return taken, weights[taken]


@effect("V_GATHER_ROWS")
def _v_gather_rows(
    s: State, dst: int, a: int, b: int, expert: int, skip: int, rows: int, span: int, cols: int, stride: int, b_stride: int
) -> None:
    taken, _ = _taken(s, b, expert, skip, rows, span, b_stride)
    tile = s.tile(dst, rows, cols, stride)
    tile[: len(taken)] = s.tile(a, span, cols, stride)[taken]
    tile[len(taken) :] = 0


@effect("V_SCATTER_ADD")
def _v_scatter_add(
    s: State, dst: int, a: int, b: int, expert: int, skip: int, rows: int, span: int, cols: int, stride: int, b_stride: int
) -> None:
    taken, weights = _taken(s, b, expert, skip, rows, span, b_stride)
    total = s.tile(dst, span, cols, stride)
    total[taken] = bf16.add(total[taken], bf16.multiply(s.tile(a, rows, cols, stride)[: len(taken)], weights[:, None]))

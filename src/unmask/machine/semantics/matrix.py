"""The matrix engine."""

from __future__ import annotations

import numpy as np

from unmask.machine.config import MATRIX_FORMATS
from unmask.machine.semantics.registry import blocks_of, effect, format_of
from unmask.machine.state import State
from unmask.numerics import accumulator, matmul, mx


@effect("M_MM")
def _m_mm(s: State, dst: int, a: int, b: int, m: int, n: int, k: int, dst_stride: int, a_stride: int, transposed: int, format: int) -> None:
    rows, cols = (k, n) if transposed else (n, k)
    codes, scales = s.blocks(b, rows, blocks_of(cols))
    right = mx.MxTensor(codes.reshape(rows, -1), np.ascontiguousarray(scales), format_of(s, format, MATRIX_FORMATS), cols)
    if transposed:
        right = mx.reblock_transposed(right)
    left = mx.quantize(s.tile(a, m, k, a_stride), s.activations)
    total, invalid = matmul.mx_matmul(left, right)
    s.tile(dst, m, n, dst_stride)[:] = np.where(invalid, np.float32(np.nan), accumulator.to_bf16(total, accumulator.MATRIX_FRACTION))

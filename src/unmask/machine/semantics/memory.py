"""The load and the store engine."""

from __future__ import annotations

from typing import Any

import numpy as np

from unmask.machine.config import MATRIX_FORMATS
from unmask.machine.semantics.registry import blocks_of, effect, format_of
from unmask.machine.state import MachineFault, State, read_bf16, to_bytes
from unmask.numerics import bf16, mx


def _mx_windows(s: State, elements: int, scales: int, rows: int, cols: int, stride: int, form: mx.MxFormat) -> tuple[Any, Any]:
    blocks, block_bytes = blocks_of(cols), mx.BLOCK * form.element.bits // 8
    return s.bytes(elements, rows, blocks * block_bytes, stride * block_bytes), s.bytes(scales, rows, blocks, stride)


@effect("L_VEC")
def _l_vec(s: State, dst: int, src: int, rows: int, cols: int, dst_stride: int, src_stride: int) -> None:
    s.tile(dst, rows, cols, dst_stride)[:] = read_bf16(s.bytes(src, rows, 2 * cols, src_stride))


@effect("L_MAT")
def _l_mat(s: State, dst: int, src: int, scales: int, rows: int, cols: int, src_stride: int, format: int) -> None:
    form, blocks = format_of(s, format, MATRIX_FORMATS), blocks_of(cols)
    elements, scale_bytes = _mx_windows(s, src, scales, rows, cols, src_stride, form)
    codes, scale_codes = s.blocks(dst, rows, blocks)
    codes[:] = mx.unpack(np.ascontiguousarray(elements), scale_bytes, form, cols).codes.reshape(rows, blocks, mx.BLOCK)
    scale_codes[:] = scale_bytes


@effect("L_INT")
def _l_int(s: State, dst: int, src: int, count: int) -> None:
    s.words(dst, count)[:] = np.ascontiguousarray(s.bytes(src, 1, 4 * count, 4 * count)).view("<i4")[0]


@effect("L_GATHER")
def _l_gather(s: State, dst: int, table: int, ids: int, rows: int, cols: int, dst_stride: int, table_stride: int, limit: int) -> None:
    numbers = s.words(ids, rows)
    if numbers.min() < 0 or numbers.max() >= limit:
        raise MachineFault(f"L_GATHER: a row number outside [0, {limit})")
    s.tile(dst, rows, cols, dst_stride)[:] = read_bf16(s.bytes(table, limit, 2 * cols, table_stride)[numbers])
    s.gathered.append(numbers.astype(np.int64))


@effect("L_MX")
def _l_mx(s: State, dst: int, src: int, scales: int, rows: int, cols: int, dst_stride: int, src_stride: int, format: int) -> None:
    form = format_of(s, format, len(s.formats))
    elements, scale_bytes = _mx_windows(s, src, scales, rows, cols, src_stride, form)
    tensor = mx.unpack(np.ascontiguousarray(elements), np.ascontiguousarray(scale_bytes), form, cols)
    s.tile(dst, rows, cols, dst_stride)[:] = bf16.round(mx.dequantize(tensor))


@effect("ST_VEC")
def _st_vec(s: State, src: int, dst: int, rows: int, cols: int, src_stride: int, dst_stride: int) -> None:
    s.bytes(dst, rows, 2 * cols, dst_stride)[:] = to_bytes(s.tile(src, rows, cols, src_stride))


@effect("ST_MX")
def _st_mx(s: State, src: int, dst: int, scales: int, rows: int, cols: int, src_stride: int, dst_stride: int, format: int) -> None:
    form = format_of(s, format, len(s.formats))
    elements, scale_bytes = _mx_windows(s, dst, scales, rows, cols, dst_stride, form)
    packed = mx.quantize(s.tile(src, rows, cols, src_stride), form)
    elements[:] = mx.pack(packed)
    scale_bytes[:] = packed.scales


@effect("ST_INT")
def _st_int(s: State, src: int, dst: int, count: int) -> None:
    s.bytes(dst, 1, 4 * count, 4 * count)[0] = s.words(src, count).astype("<i4").view(np.uint8)

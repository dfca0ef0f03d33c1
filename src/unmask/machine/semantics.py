"""What each engine instruction does to the state, tile-wise: one function per row of the instruction table.

A function takes the state and the row's operands by name, registers already replaced by their values. Values are those of
`unmask.numerics`; nothing is computed here that the hardware would compute otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from unmask.isa.table import BY_NAME
from unmask.machine.state import F32, MachineFault, State, read_bf16, to_bytes
from unmask.numerics import accumulator, bf16, functions, matmul, mx, noise

Semantics = Callable[..., None]
SEMANTICS: dict[str, Semantics] = {}


def _effect(name: str) -> Callable[[Semantics], Semantics]:
    if name not in BY_NAME:
        raise KeyError(f"{name} is not in the instruction table")

    def register(function: Semantics) -> Semantics:
        SEMANTICS[name] = function
        return function

    return register


def _format(s: State, number: int) -> mx.MxFormat:
    if number >= len(s.formats):
        raise MachineFault(f"format {number}: expected one of 0 to {len(s.formats) - 1}")
    return s.formats[number]


def _blocks_of(cols: int) -> int:
    return mx.padded(cols) // mx.BLOCK


def _mx_windows(s: State, elements: int, scales: int, rows: int, cols: int, stride: int, form: mx.MxFormat) -> tuple[Any, Any]:
    blocks, block_bytes = _blocks_of(cols), mx.BLOCK * form.element.bits // 8
    return s.bytes(elements, rows, blocks * block_bytes, stride * block_bytes), s.bytes(scales, rows, blocks, stride)


# Load and store engines


@_effect("L_VEC")
def _l_vec(s: State, dst: int, src: int, rows: int, cols: int, dst_stride: int, src_stride: int) -> None:
    s.tile(dst, rows, cols, dst_stride)[:] = read_bf16(s.bytes(src, rows, 2 * cols, src_stride))


@_effect("L_MAT")
def _l_mat(s: State, dst: int, src: int, scales: int, rows: int, cols: int, src_stride: int, format: int) -> None:
    form, blocks = _format(s, format), _blocks_of(cols)
    elements, scale_bytes = _mx_windows(s, src, scales, rows, cols, src_stride, form)
    codes, scale_codes = s.blocks(dst, rows, blocks)
    codes[:] = mx.unpack(np.ascontiguousarray(elements), scale_bytes, form, cols).codes.reshape(rows, blocks, mx.BLOCK)
    scale_codes[:] = scale_bytes


@_effect("L_INT")
def _l_int(s: State, dst: int, src: int, count: int) -> None:
    s.words(dst, count)[:] = np.ascontiguousarray(s.bytes(src, 1, 4 * count, 4 * count)).view("<i4")[0]


@_effect("L_GATHER")
def _l_gather(s: State, dst: int, table: int, ids: int, rows: int, cols: int, dst_stride: int, table_stride: int, limit: int) -> None:
    numbers = s.words(ids, rows)
    if numbers.min() < 0 or numbers.max() >= limit:
        raise MachineFault(f"L_GATHER: a row number outside [0, {limit})")
    s.tile(dst, rows, cols, dst_stride)[:] = read_bf16(s.bytes(table, limit, 2 * cols, table_stride)[numbers])


@_effect("ST_VEC")
def _st_vec(s: State, src: int, dst: int, rows: int, cols: int, src_stride: int, dst_stride: int) -> None:
    s.bytes(dst, rows, 2 * cols, dst_stride)[:] = to_bytes(s.tile(src, rows, cols, src_stride))


@_effect("ST_MX")
def _st_mx(s: State, src: int, dst: int, scales: int, rows: int, cols: int, src_stride: int, dst_stride: int, format: int) -> None:
    form = _format(s, format)
    elements, scale_bytes = _mx_windows(s, dst, scales, rows, cols, dst_stride, form)
    packed = mx.quantize(s.tile(src, rows, cols, src_stride), form)
    elements[:] = mx.pack(packed)
    scale_bytes[:] = packed.scales


@_effect("ST_INT")
def _st_int(s: State, src: int, dst: int, count: int) -> None:
    s.bytes(dst, 1, 4 * count, 4 * count)[0] = s.words(src, count).astype("<i4").view(np.uint8)


# Matrix engine


@_effect("M_MM")
def _m_mm(s: State, dst: int, a: int, b: int, m: int, n: int, k: int, dst_stride: int, a_stride: int, transposed: int, format: int) -> None:
    rows, cols = (k, n) if transposed else (n, k)
    codes, scales = s.blocks(b, rows, _blocks_of(cols))
    right = mx.MxTensor(codes.reshape(rows, -1), np.ascontiguousarray(scales), _format(s, format), cols)
    if transposed:
        right = mx.reblock_transposed(right)
    left = mx.quantize(s.tile(a, m, k, a_stride), s.activations)
    total, invalid = matmul.mx_matmul(left, right)
    s.tile(dst, m, n, dst_stride)[:] = np.where(invalid, np.float32(np.nan), accumulator.to_bf16(total, accumulator.MATRIX_FRACTION))


# Vector engine: tiles


def _tiles(s: State, a: int, b: int, rows: int, cols: int, a_stride: int, b_stride: int) -> tuple[F32, F32]:
    return s.tile(a, rows, cols, a_stride), s.tile(b, rows, cols, b_stride)


@_effect("V_ADD")
def _v_add(s: State, dst: int, a: int, b: int, rows: int, cols: int, dst_stride: int, a_stride: int, b_stride: int) -> None:
    s.tile(dst, rows, cols, dst_stride)[:] = bf16.add(*_tiles(s, a, b, rows, cols, a_stride, b_stride))


@_effect("V_SUB")
def _v_sub(s: State, dst: int, a: int, b: int, rows: int, cols: int, dst_stride: int, a_stride: int, b_stride: int) -> None:
    s.tile(dst, rows, cols, dst_stride)[:] = bf16.subtract(*_tiles(s, a, b, rows, cols, a_stride, b_stride))


@_effect("V_MUL")
def _v_mul(s: State, dst: int, a: int, b: int, rows: int, cols: int, dst_stride: int, a_stride: int, b_stride: int) -> None:
    s.tile(dst, rows, cols, dst_stride)[:] = bf16.multiply(*_tiles(s, a, b, rows, cols, a_stride, b_stride))


@_effect("V_SUB_F")
def _v_sub_f(s: State, dst: int, a: int, f: int, rows: int, cols: int, dst_stride: int, a_stride: int) -> None:
    scalars = bf16.round(s.scalars(f, rows))[:, None]
    s.tile(dst, rows, cols, dst_stride)[:] = bf16.subtract(s.tile(a, rows, cols, a_stride), scalars)


@_effect("V_MUL_F")
def _v_mul_f(s: State, dst: int, a: int, f: int, rows: int, cols: int, dst_stride: int, a_stride: int) -> None:
    scalars = bf16.round(s.scalars(f, rows))[:, None]
    s.tile(dst, rows, cols, dst_stride)[:] = bf16.multiply(s.tile(a, rows, cols, a_stride), scalars)


@_effect("V_MUL_I")
def _v_mul_i(s: State, dst: int, a: int, rows: int, cols: int, dst_stride: int, a_stride: int, value: float) -> None:
    s.tile(dst, rows, cols, dst_stride)[:] = bf16.multiply(s.tile(a, rows, cols, a_stride), np.array(value, np.float32))


@_effect("V_FILL")
def _v_fill(s: State, dst: int, rows: int, cols: int, dst_stride: int, value: float) -> None:
    s.tile(dst, rows, cols, dst_stride)[:] = np.float32(value)


@_effect("V_EXP")
def _v_exp(s: State, dst: int, a: int, rows: int, cols: int, dst_stride: int, a_stride: int) -> None:
    s.tile(dst, rows, cols, dst_stride)[:] = functions.exp(s.tile(a, rows, cols, a_stride))


@_effect("V_SILU")
def _v_silu(s: State, dst: int, a: int, rows: int, cols: int, dst_stride: int, a_stride: int) -> None:
    s.tile(dst, rows, cols, dst_stride)[:] = functions.silu(s.tile(a, rows, cols, a_stride))


@_effect("V_GUMBEL")
def _v_gumbel(
    s: State,
    dst: int,
    a: int,
    seed: int,
    step: int,
    position: int,
    token: int,
    temperature: int,
    rows: int,
    cols: int,
    dst_stride: int,
    a_stride: int,
) -> None:
    bits = noise.uniform_bits(seed % 2**32, step % 2**32, position + np.arange(rows), token + np.arange(cols))
    scale = bf16.from_bits(np.array(temperature, np.uint16))
    shift = bf16.multiply(noise.gumbel(bits), scale)
    s.tile(dst, rows, cols, dst_stride)[:] = bf16.add(s.tile(a, rows, cols, a_stride), shift)


# Vector engine: reductions


@_effect("V_RED_SUM")
def _v_red_sum(s: State, dst: int, a: int, rows: int, cols: int, a_stride: int, running: int) -> None:
    total, invalid = s.row_accumulators(rows)
    if not running:
        total[:], invalid[:] = 0, False
    addend, bad = accumulator.sum_rows(s.tile(a, rows, cols, a_stride))
    total += addend
    invalid |= bad
    s.scalars(dst, rows)[:] = np.where(invalid, np.float32(np.nan), accumulator.to_fp32(total, accumulator.VECTOR_FRACTION))


def _comparable(x: F32) -> F32:
    """NaN never wins a maximum."""
    return np.where(np.isnan(x), np.float32(-np.inf), x)


@_effect("V_RED_MAX")
def _v_red_max(s: State, dst: int, a: int, rows: int, cols: int, a_stride: int, running: int) -> None:
    best, top = s.scalars(dst, rows), _comparable(s.tile(a, rows, cols, a_stride)).max(axis=1)
    best[:] = np.maximum(_comparable(best), top) if running else top


@_effect("V_RED_MAX_IDX")
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
    scores, companion = _tiles(s, a, b, rows, cols, a_stride, b_stride)
    scores = _comparable(scores)
    column, row = scores.argmax(axis=1), np.arange(rows)
    top = scores[row, column]
    best, where, value = s.scalars(dst, rows), s.words(index, rows), s.scalars(picked, rows)
    wins = top > best if running else np.ones(rows, bool)
    best[wins], where[wins], value[wins] = top[wins], base + column[wins], companion[row, column][wins]


# Vector engine: scalars


@_effect("F_FILL")
def _f_fill(s: State, dst: int, count: int, value: float) -> None:
    s.scalars(dst, count)[:] = np.float32(value)


@_effect("F_ADD_I")
def _f_add_i(s: State, dst: int, a: int, count: int, value: float) -> None:
    s.scalars(dst, count)[:] = s.scalars(a, count) + np.float32(value)


@_effect("F_MUL_I")
def _f_mul_i(s: State, dst: int, a: int, count: int, value: float) -> None:
    s.scalars(dst, count)[:] = s.scalars(a, count) * np.float32(value)


@_effect("F_SUB")
def _f_sub(s: State, dst: int, a: int, b: int, count: int) -> None:
    s.scalars(dst, count)[:] = s.scalars(a, count) - s.scalars(b, count)


@_effect("F_MUL")
def _f_mul(s: State, dst: int, a: int, b: int, count: int) -> None:
    s.scalars(dst, count)[:] = s.scalars(a, count) * s.scalars(b, count)


@_effect("F_EXP")
def _f_exp(s: State, dst: int, a: int, count: int) -> None:
    s.scalars(dst, count)[:] = functions.exp(bf16.round(s.scalars(a, count)))


@_effect("F_RECIP")
def _f_recip(s: State, dst: int, a: int, count: int) -> None:
    s.scalars(dst, count)[:] = functions.reciprocal_fp32(s.scalars(a, count))


@_effect("F_RSQRT")
def _f_rsqrt(s: State, dst: int, a: int, count: int) -> None:
    s.scalars(dst, count)[:] = functions.rsqrt_fp32(s.scalars(a, count))


@_effect("F_UNIFORM")
def _f_uniform(s: State, dst: int, seed: int, step: int, position: int, count: int) -> None:
    bits = noise.position_bits(seed % 2**32, step % 2**32, position + np.arange(count))
    s.scalars(dst, count)[:] = noise.uniform(bits)


# Vector engine: integers


@_effect("I_EQ_I")
def _i_eq_i(s: State, dst: int, a: int, count: int, value: int) -> None:
    s.words(dst, count)[:] = s.words(a, count) == value


@_effect("V_TOPK_MASK")
def _v_topk_mask(s: State, dst: int, f: int, eligible: int, k: int, count: int) -> None:
    scores, candidates = _comparable(s.scalars(f, count)), np.flatnonzero(s.words(eligible, count))
    ranked = candidates[np.argsort(-scores[candidates], kind="stable")]
    mask = s.words(dst, count)
    mask[:] = 0
    mask[ranked[: max(k, 0)]] = 1


@_effect("V_SELECT_INT")
def _v_select_int(s: State, dst: int, mask: int, a: int, b: int, count: int) -> None:
    s.words(dst, count)[:] = np.where(s.words(mask, count) != 0, s.words(a, count), s.words(b, count))

"""The vector engine's lanes: tiles of BF16."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unmask.machine.semantics.registry import effect, two_tiles
from unmask.machine.state import F32, State
from unmask.numerics import bf16, functions, noise


@effect("V_ADD")
def _v_add(s: State, dst: int, a: int, b: int, rows: int, cols: int, dst_stride: int, a_stride: int, b_stride: int) -> None:
    s.tile(dst, rows, cols, dst_stride)[:] = bf16.add(*two_tiles(s, a, b, rows, cols, a_stride, b_stride))


@effect("V_SUB")
def _v_sub(s: State, dst: int, a: int, b: int, rows: int, cols: int, dst_stride: int, a_stride: int, b_stride: int) -> None:
    s.tile(dst, rows, cols, dst_stride)[:] = bf16.subtract(*two_tiles(s, a, b, rows, cols, a_stride, b_stride))


@effect("V_MUL")
def _v_mul(s: State, dst: int, a: int, b: int, rows: int, cols: int, dst_stride: int, a_stride: int, b_stride: int) -> None:
    s.tile(dst, rows, cols, dst_stride)[:] = bf16.multiply(*two_tiles(s, a, b, rows, cols, a_stride, b_stride))


@effect("V_SUB_F")
def _v_sub_f(s: State, dst: int, a: int, f: int, rows: int, cols: int, dst_stride: int, a_stride: int) -> None:
    scalars = bf16.round(s.scalars(f, rows))[:, None]
    s.tile(dst, rows, cols, dst_stride)[:] = bf16.subtract(s.tile(a, rows, cols, a_stride), scalars)


@effect("V_MUL_F")
def _v_mul_f(s: State, dst: int, a: int, f: int, rows: int, cols: int, dst_stride: int, a_stride: int) -> None:
    scalars = bf16.round(s.scalars(f, rows))[:, None]
    s.tile(dst, rows, cols, dst_stride)[:] = bf16.multiply(s.tile(a, rows, cols, a_stride), scalars)


@effect("V_MUL_I")
def _v_mul_i(s: State, dst: int, a: int, rows: int, cols: int, dst_stride: int, a_stride: int, value: float) -> None:
    s.tile(dst, rows, cols, dst_stride)[:] = bf16.multiply(s.tile(a, rows, cols, a_stride), np.array(value, np.float32))


@effect("V_FILL")
def _v_fill(s: State, dst: int, rows: int, cols: int, dst_stride: int, value: float) -> None:
    s.tile(dst, rows, cols, dst_stride)[:] = bf16.round(np.full((rows, cols), value, np.float32))


@effect("V_EXP")
def _v_exp(s: State, dst: int, a: int, rows: int, cols: int, dst_stride: int, a_stride: int) -> None:
    s.tile(dst, rows, cols, dst_stride)[:] = functions.exp(s.tile(a, rows, cols, a_stride))


@effect("V_SILU")
def _v_silu(s: State, dst: int, a: int, rows: int, cols: int, dst_stride: int, a_stride: int) -> None:
    s.tile(dst, rows, cols, dst_stride)[:] = functions.silu(s.tile(a, rows, cols, a_stride))


def noisy(x: F32, seed: int, step: int, positions: NDArray[np.int64], token: int, temperature: int) -> F32:
    """x + temperature * Gumbel noise, [rows, cols]: of each row's position, and tokens that count columns; the temperature is BF16 bits."""
    tokens, factor = token + np.arange(x.shape[1]), float(bf16.from_bits(np.array(temperature % 2**16, np.uint16)))
    return noise.noisy(x, seed % 2**32, step % 2**32, positions, tokens, factor)


@effect("V_GUMBEL")
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
    s.tile(dst, rows, cols, dst_stride)[:] = noisy(
        s.tile(a, rows, cols, a_stride), seed, step, position + np.arange(rows), token, temperature
    )


@effect("V_XEXP")
def _v_xexp(s: State, dst: int, a: int, rows: int, cols: int, dst_stride: int, a_stride: int) -> None:
    s.tile(dst, rows, cols, dst_stride)[:] = functions.xexp(s.tile(a, rows, cols, a_stride))


@effect("V_RECIP")
def _v_recip(s: State, dst: int, a: int, rows: int, cols: int, dst_stride: int, a_stride: int) -> None:
    s.tile(dst, rows, cols, dst_stride)[:] = functions.reciprocal(s.tile(a, rows, cols, a_stride))


@effect("V_POW2")
def _v_pow2(s: State, dst: int, a: int, rows: int, cols: int, dst_stride: int, a_stride: int) -> None:
    s.tile(dst, rows, cols, dst_stride)[:] = functions.power_of_two(s.tile(a, rows, cols, a_stride))


@effect("V_DROP")
def _v_drop(s: State, dst: int, index: int, base: int, rows: int, cols: int, dst_stride: int) -> None:
    column = s.words(index, rows).astype(np.int64) - base
    inside = np.flatnonzero((column >= 0) & (column < cols))
    s.tile(dst, rows, cols, dst_stride)[inside, column[inside]] = -np.inf


@effect("V_CUT")
def _v_cut(s: State, dst: int, a: int, key: int, rows: int, cols: int, dst_stride: int, a_stride: int) -> None:
    values = s.tile(a, rows, cols, a_stride)
    kept = (bf16.ordered(values) >= s.words(key, rows)[:, None]) | np.isnan(values)
    s.tile(dst, rows, cols, dst_stride)[:] = bf16.round(np.where(kept, values, np.float32(-np.inf)))

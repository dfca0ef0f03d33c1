"""The vector engine's scalar unit: FP32 words of the float SRAM."""

from __future__ import annotations

import numpy as np

from unmask.machine.semantics.registry import effect
from unmask.machine.state import F32, State
from unmask.numerics import bf16, functions, noise


def _put(s: State, dst: int, count: int, values: F32) -> None:
    s.scalars(dst, count)[:] = functions.canonical(values)


@effect("F_FILL")
def _f_fill(s: State, dst: int, count: int, value: float) -> None:
    _put(s, dst, count, np.full(count, value, np.float32))


@effect("F_ADD_I")
def _f_add_i(s: State, dst: int, a: int, count: int, value: float) -> None:
    _put(s, dst, count, s.scalars(a, count) + np.float32(value))


@effect("F_MUL_I")
def _f_mul_i(s: State, dst: int, a: int, count: int, value: float) -> None:
    _put(s, dst, count, s.scalars(a, count) * np.float32(value))


@effect("F_SUB")
def _f_sub(s: State, dst: int, a: int, b: int, count: int) -> None:
    _put(s, dst, count, s.scalars(a, count) - s.scalars(b, count))


@effect("F_MUL")
def _f_mul(s: State, dst: int, a: int, b: int, count: int) -> None:
    _put(s, dst, count, s.scalars(a, count) * s.scalars(b, count))


@effect("F_EXP")
def _f_exp(s: State, dst: int, a: int, count: int) -> None:
    s.scalars(dst, count)[:] = functions.exp(bf16.round(s.scalars(a, count)))


@effect("F_RECIP")
def _f_recip(s: State, dst: int, a: int, count: int) -> None:
    s.scalars(dst, count)[:] = functions.reciprocal_fp32(s.scalars(a, count))


@effect("F_RSQRT")
def _f_rsqrt(s: State, dst: int, a: int, count: int) -> None:
    s.scalars(dst, count)[:] = functions.rsqrt_fp32(s.scalars(a, count))


@effect("F_UNIFORM")
def _f_uniform(s: State, dst: int, seed: int, step: int, position: int, count: int) -> None:
    bits = noise.position_bits(seed % 2**32, step % 2**32, position + np.arange(count))
    s.scalars(dst, count)[:] = noise.uniform(bits)


@effect("F_LOG")
def _f_log(s: State, dst: int, a: int, count: int) -> None:
    s.scalars(dst, count)[:] = functions.log_fp32(s.scalars(a, count))


@effect("F_GUMBEL")
def _f_gumbel(s: State, dst: int, a: int, seed: int, step: int, position: int, count: int) -> None:
    bits = noise.position_bits(seed % 2**32, step % 2**32, position + np.arange(count))
    _put(s, dst, count, s.scalars(a, count) + noise.gumbel_fp32(bits))


@effect("F_FROM_INT")
def _f_from_int(s: State, dst: int, a: int, count: int) -> None:
    s.scalars(dst, count)[:] = s.words(a, count).astype(np.float32)


@effect("F_LT")
def _f_lt(s: State, dst: int, a: int, b: int, count: int) -> None:
    s.words(dst, count)[:] = s.scalars(a, count) < s.scalars(b, count)

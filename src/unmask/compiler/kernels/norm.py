"""RMSNorm: x * rsqrt(mean(x^2) + eps) * weight, of rows or of every head of a row."""

from __future__ import annotations

import numpy as np

from unmask.compiler.context import Context, Tile
from unmask.compiler.emitter import Address
from unmask.numerics import functions


def rms_norm(c: Context, dst: Tile, x: Tile, weight: Tile, eps: float, squares: Tile | None = None) -> None:
    """dst = norm of the rows of `x`; `weight` is one row. `squares` is scratch; without it, `dst` and `x` differ."""
    squares = dst if squares is None else squares
    with c.floats.scope():
        scale = c.scalars(x.rows, "the scales of a norm")
        c.binary("V_MUL", squares, x, x)
        c.reduce("V_RED_SUM", scale, squares)
        c.e.emit("F_MUL_I", dst=scale, a=scale, count=x.rows, value=functions.mean_factor(x.cols))
        c.e.emit("F_ADD_I", dst=scale, a=scale, count=x.rows, value=float(np.float32(eps)))
        c.e.emit("F_RSQRT", dst=scale, a=scale, count=x.rows)
        c.unary("V_MUL_F", dst, x, f=scale)
        c.binary("V_MUL", dst, dst, weight)


def head_norm(c: Context, x: Tile, weight: Tile, eps: float) -> None:
    """Norm of every head of `x` [rows, heads * head_dim] in place; `weight` is one row of `head_dim`."""
    with c.vector.scope():
        squares = c.tile(x.rows, weight.cols, "the squares of a head")
        start = c.e.var(x.at)
        with c.e.loop(x.cols // weight.cols, {start: weight.cols}):
            head = Tile(Address(start, 0), x.rows, weight.cols, x.stride)
            rms_norm(c, head, head, weight, eps, squares)
        c.e.release(start)

"""RMSNorm: x * rsqrt(mean(x^2) + eps) * weight."""

from __future__ import annotations

import numpy as np

from unmask.compiler.context import Context, Tile
from unmask.numerics import functions


def rms_norm(c: Context, dst: Tile, x: Tile, weight: Tile, eps: float) -> None:
    """dst = norm of the rows of `x`; `weight` is one row. `dst` and `x` differ."""
    with c.floats.scope():
        scale = c.scalars(x.rows, "the scales of a norm")
        c.binary("V_MUL", dst, x, x)
        c.reduce("V_RED_SUM", scale, dst)
        c.e.emit("F_MUL_I", dst=scale, a=scale, count=x.rows, value=functions.mean_factor(x.cols))
        c.e.emit("F_ADD_I", dst=scale, a=scale, count=x.rows, value=float(np.float32(eps)))
        c.e.emit("F_RSQRT", dst=scale, a=scale, count=x.rows)
        c.unary("V_MUL_F", dst, x, f=scale)
        c.binary("V_MUL", dst, dst, weight)

"""Dream's cuts, `top_p` and `top_k`, without a sort: 16 trials find the bound of a row, from the top bit of its ordered logits down.

Each trial streams the logits once and asks of one bit whether what lies at or above the bound would still exceed the limit. The cut is by
value: equal logits stay or go together.
"""

from __future__ import annotations

from collections.abc import Callable

from unmask.compiler.context import Context, Tile
from unmask.compiler.emitter import Var
from unmask.compiler.sampling.logits import LogitStream, Rows
from unmask.quant.cut import KEY_BITS, rank_limit, sharpness


def exponents(c: Context, dst: Tile, a: Tile, maximum: int, temperature: float) -> None:
    """dst = (a - maximum) / temperature; `maximum` is the float SRAM address of one scalar per row."""
    c.unary("V_SUB_F", dst, a, f=maximum)
    scale = sharpness(temperature)
    if scale != 1:
        c.unary("V_MUL_I", dst, dst, value=scale)


def find_mass(c: Context, stream: LogitStream, rows: Rows, maximum: int, temperature: float, top_p: float, key: int) -> None:
    """Leave at `key` of the integer SRAM the largest bound above which each row has more than `top_p` of its probability."""
    with c.floats.scope():
        limit, measure = (c.scalars(rows.count, f"the search in {rows.count} rows") for _ in range(2))

        def add_up(chunk: Tile, token: Var, running: bool) -> None:
            exponents(c, chunk, chunk, maximum, temperature)
            c.unary("V_EXP", chunk, chunk)
            c.reduce("V_RED_SUM", limit, chunk, running)

        def weigh(chunk: Tile) -> Tile:
            weights = stream.scratch(chunk)
            exponents(c, weights, chunk, maximum, temperature)
            c.unary("V_EXP", weights, weights)
            return weights

        stream.each(rows, add_up)
        c.e.emit("F_MUL_I", dst=limit, a=limit, count=rows.count, value=top_p)
        _search(c, stream, rows, key, limit, measure, weigh)


def find_rank(c: Context, stream: LogitStream, rows: Rows, top_k: int, key: int) -> None:
    """Leave at `key` of the integer SRAM the bound at or above which each row has its `top_k` largest logits."""
    with c.floats.scope():
        limit, measure = (c.scalars(rows.count, f"the search in {rows.count} rows") for _ in range(2))
        ones = stream.scratch_row()
        c.e.emit("V_FILL", dst=ones.at, rows=1, cols=ones.cols, dst_stride=ones.stride, value=1.0)
        c.e.emit("F_FILL", dst=limit, count=rows.count, value=rank_limit(top_k))
        _search(c, stream, rows, key, limit, measure, lambda chunk: ones)


def _search(c: Context, stream: LogitStream, rows: Rows, key: int, limit: int, measure: int, weigh: Callable[[Tile], Tile]) -> None:
    """Set the bits of `key`, from the top, with which the weights at or above it still sum to more than the limit."""
    c.e.emit("I_FILL", dst=key, value=0, count=rows.count)
    bit = c.e.var(KEY_BITS - 1)

    def trial(chunk: Tile, token: Var, running: bool) -> None:
        weights = weigh(chunk)
        c.e.emit(
            "V_RED_SUM_GE",
            dst=measure,
            a=weights.at,
            b=chunk.at,
            key=key,
            bit=bit,
            rows=chunk.rows,
            cols=chunk.cols,
            a_stride=weights.stride if weights.rows == chunk.rows else 0,
            b_stride=chunk.stride,
            running=int(running),
        )

    with c.e.loop(KEY_BITS, {bit: -1}):
        stream.each(rows, trial)
        c.e.emit("I_SET_BIT_GT", dst=key, a=measure, b=limit, bit=bit, count=rows.count)
    c.e.release(bit)


def apply(c: Context, chunk: Tile, keys: list[int]) -> None:
    """Set the logits below any of the bounds to minus infinity."""
    for key in keys:
        c.unary("V_CUT", chunk, chunk, key=key)

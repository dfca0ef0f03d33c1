"""Rotary embedding in place, head by head (the rotate-half convention)."""

from __future__ import annotations

from unmask.compiler.context import Context, Tile
from unmask.errors import UnmaskError


def rotate(c: Context, x: Tile, cos: Tile, sin: Tile, head_dim: int) -> None:
    """Rotate every head of `x` [rows, heads * head_dim]; `cos` and `sin` are [rows, head_dim / 2].

    Raises:
        UnmaskError: the second half of a head starts where the machine's vectors cannot.
    """
    half, granule = head_dim // 2, c.machine.vector.granule
    if half % granule:
        raise UnmaskError(f"half of a head has {half} channels; machine {c.machine.name} needs a multiple of {granule} (vector.granule)")
    with c.vector.scope():
        first_cos, second_sin, second_cos = (c.tile(x.rows, half, "the products of a rotation") for _ in range(3))
        start = c.e.var(x.at)
        head = x.moved(start)
        first, second = head.columns(0, half), head.columns(half, half)
        with c.e.loop(x.cols // head_dim, {start: head_dim}):
            c.binary("V_MUL", first_cos, first, cos)
            c.binary("V_MUL", second_sin, second, sin)
            c.binary("V_MUL", second_cos, second, cos)
            c.binary("V_MUL", second, first, sin)
            c.binary("V_SUB", first, first_cos, second_sin)
            c.binary("V_ADD", second, second_cos, second)
        c.e.release(start)

"""SwiGLU: down(silu(gate(x)) * up(x))."""

from __future__ import annotations

from unmask.compiler.context import Context, Tile
from unmask.compiler.emitter import Var
from unmask.compiler.kernels.linear import product
from unmask.compiler.memory import MxMatrix


def feed_forward(c: Context, dst: Tile, x: Tile, gate: MxMatrix, up: MxMatrix, down: MxMatrix, layer: Var) -> None:
    """dst = feed-forward of the rows of `x`; `layer` holds the byte offset of the layer's weights. `dst` may be `x`."""
    with c.vector.scope():
        hidden = c.tile(x.rows, gate.rows, "the gate of the feed-forward")
        other = c.tile(x.rows, up.rows, "the up projection of the feed-forward")
        product(c, hidden, x, gate, layer)
        product(c, other, x, up, layer)
        c.unary("V_SILU", hidden, hidden)
        c.binary("V_MUL", hidden, hidden, other)
        product(c, dst, hidden, down, layer)

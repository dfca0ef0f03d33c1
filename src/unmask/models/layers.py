"""The seam between a network and a cache: who runs each transformer block, and on which keys and values.

A network embeds the rows it is fed and then hands every block to a `LayerRunner`, if it is given one. A runner stands
between the two halves of a block, and so can keep keys and values, leave rows out or replace what a block gives for them.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from unmask.models.arithmetic import Arithmetic


class TransformerBlock(Protocol):
    """A block in two halves; every family's block is one."""

    def project(self, x: Tensor, cos: Tensor, sin: Tensor, arithmetic: Arithmetic) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries [batch, heads, rows, head_dim], rotated keys and values [batch, kv_heads, rows, head_dim] of `x`."""
        ...

    def attend(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, attention_bias: Tensor | None, arithmetic: Arithmetic) -> Tensor:
        """The residual stream [batch, rows, width] after attention to `k` and `v` [batch, kv_heads, keys, head_dim] and feed-forward."""
        ...


class LayerRunner(Protocol):
    """Runs one block on the residual stream of the rows that are fed."""

    def __call__(
        self,
        index: int,
        block: TransformerBlock,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        attention_bias: Tensor | None,
        arithmetic: Arithmetic,
    ) -> Tensor:
        """Run.

        Args:
            index: of the layer, from 0.
            block: the layer.
            x: [batch, rows, width], the residual stream before it.
            cos, sin: float32 [rows, head_dim], the rotary tables at the rows' positions.
            attention_bias: bool, broadcastable to [batch, heads, rows, keys], False where a key must not be seen; None: all seen.
            arithmetic: what the block is computed in.

        Returns:
            The residual stream after the block, of the shape of `x`.
        """
        ...

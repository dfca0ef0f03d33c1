"""The transformer block of this package's families, and the seam between a network and a cache.

A network embeds the rows it is fed and then hands every block to a `LayerRunner`, if it is given one. A runner stands
between the two halves of a block, and so can keep keys and values, leave rows out or replace what a block gives for them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from unmask.models.arithmetic import Arithmetic

Rows = range | Tensor
"""Canvas positions of the rows that are fed, ascending: consecutive ones, or any, int64 [rows]."""


def row_index(rows: Rows) -> slice | Tensor:
    """What picks `rows` out of an axis over the whole canvas."""
    return slice(rows.start, rows.stop) if isinstance(rows, range) else rows


@dataclass(frozen=True)
class Architecture:
    """The sizes of a network, whatever its family's configuration calls them.

    Attributes:
        width: of the residual stream; `heads` x `head_dim`.
        feed_forward: width between gate and down projection.
        embedding_rows: of the embedding table and the LM head; rows beyond `vocab_size` only pad them.
        max_sequence_length: the longest canvas.
        shifted_logits: row `i` of the logits predicts position `i + 1`.
        qkv_bias: query, key and value projections add a bias.
        qk_norm: every head's queries and keys are normalised before they are rotated.
        experts, experts_per_token: of a mixture in place of the feed-forward, `feed_forward` wide each; 0: there is none.
        normalised_routing: the weights of a token's experts sum to 1.
    """

    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    vocab_size: int
    embedding_rows: int
    max_sequence_length: int
    norm_eps: float
    rope_theta: float
    mask_token_id: int
    eos_token_id: int
    shifted_logits: bool
    qkv_bias: bool = False
    qk_norm: bool = False
    experts: int = 0
    experts_per_token: int = 0
    normalised_routing: bool = False


class RMSNorm(nn.Module):
    """The weight of a root-mean-square norm over the last axis."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor, arithmetic: Arithmetic) -> Tensor:
        return arithmetic.norm(x, self.weight, self.eps)


@dataclass(frozen=True)
class GatedFeedForward:
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    gate: nn.Linear
    up: nn.Linear
    down: nn.Linear

    def compute(self, x: Tensor, arithmetic: Arithmetic) -> Tensor:
        """Of rows [..., width], the same shape."""
        gate, up = arithmetic.linear(x, self.gate.weight), arithmetic.linear(x, self.up.weight)
        return arithmetic.linear(arithmetic.gated(gate, up), self.down.weight)


@dataclass(frozen=True)
class ExpertMixture:
    """Feed-forwards of which every row takes those that a router chooses (Shazeer et al., arXiv 1701.06538).

    Attributes:
        router: a score per expert.
        experts: all feed-forwards.
        chosen: how many a row takes.
        normalised: the weights of a row's experts sum to 1.
    """

    router: nn.Linear
    experts: Sequence[GatedFeedForward]
    chosen: int
    normalised: bool

    def compute(self, x: Tensor, arithmetic: Arithmetic) -> Tensor:
        """Of rows [..., width], the same shape. A row's experts are added up in ascending order, from 0; a weight of 0 adds nothing."""
        rows = x.flatten(0, -2)
        weights = arithmetic.route(rows, self.router.weight, self.chosen, self.normalised)
        total = torch.zeros_like(rows)
        for expert, weight in zip(self.experts, weights.unbind(-1), strict=True):
            taken = (weight != 0).nonzero()[:, 0]
            if len(taken):
                share = arithmetic.scaled(expert.compute(rows[taken], arithmetic), weight[taken, None])
                total = total.index_copy(0, taken, arithmetic.add(total[taken], share))
        return total.view(x.shape)


@dataclass(frozen=True)
class BlockParts:
    """A block's modules by what they do, whatever the checkpoint calls them."""

    attention_norm: RMSNorm
    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    output: nn.Linear
    feed_forward_norm: RMSNorm
    feed_forward: GatedFeedForward | ExpertMixture
    query_norm: RMSNorm | None = None
    key_norm: RMSNorm | None = None


class TransformerBlock(nn.Module, ABC):
    """A Llama block: attention over the whole canvas, then a gated feed-forward or a mixture of them.

    It runs in two halves, `project` and `attend`, so that a cache can stand between the keys and values of the rows that are fed
    and those that the queries look at. A family names the modules; what is computed stands here.
    """

    head_dim: int

    @property
    @abstractmethod
    def parts(self) -> BlockParts:
        """The block's modules."""

    def _heads(self, x: Tensor, projection: nn.Linear, arithmetic: Arithmetic) -> Tensor:
        y = arithmetic.linear(x, projection.weight, projection.bias)
        return y.view(*y.shape[:-1], -1, self.head_dim).transpose(1, 2)

    def project(self, x: Tensor, cos: Tensor, sin: Tensor, arithmetic: Arithmetic) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries [batch, heads, rows, head_dim], rotated keys and values [batch, kv_heads, rows, head_dim] of `x`."""
        parts = self.parts
        h = parts.attention_norm(x, arithmetic)
        q, k, v = (self._heads(h, projection, arithmetic) for projection in (parts.query, parts.key, parts.value))
        if parts.query_norm is not None and parts.key_norm is not None:
            q, k = parts.query_norm(q, arithmetic), parts.key_norm(k, arithmetic)
        return arithmetic.rotate(q, cos, sin), arithmetic.rotate(k, cos, sin), v

    def attend(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, attention_bias: Tensor | None, arithmetic: Arithmetic) -> Tensor:
        """The residual stream [batch, rows, width] after attention to `k` and `v` [batch, kv_heads, keys, head_dim] and feed-forward."""
        parts = self.parts
        attended = arithmetic.attention(q, k, v, attention_bias).transpose(1, 2).flatten(-2)
        x = arithmetic.add(x, arithmetic.linear(attended, parts.output.weight))
        return arithmetic.add(x, parts.feed_forward.compute(parts.feed_forward_norm(x, arithmetic), arithmetic))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attention_bias: Tensor | None, arithmetic: Arithmetic) -> Tensor:
        q, k, v = self.project(x, cos, sin, arithmetic)
        return self.attend(x, q, k, v, attention_bias, arithmetic)


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
            cos, sin: float32, the rotary tables at the rows' positions: [rows, head_dim], or [batch, 1, rows, head_dim] where these differ
                in a batch.
            attention_bias: bool, broadcastable to [batch, heads, rows, keys], False where a key must not be seen; None: all seen.
            arithmetic: what the block is computed in.

        Returns:
            The residual stream after the block, of the shape of `x`.
        """
        ...

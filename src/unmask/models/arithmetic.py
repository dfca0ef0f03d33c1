"""The seam between a network and the number formats that it is computed in.

A network says which operation is applied to which tensor; an `Arithmetic` says what that operation gives. The same network code
therefore runs in float32, in bfloat16, or in the formats of a machine, and there is no second copy of it to drift.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional


class Arithmetic(Protocol):
    """Every operation that a network of this package is made of.

    Shapes: `positions` is the canvas (or the part of it that is fed), `heads` may be a multiple of `kv_heads` (grouped attention,
    in which query head `h` reads K/V head `h * kv_heads // heads`). An implementation must not modify its arguments.
    """

    def embed(self, ids: Tensor, table: Tensor) -> Tensor:
        """Rows of `table` [vocabulary, width] at `ids` int64 [batch, positions]: [batch, positions, width]."""
        ...

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Root-mean-square norm of `x` [..., width] over its last axis, scaled by `weight` [width]."""
        ...

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """`x` [..., inputs] times the transpose of `weight` [outputs, inputs], plus `bias` [outputs]: [..., outputs]."""
        ...

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotary embedding of `x` [batch, heads, positions, head_dim] by float32 tables [positions, head_dim] or [batch, 1, positions,
        head_dim].
        """
        ...

    def attention(self, q: Tensor, k: Tensor, v: Tensor, attention_bias: Tensor | None) -> Tensor:
        """Bidirectional attention, scores scaled by `head_dim ** -0.5`.

        Args:
            q: [batch, heads, positions, head_dim].
            k, v: [batch, kv_heads, keys, head_dim].
            attention_bias: bool, broadcastable to [batch, heads, positions, keys]; False where a key must not be seen. None: all seen.

        Returns:
            [batch, heads, positions, head_dim].
        """
        ...

    def gated(self, gate: Tensor, up: Tensor) -> Tensor:
        """`silu(gate) * up`, both [..., ffn]."""
        ...

    def route(self, x: Tensor, weight: Tensor, chosen: int, normalised: bool) -> Tensor:
        """The weights of a mixture's experts for rows of `x` [rows, width]: [rows, experts].

        Scores are `linear` with the router's `weight` [experts, width]; weights are their softmax at the `chosen` experts of highest score
        and 0 elsewhere, divided by their sum if `normalised`.
        """
        ...

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """The residual sum of two tensors of one shape."""
        ...

    def scaled(self, x: Tensor, factor: Tensor) -> Tensor:
        """`x` times `factor`, which broadcasts to its shape."""
        ...

    def logits(self, x: Tensor, weight: Tensor) -> Tensor:
        """The LM head, `linear` in shape; apart because its result feeds the sampler, which may have a format of its own."""
        ...

    def guidance(self, conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        """Classifier-free guidance of logits of one shape: `unconditional + (scale + 1) (conditional - unconditional)`."""
        ...


class FloatArithmetic:
    """PyTorch's own floating point, as the published implementations compute it: norm and rotary embedding and the softmax of a
    router in float32, everything else in the dtype of the weights. Differentiable and traceable by `torch.compile`.
    """

    def embed(self, ids: Tensor, table: Tensor) -> Tensor:
        return functional.embedding(ids, table)

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
        return weight * wide.to(x.dtype)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return functional.linear(x, weight, bias)

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        wide = x.float()
        first, second = wide.chunk(2, dim=-1)
        return (wide * cos + torch.cat((-second, first), dim=-1) * sin).to(x.dtype)

    def attention(self, q: Tensor, k: Tensor, v: Tensor, attention_bias: Tensor | None) -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=attention_bias, enable_gqa=q.shape[1] != k.shape[1])

    def gated(self, gate: Tensor, up: Tensor) -> Tensor:
        return functional.silu(gate) * up

    def route(self, x: Tensor, weight: Tensor, chosen: int, normalised: bool) -> Tensor:
        scores = functional.linear(x, weight).softmax(dim=-1, dtype=torch.float32)
        best, experts = scores.topk(chosen, dim=-1)
        if normalised:
            best = best / best.sum(dim=-1, keepdim=True)
        return torch.zeros_like(scores).scatter(-1, experts, best).to(x.dtype)

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y

    def scaled(self, x: Tensor, factor: Tensor) -> Tensor:
        return x * factor

    def logits(self, x: Tensor, weight: Tensor) -> Tensor:
        return functional.linear(x, weight)

    def guidance(self, conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        return unconditional + (scale + 1) * (conditional - unconditional)

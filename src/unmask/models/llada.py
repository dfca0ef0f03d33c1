"""LLaDA: a bidirectional Llama block with RMSNorm, RoPE, SwiGLU and no biases.

Nie et al., "Large Language Diffusion Models" (arXiv 2502.09992). Tensor names are those of the published checkpoints, so that a
LLaDA folder loads as it is. The arithmetic follows the published module operation by operation: norm and rotary embedding in
float32, everything else in the dtype of the weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.models.config import LladaConfig


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis, computed in float32 and scaled in the dtype of the weight."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


def rotary_tables(length: int, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position and channel: two float32 tensors of shape [length, head_dim].

    Channel `i` and channel `i + head_dim / 2` share a frequency (the rotate-half convention).
    """
    inverse_frequency = 1.0 / (theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim))
    angle = torch.outer(torch.arange(length, dtype=torch.float32), inverse_frequency)
    angle = torch.cat((angle, angle), dim=-1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of `x` [..., positions, head_dim], computed in float32, returned in the dtype of `x`."""
    wide = x.float()
    first, second = wide.chunk(2, dim=-1)
    return (wide * cos + torch.cat((-second, first), dim=-1) * sin).to(x.dtype)


class LladaBlock(nn.Module):
    """One transformer block: attention over the whole canvas, then a gated feed-forward."""

    def __init__(self, config: LladaConfig) -> None:
        super().__init__()
        width, kv_width, ffn = config.d_model, config.kv_heads * config.head_dim, config.mlp_hidden_size
        self.config = config
        self.attn_norm = RMSNorm(width, config.rms_norm_eps)
        self.ff_norm = RMSNorm(width, config.rms_norm_eps)
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, kv_width, bias=False)
        self.v_proj = nn.Linear(width, kv_width, bias=False)
        self.attn_out = nn.Linear(width, width, bias=False)
        self.ff_proj = nn.Linear(width, ffn, bias=False)
        self.up_proj = nn.Linear(width, ffn, bias=False)
        self.ff_out = nn.Linear(ffn, width, bias=False)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.config.head_dim)).transpose(1, 2)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attention_bias: Tensor | None) -> Tensor:
        h = self.attn_norm(x)
        q, k, v = self._heads(self.q_proj(h)), self._heads(self.k_proj(h)), self._heads(self.v_proj(h))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        grouped = self.config.kv_heads != self.config.n_heads
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=attention_bias, enable_gqa=grouped)
        x = x + self.attn_out(attended.transpose(1, 2).flatten(-2))
        h = self.ff_norm(x)
        return x + self.ff_out(F.silu(self.ff_proj(h)) * self.up_proj(h))


class _Transformer(nn.Module):
    def __init__(self, config: LladaConfig) -> None:
        super().__init__()
        self.wte = nn.Embedding(config.embedding_size, config.d_model)
        self.blocks = nn.ModuleList(LladaBlock(config) for _ in range(config.n_layers))
        self.ln_f = RMSNorm(config.d_model, config.rms_norm_eps)
        self.ff_out = nn.Linear(config.d_model, config.embedding_size, bias=False)


class _Model(nn.Module):
    def __init__(self, config: LladaConfig) -> None:
        super().__init__()
        self.transformer = _Transformer(config)


class Llada(nn.Module):
    """LLaDA's network: token ids in, one row of logits per position out.

    The nesting `model.transformer` exists for the tensor names of the published checkpoints.
    """

    def __init__(self, config: LladaConfig) -> None:
        super().__init__()
        self.config = config
        self.model = _Model(config)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights, which is that of the logits."""
        return self.model.transformer.wte.weight.dtype

    def hidden(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """The final, normalised hidden states.

        Args:
            ids: token ids, int64 [batch, positions].
            attention_mask: bool [batch, positions], False where a position is padding that nobody may attend to.

        Returns:
            [batch, positions, d_model] in the dtype of the weights.

        Raises:
            ValueError: more positions than `max_sequence_length`.
        """
        length = ids.shape[1]
        if length > self.config.max_sequence_length:
            raise ValueError(f"{length} positions do not fit the model's context of {self.config.max_sequence_length}")
        cos, sin = rotary_tables(length, self.config.head_dim, self.config.rope_theta)
        cos, sin = cos.to(ids.device), sin.to(ids.device)
        bias = None if attention_mask is None else attention_mask[:, None, None, :].bool()
        x = self.model.transformer.wte(ids)
        for block in self.model.transformer.blocks:
            x = block(x, cos, sin, bias)
        return self.model.transformer.ln_f(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """LM head: [..., d_model] to [..., vocab_size]; rows that only pad the embedding table are dropped."""
        return self.model.transformer.ff_out(hidden)[..., : self.config.vocab_size]

    def forward(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Logits [batch, positions, vocab_size] of every position of `ids` [batch, positions]."""
        return self.logits(self.hidden(ids, attention_mask))

"""The shape of a network, as its checkpoint folder's `config.json` states it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LladaConfig:
    """LLaDA's own configuration keys; only those that change what is computed."""

    d_model: int
    n_heads: int
    n_layers: int
    mlp_hidden_size: int
    vocab_size: int
    embedding_size: int
    max_sequence_length: int
    mask_token_id: int
    eos_token_id: int
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    n_kv_heads: int | None = None
    pad_token_id: int | None = None

    @property
    def kv_heads(self) -> int:
        return self.n_kv_heads or self.n_heads

    @property
    def head_dim(self) -> int:
        return self.d_model // self.n_heads

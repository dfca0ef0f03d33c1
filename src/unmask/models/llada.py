"""LLaDA: a bidirectional Llama block with RMSNorm, RoPE, SwiGLU and no biases.

Nie et al., "Large Language Diffusion Models" (arXiv 2502.09992). Tensor names are those of the published checkpoints, so that a
LLaDA folder loads as it is. The modules hold the parameters and say what is computed; an `Arithmetic` says how.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from unmask.models.arithmetic import Arithmetic, FloatArithmetic
from unmask.models.config import LladaConfig
from unmask.models.family import Family, Network, NetworkParts
from unmask.models.layers import BlockParts, GatedFeedForward, LayerRunner, RMSNorm, Rows, TransformerBlock, row_index


def rotary_tables(length: int, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position and channel: two float32 tensors of shape [length, head_dim].

    Channel `i` and channel `i + head_dim / 2` share a frequency (the rotate-half convention).
    """
    inverse_frequency = 1.0 / (theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim))
    angle = torch.outer(torch.arange(length, dtype=torch.float32), inverse_frequency)
    angle = torch.cat((angle, angle), dim=-1)
    return angle.cos(), angle.sin()


def rotary_rows(positions: Rows, context: int, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """The rows of `rotary_tables` at `positions`: two float32 tensors [rows, head_dim], or [batch, 1, rows, head_dim] for positions
    [batch, rows].

    Raises:
        ValueError: a position that `context`, the longest canvas of the model, does not hold.
    """
    length = positions.stop if isinstance(positions, range) else int(positions.max()) + 1
    if length > context:
        raise ValueError(f"{length} positions do not fit the model's context of {context}")
    cos, sin = (table[row_index(positions)] for table in rotary_tables(length, head_dim, theta))
    return (cos, sin) if cos.ndim == 2 else (cos[:, None], sin[:, None])


class LladaBlock(TransformerBlock):
    """One transformer block."""

    def __init__(self, config: LladaConfig) -> None:
        super().__init__()
        width, kv_width, ffn = config.d_model, config.kv_heads * config.head_dim, config.mlp_hidden_size
        self.head_dim = config.head_dim
        self.attn_norm = RMSNorm(width, config.rms_norm_eps)
        self.ff_norm = RMSNorm(width, config.rms_norm_eps)
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, kv_width, bias=False)
        self.v_proj = nn.Linear(width, kv_width, bias=False)
        self.attn_out = nn.Linear(width, width, bias=False)
        self.ff_proj = nn.Linear(width, ffn, bias=False)
        self.up_proj = nn.Linear(width, ffn, bias=False)
        self.ff_out = nn.Linear(ffn, width, bias=False)

    @property
    def parts(self) -> BlockParts:
        return BlockParts(
            attention_norm=self.attn_norm,
            query=self.q_proj,
            key=self.k_proj,
            value=self.v_proj,
            output=self.attn_out,
            feed_forward_norm=self.ff_norm,
            feed_forward=GatedFeedForward(self.ff_proj, self.up_proj, self.ff_out),
        )


class _Transformer(nn.Module):
    def __init__(self, config: LladaConfig) -> None:
        super().__init__()
        self.wte = nn.Embedding(config.embedding_size, config.d_model)
        self.blocks = nn.ModuleList(LladaBlock(config) for _ in range(config.n_layers))
        self.ln_f = RMSNorm(config.d_model, config.rms_norm_eps)
        if not config.weight_tying:
            self.ff_out = nn.Linear(config.d_model, config.embedding_size, bias=False)


class _Model(nn.Module):
    def __init__(self, config: LladaConfig) -> None:
        super().__init__()
        self.transformer = _Transformer(config)


class Llada(Network):
    """LLaDA's network: token ids in, one row of logits per position out.

    The nesting `model.transformer` exists for the tensor names of the published checkpoints. `arithmetic` may be replaced to run
    the same network in other number formats.
    """

    def __init__(self, config: LladaConfig) -> None:
        super().__init__()
        self.config = config
        self.arithmetic: Arithmetic = FloatArithmetic()
        self.model = _Model(config)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights, which is that of the logits."""
        return self.model.transformer.wte.weight.dtype

    @property
    def parts(self) -> NetworkParts:
        transformer = self.model.transformer
        blocks = [cast(TransformerBlock, block) for block in transformer.blocks]
        return NetworkParts(transformer.wte, blocks, transformer.ln_f, self.head_weight)

    @property
    def head_weight(self) -> Tensor:
        """The LM head [embedding_size, d_model]: the embedding table itself where the checkpoint ties them."""
        transformer = self.model.transformer
        return transformer.wte.weight if self.config.weight_tying else transformer.ff_out.weight

    def hidden(
        self,
        ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        positions: Rows | None = None,
        layers: LayerRunner | None = None,
    ) -> Tensor:
        """The final, normalised hidden states.

        Args:
            ids: token ids, int64 [batch, positions].
            attention_mask: bool [batch, keys], False where a position is padding that nobody may attend to. The keys are the
                positions fed, or what `layers` makes of them.
            positions: where on the canvas the ids lie, the same for every row of the batch; None: from 0.
            layers: runs the blocks; a cache is one. None: the rows that are fed see one another and nothing else.

        Returns:
            [batch, positions, d_model] in the dtype of the weights.

        Raises:
            ValueError: a position beyond `max_sequence_length`.
        """
        positions = range(ids.shape[1]) if positions is None else positions
        cos, sin = rotary_rows(positions, self.config.max_sequence_length, self.config.head_dim, self.config.rope_theta)
        cos, sin = cos.to(ids.device), sin.to(ids.device)
        bias = None if attention_mask is None else attention_mask[:, None, None, :].bool()
        x = self.arithmetic.embed(ids, self.model.transformer.wte.weight)
        for index, block in enumerate(self.model.transformer.blocks):
            run = block if layers is None else partial(layers, index, cast(TransformerBlock, block))
            x = run(x, cos, sin, bias, self.arithmetic)
        normalised: Tensor = self.model.transformer.ln_f(x, self.arithmetic)
        return normalised

    def logits(self, hidden: Tensor) -> Tensor:
        """LM head: [..., d_model] to [..., vocab_size]; rows that only pad the embedding table are dropped."""
        return self.arithmetic.logits(hidden, self.head_weight)[..., : self.config.vocab_size]

    def forward(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Logits [batch, positions, vocab_size] of every position of `ids` [batch, positions]."""
        return self.logits(self.hidden(ids, attention_mask))


def _recognises(keys: Iterable[str], model_type: object) -> bool:
    return "num_experts" not in keys and (str(model_type).lower() == "llada" or (model_type is None and "d_model" in keys))


FAMILY = Family(name="llada", recognises=_recognises, read_config=LladaConfig.from_json, build=Llada)

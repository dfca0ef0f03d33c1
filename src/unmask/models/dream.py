"""Dream: a bidirectional Qwen2 block, with biases on the query, key and value projections and grouped keys and values.

Ye et al., "Dream 7B" (arXiv 2508.15487). It was initialised from an autoregressive model and kept its convention: row `i` of the logits
predicts position `i + 1`. Tensor names are those of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from unmask.errors import UnmaskError
from unmask.models.arithmetic import Arithmetic, FloatArithmetic
from unmask.models.config import read_number
from unmask.models.family import Family, Network, NetworkParts
from unmask.models.layers import Architecture, BlockParts, GatedFeedForward, LayerRunner, RMSNorm, Rows, TransformerBlock, row_index
from unmask.models.llada import rotary_rows

# Keys of config.json that choose between formulas, with the values that mean the one computed here.
_FORMULAS: dict[str, tuple[object, ...]] = {
    "hidden_act": ("silu",),
    "rope_scaling": (None,),
    "use_sliding_window": (False, None),
    "use_mrope": (False, None),
}


@dataclass(frozen=True)
class DreamConfig:
    """Dream's own configuration keys; only those that change what is computed.

    Raises:
        ValueError: a size that is not positive, heads that do not divide the width, or a special token outside the vocabulary.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    max_position_embeddings: int
    mask_token_id: int
    eos_token_id: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    tie_word_embeddings: bool = False

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name not in ("mask_token_id", "eos_token_id", "tie_word_embeddings") and value <= 0:
                raise ValueError(f"{name} is {value}; it must be positive")
        if self.hidden_size % self.num_attention_heads or self.head_dim % 2:
            raise ValueError(
                f"hidden_size {self.hidden_size} must divide into num_attention_heads {self.num_attention_heads} heads of even width"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} must be a multiple of num_key_value_heads {self.num_key_value_heads}"
            )
        for name in ("mask_token_id", "eos_token_id"):
            if not 0 <= getattr(self, name) < self.vocab_size:
                raise ValueError(f"{name} is {getattr(self, name)}, outside the vocabulary of {self.vocab_size}")

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def max_sequence_length(self) -> int:
        return self.max_position_embeddings

    @property
    def shifted_logits(self) -> bool:
        """Row `i` of the logits predicts position `i + 1`."""
        return True

    @property
    def architecture(self) -> Architecture:
        """The sizes by their common names."""
        return Architecture(
            width=self.hidden_size,
            layers=self.num_hidden_layers,
            heads=self.num_attention_heads,
            kv_heads=self.num_key_value_heads,
            head_dim=self.head_dim,
            feed_forward=self.intermediate_size,
            vocab_size=self.vocab_size,
            embedding_rows=self.vocab_size,
            max_sequence_length=self.max_position_embeddings,
            norm_eps=self.rms_norm_eps,
            rope_theta=self.rope_theta,
            mask_token_id=self.mask_token_id,
            eos_token_id=self.eos_token_id,
            shifted_logits=self.shifted_logits,
            qkv_bias=True,
        )

    @classmethod
    def from_json(cls, values: Mapping[str, Any], path: Path) -> DreamConfig:
        """The configuration in `values`, the parsed content of the file `path`; keys that do not change the maths are ignored.

        Raises:
            UnmaskError: a missing key, a value of the wrong type, an impossible size, or a formula that is not Dream's.
        """
        for key, supported in _FORMULAS.items():
            if key in values and values[key] not in supported:
                raise UnmaskError(f"{path}: {key} is {values[key]!r}; supported: {supported[0]!r}")
        tying = values.get("tie_word_embeddings", False)
        if not isinstance(tying, bool):
            raise UnmaskError(f"{path}: tie_word_embeddings is {tying!r}; supported: True, False")
        whole = (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "max_position_embeddings",
            "mask_token_id",
            "eos_token_id",
        )
        numbers = {key: read_number(values, path, key, int) for key in whole}
        eps, theta = (read_number(values, path, key, float, default) for key, default in (("rms_norm_eps", 1e-6), ("rope_theta", 1e4)))
        try:
            return cls(**numbers, rms_norm_eps=eps, rope_theta=theta, tie_word_embeddings=tying)
        except ValueError as error:
            raise UnmaskError(f"{path}: {error}") from None

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint's `config.json` holds."""
        return {"model_type": "Dream", **{key: supported[0] for key, supported in _FORMULAS.items()}, **asdict(self)}


class _Attention(nn.Module):
    def __init__(self, config: DreamConfig) -> None:
        super().__init__()
        width, kv_width = config.hidden_size, config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, kv_width)
        self.v_proj = nn.Linear(width, kv_width)
        self.o_proj = nn.Linear(width, width, bias=False)


class _FeedForward(nn.Module):
    def __init__(self, config: DreamConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)


class DreamBlock(TransformerBlock):
    """One transformer block."""

    def __init__(self, config: DreamConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.self_attn = _Attention(config)
        self.mlp = _FeedForward(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    @property
    def parts(self) -> BlockParts:
        return BlockParts(
            attention_norm=self.input_layernorm,
            query=self.self_attn.q_proj,
            key=self.self_attn.k_proj,
            value=self.self_attn.v_proj,
            output=self.self_attn.o_proj,
            feed_forward_norm=self.post_attention_layernorm,
            feed_forward=GatedFeedForward(self.mlp.gate_proj, self.mlp.up_proj, self.mlp.down_proj),
        )


class _Model(nn.Module):
    def __init__(self, config: DreamConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DreamBlock(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Dream(Network):
    """Dream's network: token ids in, one row of logits per position out, unshifted: row `i` predicts position `i + 1`."""

    def __init__(self, config: DreamConfig) -> None:
        super().__init__()
        self.config: DreamConfig = config
        self.arithmetic: Arithmetic = FloatArithmetic()
        self.model = _Model(config)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights, which is that of the logits."""
        return self.model.embed_tokens.weight.dtype

    @property
    def parts(self) -> NetworkParts:
        blocks = [cast(TransformerBlock, block) for block in self.model.layers]
        return NetworkParts(self.model.embed_tokens, blocks, self.model.norm, self.head_weight)

    @property
    def head_weight(self) -> Tensor:
        """The LM head [vocab_size, hidden_size]: the embedding table itself where the checkpoint ties them."""
        return self.model.embed_tokens.weight if self.config.tie_word_embeddings else self.lm_head.weight

    def hidden(
        self,
        ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        positions: Rows | None = None,
        layers: LayerRunner | None = None,
    ) -> Tensor:
        """As `unmask.models.llada.Llada.hidden` documents it, but padding also changes the rotary positions: those count the positions that
        are visible, as Dream's published generation does. With `layers`, the columns of the mask are the whole canvas.
        """
        rows, bias = range(ids.shape[1]) if positions is None else positions, None
        if attention_mask is not None:
            rows, bias = _padded(attention_mask.bool(), range(ids.shape[1]) if layers is None else rows)
        cos, sin = rotary_rows(rows, self.config.max_sequence_length, self.config.head_dim, self.config.rope_theta)
        cos, sin = cos.to(ids.device), sin.to(ids.device)
        x = self.arithmetic.embed(ids, self.model.embed_tokens.weight)
        for index, block in enumerate(self.model.layers):
            run = block if layers is None else partial(layers, index, cast(TransformerBlock, block))
            x = run(x, cos, sin, bias, self.arithmetic)
        normalised: Tensor = self.model.norm(x, self.arithmetic)
        return normalised

    def logits(self, hidden: Tensor) -> Tensor:
        return self.arithmetic.logits(hidden, self.head_weight)

    def forward(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Logits [batch, positions, vocab_size] of every position of `ids` [batch, positions]."""
        return self.logits(self.hidden(ids, attention_mask))


def _padded(visible: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
    """What padding makes of rows: their rotary positions, int64 [batch, rows], and who sees whom, bool [batch, 1, rows, keys], given which
    keys are `visible`, bool [batch, keys]. Padding has position 1, sees nobody and is seen by nobody, as in Dream's published code.
    """
    place = row_index(rows)
    counted = (visible.long().cumsum(dim=-1) - 1).masked_fill(~visible, 1)
    return counted[:, place], (visible[:, place, None] & visible[:, None, :])[:, None]


def _recognises(keys: Iterable[str], model_type: object) -> bool:
    return str(model_type).lower() == "dream" or (model_type is None and {"hidden_size", "mask_token_id"} <= set(keys))


FAMILY = Family(name="dream", recognises=_recognises, read_config=DreamConfig.from_json, build=Dream)

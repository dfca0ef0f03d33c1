"""LLaDA-MoE: a bidirectional block with normalised queries and keys, and a mixture of experts in place of the feed-forward.

Zhu et al., "LLaDA-MoE: A Sparse MoE Diffusion Language Model" (arXiv 2509.24389). Tensor names are those of the published checkpoints
(`inclusionAI/LLaDA-MoE-7B-A1B-Base` and `-Instruct`: 16 layers of width 2048, 16 heads of 128, 64 experts of 1024, 8 per token). What the
paper leaves open is as in the published `modeling_lladamoe.py` (also in github.com/tqa24/dllm, dllm/pipelines/llada/models):

- queries and keys go through an RMS norm per head, with one weight for all heads, before rotary embedding;
- the router's softmax over all experts is in float32; its `norm_topk_prob` is fixed to False, so the weights of the chosen experts are not
  divided by their sum;
- a token's experts are added up in ascending order, in the dtype of the weights;
- there is no shared expert and no dense layer; row `i` of the logits predicts position `i`.

The published `config.json` calls its `model_type` "llada", as the dense model does, and has no `mask_token_id`: the model card gives 156895
(so does ggml-org/llama.cpp pull request 16003, and unsloth's diffusion profiles, which tell the two models apart as is done here).
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
from unmask.models.layers import (
    Architecture,
    BlockParts,
    ExpertMixture,
    GatedFeedForward,
    LayerRunner,
    RMSNorm,
    Rows,
    TransformerBlock,
)
from unmask.models.llada import rotary_rows

_MASK_TOKEN_ID = 156895

# Keys of config.json that choose between formulas, with the values that mean the one computed here.
_FORMULAS: dict[str, tuple[object, ...]] = {
    "hidden_act": ("silu",),
    "qk_layernorm": (True,),
    "rope_scaling": (None,),
    "partial_rotary_factor": (1.0, None),
    "attention_bias": (False, None),
    "clip_qkv": (None,),
    "shared_expert_intermediate_size": (None,),
    "moe_router_score_function": ("softmax",),
    "moe_router_enable_expert_bias": (False, None),
    "router_num_group": (None,),
    "router_topk_group": (None,),
    "routed_scaling_factor": (1.0, None),
}


@dataclass(frozen=True)
class LladaMoeConfig:
    """LLaDA-MoE's own configuration keys; only those that change what is computed.

    Raises:
        ValueError: a size that is not positive, heads that do not divide the width, more experts per token than there are, or a special
            token outside the vocabulary.
    """

    vocab_size: int
    hidden_size: int
    expert_intermediate_size: int
    num_experts: int
    num_experts_per_tok: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    max_position_embeddings: int
    mask_token_id: int
    eos_token_id: int
    rms_norm_eps: float = 1e-5
    rope_theta: float = 50000.0
    norm_topk_prob: bool = False
    tie_word_embeddings: bool = False

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name not in ("mask_token_id", "eos_token_id") and not isinstance(value, bool) and value <= 0:
                raise ValueError(f"{name} is {value}; it must be positive")
        if self.hidden_size % self.num_attention_heads or self.head_dim % 2:
            raise ValueError(
                f"hidden_size {self.hidden_size} must divide into num_attention_heads {self.num_attention_heads} heads of even width"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} must be a multiple of num_key_value_heads {self.num_key_value_heads}"
            )
        if self.num_experts_per_tok > self.num_experts:
            raise ValueError(f"num_experts_per_tok {self.num_experts_per_tok} exceeds num_experts {self.num_experts}")
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
        """Row `i` of the logits predicts position `i`."""
        return False

    @property
    def architecture(self) -> Architecture:
        """The sizes by their common names."""
        return Architecture(
            width=self.hidden_size,
            layers=self.num_hidden_layers,
            heads=self.num_attention_heads,
            kv_heads=self.num_key_value_heads,
            head_dim=self.head_dim,
            feed_forward=self.expert_intermediate_size,
            vocab_size=self.vocab_size,
            embedding_rows=self.vocab_size,
            max_sequence_length=self.max_position_embeddings,
            norm_eps=self.rms_norm_eps,
            rope_theta=self.rope_theta,
            mask_token_id=self.mask_token_id,
            eos_token_id=self.eos_token_id,
            shifted_logits=self.shifted_logits,
            qk_norm=True,
            experts=self.num_experts,
            experts_per_token=self.num_experts_per_tok,
            normalised_routing=self.norm_topk_prob,
        )

    @classmethod
    def from_json(cls, values: Mapping[str, Any], path: Path) -> LladaMoeConfig:
        """The configuration in `values`, the parsed content of the file `path`; keys that do not change the maths are ignored.

        Raises:
            UnmaskError: a missing key, a value of the wrong type, an impossible size, or a formula that is not LLaDA-MoE's.
        """
        for key, supported in _FORMULAS.items():
            if key in values and values[key] not in supported:
                raise UnmaskError(f"{path}: {key} is {values[key]!r}; supported: {supported[0]!r}")
        flags = {key: values.get(key) or False for key in ("norm_topk_prob", "tie_word_embeddings")}
        for key, flag in flags.items():
            if not isinstance(flag, bool):
                raise UnmaskError(f"{path}: {key} is {flag!r}; supported: True, False")
        whole = (
            "vocab_size",
            "hidden_size",
            "expert_intermediate_size",
            "num_experts",
            "num_experts_per_tok",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "max_position_embeddings",
            "eos_token_id",
        )
        numbers = {key: read_number(values, path, key, int) for key in whole}
        mask = read_number(values, path, "mask_token_id", int, _MASK_TOKEN_ID)
        eps, theta = (read_number(values, path, key, float, default) for key, default in (("rms_norm_eps", 1e-5), ("rope_theta", 5e4)))
        kinds = values.get("moe_layer_freq")
        if kinds is not None and kinds != [1] * numbers["num_hidden_layers"]:
            raise UnmaskError(f"{path}: moe_layer_freq is {kinds!r}; supported: 1 for every layer")
        try:
            return cls(**numbers, mask_token_id=mask, rms_norm_eps=eps, rope_theta=theta, **flags)
        except ValueError as error:
            raise UnmaskError(f"{path}: {error}") from None

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint's `config.json` holds."""
        return {"model_type": "llada", **{key: supported[0] for key, supported in _FORMULAS.items()}, **asdict(self)}


class _Attention(nn.Module):
    def __init__(self, config: LladaMoeConfig) -> None:
        super().__init__()
        width, kv_width = config.hidden_size, config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, kv_width, bias=False)
        self.v_proj = nn.Linear(width, kv_width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps)


class _Expert(nn.Module):
    def __init__(self, config: LladaMoeConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.expert_intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.expert_intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.expert_intermediate_size, config.hidden_size, bias=False)

    @property
    def parts(self) -> GatedFeedForward:
        return GatedFeedForward(self.gate_proj, self.up_proj, self.down_proj)


class _Mixture(nn.Module):
    def __init__(self, config: LladaMoeConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.hidden_size, config.num_experts, bias=False)
        self.experts = nn.ModuleList(_Expert(config) for _ in range(config.num_experts))


class LladaMoeBlock(TransformerBlock):
    """One transformer block."""

    def __init__(self, config: LladaMoeConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.self_attn = _Attention(config)
        self.mlp = _Mixture(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self._chosen, self._normalised = config.num_experts_per_tok, config.norm_topk_prob

    @property
    def parts(self) -> BlockParts:
        experts = [cast(_Expert, expert).parts for expert in self.mlp.experts]
        return BlockParts(
            attention_norm=self.input_layernorm,
            query=self.self_attn.q_proj,
            key=self.self_attn.k_proj,
            value=self.self_attn.v_proj,
            output=self.self_attn.o_proj,
            feed_forward_norm=self.post_attention_layernorm,
            feed_forward=ExpertMixture(self.mlp.gate, experts, self._chosen, self._normalised),
            query_norm=self.self_attn.q_norm,
            key_norm=self.self_attn.k_norm,
        )


class _Model(nn.Module):
    def __init__(self, config: LladaMoeConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(LladaMoeBlock(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class LladaMoe(Network):
    """LLaDA-MoE's network: token ids in, one row of logits per position out."""

    def __init__(self, config: LladaMoeConfig) -> None:
        super().__init__()
        self.config: LladaMoeConfig = config
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
        """As `unmask.models.llada.Llada.hidden` documents it."""
        positions = range(ids.shape[1]) if positions is None else positions
        cos, sin = rotary_rows(positions, self.config.max_sequence_length, self.config.head_dim, self.config.rope_theta)
        cos, sin = cos.to(ids.device), sin.to(ids.device)
        bias = None if attention_mask is None else attention_mask[:, None, None, :].bool()
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


def _recognises(keys: Iterable[str], model_type: object) -> bool:
    return "num_experts" in keys and str(model_type).lower() in ("llada", "lladamoe", "llada_moe")


FAMILY = Family(name="llada-moe", recognises=_recognises, read_config=LladaMoeConfig.from_json, build=LladaMoe)

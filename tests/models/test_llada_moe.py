"""LLaDA-MoE's network: an independent formula, its folder, and its place beside LLaDA."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from unmask.errors import UnmaskError
from unmask.models.catalogue import architecture
from unmask.models.checkpoint import load_model, load_network, read_config, save_model, shapes, unfilled
from unmask.models.llada_moe import FAMILY, LladaMoe

from .small import MOE_CONFIG, small_llada_moe


def formula(model: LladaMoe, ids: np.ndarray) -> np.ndarray:
    """LLaDA-MoE from its description, in float64 numpy: one row, one head, one expert of one token at a time."""
    config = model.config
    weights = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}

    def norm(x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + config.rms_norm_eps) * weights[f"{name}.weight"]

    def rotated(x):
        half = config.head_dim // 2
        angle = np.arange(len(x))[:, None] / config.rope_theta ** (np.arange(half) / half)
        pair = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * angle)
        return np.concatenate((pair.real, pair.imag), axis=1)

    def mixture(h, prefix):
        scores = np.exp(weights[f"{prefix}.gate.weight"] @ h)
        share = scores / scores.sum()
        best = sorted(range(config.num_experts), key=lambda expert: -share[expert])[: config.num_experts_per_tok]
        whole = sum(share[best]) if config.norm_topk_prob else 1.0
        total = 0
        for expert in best:
            gate, up, down = (weights[f"{prefix}.experts.{expert}.{name}_proj.weight"] for name in ("gate", "up", "down"))
            total = total + share[expert] / whole * (down @ (gate @ h / (1 + np.exp(-gate @ h)) * (up @ h)))
        return total

    x = weights["model.embed_tokens.weight"][ids]
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}"
        h = norm(x, f"{prefix}.input_layernorm")
        q, k, v = (h @ weights[f"{prefix}.self_attn.{name}_proj.weight"].T for name in "qkv")
        heads = []
        for head in range(config.num_attention_heads):
            kv = head * config.num_key_value_heads // config.num_attention_heads
            own, shared = (slice(i * config.head_dim, (i + 1) * config.head_dim) for i in (head, kv))
            query, key = (norm(x, f"{prefix}.self_attn.{name}_norm") for name, x in (("q", q[:, own]), ("k", k[:, shared])))
            scores = np.exp(rotated(query) @ rotated(key).T / np.sqrt(config.head_dim))
            heads.append(scores / scores.sum(-1, keepdims=True) @ v[:, shared])
        x = x + np.concatenate(heads, axis=1) @ weights[f"{prefix}.self_attn.o_proj.weight"].T
        h = norm(x, f"{prefix}.post_attention_layernorm")
        x = x + np.stack([mixture(row, f"{prefix}.mlp") for row in h])
    return norm(x, "model.norm") @ model.head_weight.detach().double().numpy().T


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_key_value_heads": 1, "tie_word_embeddings": True},
        {"norm_topk_prob": True, "num_experts_per_tok": 3},
        {"num_experts": 1, "num_experts_per_tok": 1},
        {"num_experts_per_tok": 5},
    ],
    ids=str,
)
def test_network_equals_its_formula(changes):
    model = small_llada_moe(dataclasses.replace(MOE_CONFIG, **changes))
    ids = torch.randint(0, 40, (2, 17), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = model(ids)
    for row in range(2):
        np.testing.assert_allclose(logits[row].numpy(), formula(model, ids[row].numpy()), rtol=1e-4, atol=1e-4)


def test_gradients_reach_the_router_and_the_experts_that_it_chose():
    model = small_llada_moe()
    model(torch.arange(20)[None]).square().sum().backward()
    mixture = model.model.layers[0].mlp
    assert mixture.gate.weight.grad.abs().sum() > 0
    assert any(expert.down_proj.weight.grad is not None and expert.down_proj.weight.grad.abs().sum() > 0 for expert in mixture.experts)


def test_saved_model_loads_the_same(tmp_path):
    model = small_llada_moe()
    save_model(model, tmp_path)
    loaded = load_network(tmp_path)
    assert isinstance(loaded, LladaMoe)
    assert loaded.config == model.config
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())


PUBLISHED = {
    "architectures": ["LLaDAMoEModelLM"],
    "model_type": "llada",
    "attention_bias": False,
    "clip_qkv": None,
    "dense_intermediate_size": 8192,
    "eos_token_id": 156892,
    "expert_intermediate_size": 1024,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "max_position_embeddings": 8192,
    "moe_layer_freq": [1] * 16,
    "moe_router_enable_expert_bias": False,
    "moe_router_score_function": "softmax",
    "norm_topk_prob": None,
    "num_attention_heads": 16,
    "num_experts": 64,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 16,
    "num_key_value_heads": 16,
    "partial_rotary_factor": 1,
    "qk_layernorm": True,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 50000,
    "routed_scaling_factor": 1,
    "shared_expert_intermediate_size": None,
    "tie_word_embeddings": False,
    "vocab_size": 157184,
}


def test_the_published_configuration_is_that_of_the_catalogue(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED))
    family, config = read_config(tmp_path)
    assert family is FAMILY
    assert config.mask_token_id == 156895
    assert config.architecture == architecture("llada-moe-7b-a1b")


def test_tensors_have_their_published_names_and_the_network_its_published_size(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED))
    found = shapes(unfilled(*read_config(tmp_path)))
    assert found["model.layers.15.mlp.experts.63.down_proj.weight"] == (2048, 1024)
    assert found["model.layers.0.mlp.gate.weight"] == (64, 2048)
    assert found["model.layers.0.self_attn.q_norm.weight"] == (128,)
    assert found["lm_head.weight"] == (157184, 2048)
    assert round(sum(int(np.prod(shape)) for shape in found.values()) / 1e9, 2) == 7.36


def test_it_is_refused_where_a_dense_llada_is_needed(tmp_path):
    save_model(small_llada_moe(), tmp_path)
    with pytest.raises(UnmaskError, match="holds a llada-moe network; a llada one is needed here"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; supported: 'silu'"),
        ({"shared_expert_intermediate_size": 64}, "shared_expert_intermediate_size is 64; supported: None"),
        ({"moe_router_score_function": "sigmoid"}, "moe_router_score_function is 'sigmoid'; supported: 'softmax'"),
        ({"moe_layer_freq": [0, 1]}, r"moe_layer_freq is [0, 1]; supported: 1 for every layer"),
        ({"num_experts_per_tok": 6}, "num_experts_per_tok 6 exceeds num_experts 5"),
        ({"hidden_size": 18}, "hidden_size 18 must divide into num_attention_heads 4"),
        ({"num_key_value_heads": 3}, "must be a multiple of num_key_value_heads 3"),
        ({"num_experts": 0}, "num_experts is 0; it must be positive"),
        ({"mask_token_id": None}, "mask_token_id is 156895, outside the vocabulary of 40"),
        ({"norm_topk_prob": 1}, "norm_topk_prob is 1; supported: True, False"),
        ({"expert_intermediate_size": None}, "the key expert_intermediate_size is missing"),
    ],
)
def test_unsupported_configuration_is_named(tmp_path, values, expected):
    save_model(small_llada_moe(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **values}))
    with pytest.raises(UnmaskError, match=r"config\.json") as caught:
        load_network(tmp_path)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)

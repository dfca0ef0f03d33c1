"""Dream's network: an independent formula, its folder, and its place beside LLaDA."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from unmask.errors import UnmaskError
from unmask.models.checkpoint import load_model, load_network, save_model
from unmask.models.dream import Dream

from .small import DREAM_CONFIG, small_dream


def formula(model: Dream, ids: np.ndarray) -> np.ndarray:
    """Dream from its description, in float64 numpy, one row and one head at a time."""
    config = model.config
    weights = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}

    def norm(x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + config.rms_norm_eps) * weights[f"{name}.weight"]

    def rotated(x):
        half = config.head_dim // 2
        angle = np.arange(len(x))[:, None] / config.rope_theta ** (np.arange(half) / half)
        pair = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * angle)
        return np.concatenate((pair.real, pair.imag), axis=1)

    x = weights["model.embed_tokens.weight"][ids]
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}"

        def affine(h, name, prefix=prefix):
            return h @ weights[f"{prefix}.self_attn.{name}.weight"].T + weights[f"{prefix}.self_attn.{name}.bias"]

        h = norm(x, f"{prefix}.input_layernorm")
        q, k, v = (affine(h, name) for name in ("q_proj", "k_proj", "v_proj"))
        heads = []
        for head in range(config.num_attention_heads):
            kv = head * config.num_key_value_heads // config.num_attention_heads
            own, shared = (slice(i * config.head_dim, (i + 1) * config.head_dim) for i in (head, kv))
            scores = np.exp(rotated(q[:, own]) @ rotated(k[:, shared]).T / np.sqrt(config.head_dim))
            heads.append(scores / scores.sum(-1, keepdims=True) @ v[:, shared])
        x = x + np.concatenate(heads, axis=1) @ weights[f"{prefix}.self_attn.o_proj.weight"].T
        h = norm(x, f"{prefix}.post_attention_layernorm")
        gate, up, down = (weights[f"{prefix}.mlp.{name}_proj.weight"] for name in ("gate", "up", "down"))
        gate = h @ gate.T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ up.T)) @ down.T
    return norm(x, "model.norm") @ model.head_weight.detach().double().numpy().T


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("tied", [False, True])
def test_network_equals_its_formula(kv_heads, tied):
    model = small_dream(dataclasses.replace(DREAM_CONFIG, num_key_value_heads=kv_heads, tie_word_embeddings=tied))
    ids = torch.randint(0, 40, (2, 17), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = model(ids)
    for row in range(2):
        np.testing.assert_allclose(logits[row].numpy(), formula(model, ids[row].numpy()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tied", [False, True])
def test_saved_model_loads_the_same(tmp_path, tied):
    model = small_dream(dataclasses.replace(DREAM_CONFIG, tie_word_embeddings=tied))
    save_model(model, tmp_path)
    loaded = load_network(tmp_path)
    assert isinstance(loaded, Dream)
    assert loaded.config == model.config
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_dream_is_refused_where_llada_is_needed(tmp_path):
    save_model(small_dream(), tmp_path)
    with pytest.raises(UnmaskError, match="holds a dream network; a llada one is needed here"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; supported: 'silu'"),
        ({"rope_scaling": {"type": "yarn"}}, "rope_scaling is"),
        ({"use_sliding_window": True}, "use_sliding_window is True"),
        ({"hidden_size": 18}, "hidden_size 18 must divide into num_attention_heads 4"),
        ({"num_key_value_heads": 3}, "must be a multiple of num_key_value_heads 3"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0; it must be positive"),
        ({"mask_token_id": 40}, "mask_token_id is 40, outside the vocabulary of 40"),
        ({"mask_token_id": None}, "the key mask_token_id is missing"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings is 1"),
    ],
)
def test_unsupported_configuration_is_named(tmp_path, values, expected):
    save_model(small_dream(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **values}))
    with pytest.raises(UnmaskError, match=r"config\.json") as caught:
        load_network(tmp_path)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)

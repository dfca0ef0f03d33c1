"""The network: injected arithmetic, an independent formula, masks, tying, compilation."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from unmask.models.arithmetic import FloatArithmetic
from unmask.models.llada import Llada

from .small import CONFIG, small_model


def formula(model: Llada, ids: np.ndarray) -> np.ndarray:
    """LLaDA from its description, in float64 numpy, one row and one head at a time."""
    config = model.config
    weights = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}

    def norm(x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + config.rms_norm_eps) * weights[name]

    def rotated(x):
        half = config.head_dim // 2
        angle = np.arange(len(x))[:, None] / config.rope_theta ** (np.arange(half) / half)
        pair = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * angle)
        return np.concatenate((pair.real, pair.imag), axis=1)

    x = weights["model.transformer.wte.weight"][ids]
    for layer in range(config.n_layers):
        w = {name: weights[f"model.transformer.blocks.{layer}.{name}.weight"] for name in ("q_proj", "k_proj", "v_proj", "attn_out")}
        h = norm(x, f"model.transformer.blocks.{layer}.attn_norm.weight")
        heads = []
        for head in range(config.n_heads):
            kv = head * config.kv_heads // config.n_heads
            own, shared = (slice(i * config.head_dim, (i + 1) * config.head_dim) for i in (head, kv))
            q, k, v = rotated(h @ w["q_proj"][own].T), rotated(h @ w["k_proj"][shared].T), h @ w["v_proj"][shared].T
            scores = np.exp(q @ k.T / np.sqrt(config.head_dim))
            heads.append(scores / scores.sum(-1, keepdims=True) @ v)
        x = x + np.concatenate(heads, axis=1) @ w["attn_out"].T
        h = norm(x, f"model.transformer.blocks.{layer}.ff_norm.weight")
        gate, up, down = (weights[f"model.transformer.blocks.{layer}.{name}.weight"] for name in ("ff_proj", "up_proj", "ff_out"))
        gate = h @ gate.T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ up.T)) @ down.T
    logits = norm(x, "model.transformer.ln_f.weight") @ model.head_weight.detach().double().numpy().T
    return logits[:, : config.vocab_size]


@pytest.mark.parametrize("kv_heads", [None, 2, 1])
@pytest.mark.parametrize("tied", [False, True])
def test_network_equals_its_formula(kv_heads, tied):
    model = small_model(dataclasses.replace(CONFIG, n_kv_heads=kv_heads, weight_tying=tied))
    ids = torch.randint(0, 40, (3, 17), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = model(ids)
    for row in range(3):
        np.testing.assert_allclose(logits[row].numpy(), formula(model, ids[row].numpy()), rtol=1e-4, atol=1e-4)


def test_network_does_everything_through_the_arithmetic():
    calls: list[str] = []

    class Counting(FloatArithmetic):
        def __getattribute__(self, name):
            calls.append(name)
            return super().__getattribute__(name)

    model, ids = small_model(), torch.arange(10)[None]
    plain = model(ids)
    model.arithmetic = Counting()
    assert torch.equal(model(ids), plain)
    per_block = {"norm": 2, "linear": 7, "rotate": 2, "attention": 1, "gated": 1, "add": 2}
    expected = {name: 2 * count for name, count in per_block.items()} | {"embed": 1, "logits": 1}
    expected["norm"] += 1
    assert {name: calls.count(name) for name in set(calls) - {"__class__"}} == expected


def test_padding_changes_nothing_for_the_positions_that_are_visible():
    model = small_model()
    ids = torch.arange(12)[None]
    mask = torch.ones(1, 12, dtype=torch.bool)
    mask[0, :4] = False
    other = ids.clone()
    other[0, :4] = 7
    with torch.no_grad():
        torch.testing.assert_close(model(ids, mask)[:, 4:], model(other, mask)[:, 4:])
        assert not torch.allclose(model(ids)[:, 4:], model(other)[:, 4:])


def test_gradients_reach_every_parameter():
    model = small_model()
    model(torch.arange(40)[None, :30]).square().mean().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.abs().sum() > 0) for parameter in model.parameters())


def test_network_traces_without_graph_breaks():
    model, ids = small_model(), torch.arange(10)[None]
    compiled = torch.compile(model.hidden, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(ids), model.hidden(ids))


def test_canvas_longer_than_the_context_is_refused():
    with pytest.raises(ValueError, match="33 positions do not fit the model's context of 32"):
        small_model()(torch.zeros(1, 33, dtype=torch.int64))

"""A network's tensors in HBM: weights packed to MX, tables, and the layout of one layer, the same for every layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from unmask.compiler.memory import Hbm, MxMatrix, bf16_bytes, ceil_to
from unmask.models.config import LladaConfig
from unmask.models.llada import Llada, rotary_tables
from unmask.numerics import mx

_MATRICES = ("q_proj", "k_proj", "v_proj", "attn_out", "ff_proj", "up_proj", "ff_out")
_NORMS = ("attn_norm", "ff_norm")


@dataclass(frozen=True)
class NetworkImage:
    """Where a network's tensors are.

    Attributes:
        layer: matrices of layer 0 by their LLaDA names; layer i lies `layer_bytes` * i further.
        norms: HBM addresses of layer 0's norm weights, BF16.
        embedding, final_norm, cos, sin: HBM addresses of BF16 tables; cos and sin are [positions, head_dim / 2].
        head: the LM head.
    """

    config: LladaConfig
    layer: dict[str, MxMatrix]
    norms: dict[str, int]
    layer_bytes: int
    embedding: int
    final_norm: int
    cos: int
    sin: int
    head: MxMatrix


def _array(tensor: torch.Tensor) -> NDArray[np.float32]:
    return tensor.detach().to(torch.float32).numpy()


def _pack(weight: torch.Tensor, form: mx.MxFormat) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    packed = mx.quantize(_array(weight), form)
    return mx.pack(packed).reshape(-1), packed.scales.reshape(-1)


def _layer_image(block: torch.nn.Module, form: mx.MxFormat) -> tuple[NDArray[np.uint8], dict[str, tuple[int, int]]]:
    """Bytes of one layer, and the offset of every part."""
    parts: dict[str, NDArray[np.uint8]] = {}
    for name in _MATRICES:
        parts[f"{name}.elements"], parts[f"{name}.scales"] = _pack(getattr(block, name).weight, form)
    for name in _NORMS:
        parts[name] = bf16_bytes(_array(getattr(block, name).weight))
    places, size = {}, 0
    for name, content in parts.items():
        places[name] = (size, content.size)
        size = ceil_to(size + content.size, 64)
    image = np.zeros(size, np.uint8)
    for name, (start, length) in places.items():
        image[start : start + length] = parts[name]
    return image, places


def place_network(hbm: Hbm, model: Llada, positions: int, weights: mx.MxFormat) -> NetworkImage:
    """Put a network into HBM: matrices packed to `weights`, everything else in BF16.

    Args:
        positions: rows of the rotary tables.
    """
    config = model.config
    transformer = model.model.transformer
    images = [_layer_image(block, weights) for block in transformer.blocks]
    places = images[0][1]
    base = hbm.place("layers", np.concatenate([image for image, _ in images]))

    def matrix(name: str) -> MxMatrix:
        rows, cols = getattr(transformer.blocks[0], name).weight.shape
        return MxMatrix(base + places[f"{name}.elements"][0], base + places[f"{name}.scales"][0], rows, cols, weights)

    cos, sin = (_array(table)[:, : config.head_dim // 2] for table in rotary_tables(positions, config.head_dim, config.rope_theta))
    head_elements, head_scales = _pack(model.head_weight[: config.vocab_size], weights)
    return NetworkImage(
        config=config,
        layer={name: matrix(name) for name in _MATRICES},
        norms={name: base + places[name][0] for name in _NORMS},
        layer_bytes=images[0][0].size,
        embedding=hbm.place("embedding", bf16_bytes(_array(transformer.wte.weight))),
        final_norm=hbm.place("final_norm", bf16_bytes(_array(transformer.ln_f.weight))),
        cos=hbm.place("cos", bf16_bytes(np.ascontiguousarray(cos))),
        sin=hbm.place("sin", bf16_bytes(np.ascontiguousarray(sin))),
        head=MxMatrix(
            hbm.place("head.elements", head_elements),
            hbm.place("head.scales", head_scales),
            config.vocab_size,
            config.d_model,
            weights,
        ),
    )

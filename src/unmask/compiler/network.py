"""A network's tensors in HBM: weights packed to MX, tables, and the layout of one layer, the same for every layer."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from unmask.compiler.memory import Hbm, MxMatrix, bf16_bytes, ceil_to
from unmask.models.family import Network
from unmask.models.layers import Architecture, TransformerBlock
from unmask.models.llada import rotary_tables
from unmask.numerics import mx


@dataclass(frozen=True)
class NetworkImage:
    """Where a network's tensors are.

    Attributes:
        matrices: weights of layer 0 by their names in `unmask.models.layers.BlockParts`; layer i lies `layer_bytes` * i further.
        vectors: HBM addresses of layer 0's norm weights, by the same names, and of biases, as `query.bias`; BF16.
        embedding, final_norm, cos, sin: HBM addresses of BF16 tables; cos and sin are [positions, head_dim / 2].
        head: the LM head.
    """

    architecture: Architecture
    matrices: dict[str, MxMatrix]
    vectors: dict[str, int]
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


def _linears(block: TransformerBlock) -> dict[str, nn.Linear]:
    parts = block.parts
    named = ((field.name, getattr(parts, field.name)) for field in fields(parts))
    return {name: module for name, module in named if isinstance(module, nn.Linear)}


def _layer_image(block: TransformerBlock, form: mx.MxFormat) -> tuple[NDArray[np.uint8], dict[str, tuple[int, int]]]:
    """Bytes of one layer, and the offset and size of every part."""
    contents: dict[str, NDArray[np.uint8]] = {}
    for name, linear in _linears(block).items():
        contents[f"{name}.elements"], contents[f"{name}.scales"] = _pack(linear.weight, form)
        if linear.bias is not None:
            contents[f"{name}.bias"] = bf16_bytes(_array(linear.bias))
    for name in ("attention_norm", "feed_forward_norm"):
        contents[name] = bf16_bytes(_array(getattr(block.parts, name).weight))
    places, size = {}, 0
    for name, content in contents.items():
        places[name] = (size, content.size)
        size = ceil_to(size + content.size, 64)
    image = np.zeros(size, np.uint8)
    for name, (start, length) in places.items():
        image[start : start + length] = contents[name]
    return image, places


def place_network(hbm: Hbm, model: Network, positions: int, weights: mx.MxFormat) -> NetworkImage:
    """Put a network into HBM: matrices packed to `weights`, everything else in BF16.

    Args:
        positions: rows of the rotary tables.
    """
    shape: Architecture = model.config.architecture
    parts = model.parts
    images = [_layer_image(block, weights) for block in parts.blocks]
    places = images[0][1]
    base = hbm.place("layers", np.concatenate([image for image, _ in images]))

    def matrix(name: str, linear: nn.Linear) -> MxMatrix:
        rows, cols = linear.weight.shape
        return MxMatrix(base + places[f"{name}.elements"][0], base + places[f"{name}.scales"][0], rows, cols, weights)

    cos, sin = (_array(table)[:, : shape.head_dim // 2] for table in rotary_tables(positions, shape.head_dim, shape.rope_theta))
    head_elements, head_scales = _pack(parts.head[: shape.vocab_size], weights)
    return NetworkImage(
        architecture=shape,
        matrices={name: matrix(name, linear) for name, linear in _linears(parts.blocks[0]).items()},
        vectors={name: base + start for name, (start, _) in places.items() if not name.endswith((".elements", ".scales"))},
        layer_bytes=images[0][0].size,
        embedding=hbm.place("embedding", bf16_bytes(_array(parts.embedding.weight))),
        final_norm=hbm.place("final_norm", bf16_bytes(_array(parts.final_norm.weight))),
        cos=hbm.place("cos", bf16_bytes(np.ascontiguousarray(cos))),
        sin=hbm.place("sin", bf16_bytes(np.ascontiguousarray(sin))),
        head=MxMatrix(
            hbm.place("head.elements", head_elements),
            hbm.place("head.scales", head_scales),
            shape.vocab_size,
            shape.width,
            weights,
        ),
    )

"""A network's tensors in HBM: weights packed to MX, tables, and the layout of one layer, the same for every layer.

Where everything lies follows from the network's shape alone, so that a program can be compiled, and timed, without any weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from unmask.compiler.kernels.rotary import TABLES
from unmask.compiler.memory import Hbm, MxMatrix, bf16_bytes, ceil_to
from unmask.isa.table import BF16_BYTES
from unmask.models.family import Network, NetworkParts
from unmask.models.layers import Architecture, BlockParts, ExpertMixture, GatedFeedForward
from unmask.models.llada import rotary_tables
from unmask.numerics import mx

_NORMS = ("attention_norm", "feed_forward_norm")
_HEAD_NORMS = ("query_norm", "key_norm")
_ROUTER = "router"
_FEED_FORWARD = ("gate", "up", "down")


@dataclass(frozen=True)
class NetworkImage:
    """Where a network's tensors are.

    Attributes:
        matrices: weights of layer 0 by the names of `matrix_shapes`; layer i lies `layer_bytes` * i further, expert e of a layer
            `expert_bytes` * e.
        vectors: HBM addresses of layer 0's norm weights, by their names in `unmask.models.layers.BlockParts`, and of biases, as
            `query.bias`; BF16.
        embedding, final_norm, rotary: HBM addresses of BF16 tables; `rotary` is [positions, TABLES * head_dim], by
            `unmask.compiler.kernels.rotary`.
        head: the LM head.
    """

    architecture: Architecture
    matrices: dict[str, MxMatrix]
    vectors: dict[str, int]
    layer_bytes: int
    expert_bytes: int
    embedding: int
    final_norm: int
    rotary: int
    head: MxMatrix


def matrix_shapes(shape: Architecture) -> dict[str, tuple[int, int]]:
    """Rows and columns of a layer's matrices, outputs by inputs, by their names in `unmask.models.layers.BlockParts` and in its
    feed-forward; of a mixture, those of one expert.
    """
    width, kv_width, feed_forward = shape.width, shape.kv_heads * shape.head_dim, shape.feed_forward
    sizes = {
        "query": (width, width),
        "key": (kv_width, width),
        "value": (kv_width, width),
        "output": (width, width),
        "gate": (feed_forward, width),
        "up": (feed_forward, width),
        "down": (width, feed_forward),
    }
    return sizes | ({_ROUTER: (shape.experts, width)} if shape.experts else {})


def _norms(shape: Architecture) -> dict[str, int]:
    """Lengths of a layer's norm weights."""
    heads = dict.fromkeys(_HEAD_NORMS, shape.head_dim) if shape.qk_norm else {}
    return dict.fromkeys(_NORMS, shape.width) | heads


@dataclass(frozen=True)
class _LayerLayout:
    """Offset and size in bytes of every part of a layer, the size of all, and that of an expert: experts come last."""

    places: dict[str, tuple[int, int]]
    size: int
    expert_bytes: int

    @classmethod
    def of(cls, shape: Architecture, form: mx.MxFormat, router: mx.MxFormat) -> _LayerLayout:
        sizes: dict[str, int] = {}
        for name, (rows, cols) in matrix_shapes(shape).items():
            matrix = MxMatrix(0, 0, rows, cols, router if name == _ROUTER else form)
            sizes[f"{name}.elements"], sizes[f"{name}.scales"] = rows * matrix.row_bytes, rows * matrix.blocks
            if shape.qkv_bias and name in ("query", "key", "value"):
                sizes[f"{name}.bias"] = rows * BF16_BYTES
        sizes |= {name: length * BF16_BYTES for name, length in _norms(shape).items()}
        first = [name for name in sizes if not shape.experts or name.split(".")[0] not in _FEED_FORWARD]
        places, end = _in_order(sizes, first, 0)
        experts, after = _in_order(sizes, [name for name in sizes if name not in places], end)
        return cls(places | experts, end + max(shape.experts, 1) * (after - end), after - end)


def _in_order(sizes: dict[str, int], names: list[str], start: int) -> tuple[dict[str, tuple[int, int]], int]:
    """Offset and size of parts that follow each other, and the end of the last."""
    places = {}
    for name in names:
        places[name] = (start, sizes[name])
        start = ceil_to(start + sizes[name], 64)
    return places, start


def place_network(
    hbm: Hbm, model: Network | Architecture, positions: int, weights: mx.MxFormat, kv: mx.MxFormat | None = None
) -> NetworkImage:
    """Put a network into HBM: matrices packed to `weights`, everything else in BF16; of an architecture, only reserve the room.

    Args:
        positions: rows of the rotary tables.
        kv: the format of the KV cache, in which the router of a mixture is if that is wider than `weights`.
    """
    shape: Architecture = model if isinstance(model, Architecture) else model.config.architecture
    router = weights if kv is None else mx.wider(weights, kv)
    layout, row_bytes = _LayerLayout.of(shape, weights, router), shape.width * BF16_BYTES
    base = hbm.reserve("layers", shape.layers * layout.size)

    def matrix(name: str, rows: int, cols: int) -> MxMatrix:
        elements, scales = (base + layout.places[f"{name}.{part}"][0] for part in ("elements", "scales"))
        return MxMatrix(elements, scales, rows, cols, router if name == _ROUTER else weights)

    image = NetworkImage(
        architecture=shape,
        matrices={name: matrix(name, *size) for name, size in matrix_shapes(shape).items()},
        vectors={name: base + start for name, (start, _) in layout.places.items() if not name.endswith((".elements", ".scales"))},
        layer_bytes=layout.size,
        expert_bytes=layout.expert_bytes,
        embedding=hbm.reserve("embedding", shape.embedding_rows * row_bytes),
        final_norm=hbm.reserve("final_norm", row_bytes),
        rotary=hbm.reserve("rotary", positions * TABLES * shape.head_dim * BF16_BYTES),
        head=_reserve_head(hbm, shape, weights),
    )
    if not isinstance(model, Architecture):
        _fill(hbm, model.parts, shape, layout, positions, weights, router)
    return image


def _reserve_head(hbm: Hbm, shape: Architecture, form: mx.MxFormat) -> MxMatrix:
    size = MxMatrix(0, 0, shape.vocab_size, shape.width, form)
    elements = hbm.reserve("head.elements", size.rows * size.row_bytes)
    return MxMatrix(elements, hbm.reserve("head.scales", size.rows * size.blocks), size.rows, size.cols, form)


def _fill(
    hbm: Hbm, parts: NetworkParts, shape: Architecture, layout: _LayerLayout, positions: int, form: mx.MxFormat, router: mx.MxFormat
) -> None:
    """The bytes of what `place_network` reserved."""
    layers = np.zeros((shape.layers, layout.size), np.uint8)
    for image, block in zip(layers, parts.blocks, strict=True):
        for name, content in _layer_contents(block.parts, shape, form, router).items():
            start, size = layout.places[name]
            image[start : start + size] = content
        for number, feed_forward in enumerate(_feed_forwards(block.parts)):
            for name, content in _matrices({name: getattr(feed_forward, name) for name in _FEED_FORWARD}, form).items():
                start, size = layout.places[name]
                start += number * layout.expert_bytes
                image[start : start + size] = content
    hbm.fill("layers", layers)
    hbm.fill("embedding", bf16_bytes(_array(parts.embedding.weight)))
    hbm.fill("final_norm", bf16_bytes(_array(parts.final_norm.weight)))
    cos, sin = (_array(table)[:, : shape.head_dim // 2] for table in rotary_tables(positions, shape.head_dim, shape.rope_theta))
    hbm.fill("rotary", bf16_bytes(np.concatenate([cos, cos, -sin, 0 * sin, 0 * sin, sin], axis=1)))
    elements, scales = _pack(parts.head[: shape.vocab_size], form)
    hbm.fill("head.elements", elements)
    hbm.fill("head.scales", scales)


def _layer_contents(parts: BlockParts, shape: Architecture, form: mx.MxFormat, router: mx.MxFormat) -> dict[str, NDArray[np.uint8]]:
    """The bytes of every part of a layer but its feed-forwards."""
    contents = _matrices({"query": parts.query, "key": parts.key, "value": parts.value, "output": parts.output}, form)
    if isinstance(parts.feed_forward, ExpertMixture):
        contents |= _matrices({_ROUTER: parts.feed_forward.router}, router)
    return contents | {name: bf16_bytes(_array(getattr(parts, name).weight)) for name in _norms(shape)}


def _feed_forwards(parts: BlockParts) -> Sequence[GatedFeedForward]:
    """A layer's feed-forward, or those of all its experts."""
    return parts.feed_forward.experts if isinstance(parts.feed_forward, ExpertMixture) else (parts.feed_forward,)


def _matrices(linears: Mapping[str, nn.Linear], form: mx.MxFormat) -> dict[str, NDArray[np.uint8]]:
    contents: dict[str, NDArray[np.uint8]] = {}
    for name, linear in linears.items():
        contents[f"{name}.elements"], contents[f"{name}.scales"] = _pack(linear.weight, form)
        if linear.bias is not None:
            contents[f"{name}.bias"] = bf16_bytes(_array(linear.bias))
    return contents


def _array(tensor: torch.Tensor) -> NDArray[np.float32]:
    return tensor.detach().to(torch.float32).numpy()


def _pack(weight: torch.Tensor, form: mx.MxFormat) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    packed = mx.quantize(_array(weight), form)
    return mx.pack(packed).reshape(-1), packed.scales.reshape(-1)

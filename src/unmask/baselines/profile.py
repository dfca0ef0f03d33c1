"""A published profile of an autoregressive network, layer by layer, and what the model says of the same layers."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import NamedTuple

from unmask.baselines import operators as op
from unmask.baselines.attention import fused_attention
from unmask.baselines.gemm import gemm
from unmask.baselines.gpu import Gpu
from unmask.baselines.kernel import Kernel, seconds_of
from unmask.errors import UnmaskError
from unmask.models.layers import Architecture

COLUMNS = ("layer_name", "input", "kv_cache", "tp_size", "latency(ns)")
LLAMA_3_1_8B = Architecture(
    width=4096,
    layers=32,
    heads=32,
    kv_heads=8,
    head_dim=128,
    feed_forward=14336,
    vocab_size=128256,
    embedding_rows=128256,
    max_sequence_length=131072,
    norm_eps=1e-5,
    rope_theta=5e5,
    mask_token_id=-1,
    eos_token_id=128009,
    shifted_logits=False,
)
"""What the profiles are of: batch 1, BF16, causal attention."""
LEAST, MOST = 16, 2048
"""Input lengths over which errors are averaged unless others are asked for."""


class Measured(NamedTuple):
    """One row of a profile: a layer, how many tokens it is fed, how many it has in its cache, over how many GPUs it is cut, and seconds."""

    layer: str
    tokens: int
    cached: int
    parallel: int
    seconds: float


class Predicted(NamedTuple):
    """A measurement and the model's seconds for it."""

    measured: Measured
    seconds: float

    @property
    def error(self) -> float:
        """Relative, signed."""
        return self.seconds / self.measured.seconds - 1


@dataclass(frozen=True)
class Check:
    """A profile beside the model.

    Attributes:
        gpu: which model.
        predictions: one per measurement within the lengths.
    """

    gpu: Gpu
    predictions: tuple[Predicted, ...]

    @property
    def mape(self) -> float:
        """Mean absolute error over all measurements, percent."""
        return _mape(self.predictions)

    @property
    def mape_by_layer(self) -> dict[str, float]:
        """Mean absolute error of every layer over its lengths, percent."""
        layers = dict.fromkeys(prediction.measured.layer for prediction in self.predictions)
        return {layer: _mape([found for found in self.predictions if found.measured.layer == layer]) for layer in layers}


def _mape(predictions: Sequence[Predicted]) -> float:
    return 100 * sum(abs(found.error) for found in predictions) / len(predictions)


def read_profile(path: Path) -> list[Measured]:
    """The rows of a CSV file with the columns `COLUMNS`, in any order and among others; not every layer need be there.

    Raises:
        UnmaskError: a file that cannot be read, without one of the columns, a layer that is not known, or a number that is none.
    """
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise UnmaskError(f"{path}: cannot read the profile: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UnmaskError(f"{path}: not a text file") from None
    lines = csv.DictReader(text.splitlines(), skipinitialspace=True)
    missing = [name for name in COLUMNS if name not in (lines.fieldnames or ())]
    if missing:
        given = ", ".join(lines.fieldnames or ()) or "none"
        raise UnmaskError(f"{path}: without {', '.join(missing)}: expected the columns {', '.join(COLUMNS)}, not {given}")
    rows = [_row(path, number, line) for number, line in enumerate(lines, 2)]
    if not rows:
        raise UnmaskError(f"{path}: the profile has no rows")
    return rows


def _row(path: Path, number: int, line: dict[str, str]) -> Measured:
    try:
        tokens, cached, parallel = (int(line[name]) for name in COLUMNS[1:4])
        nanoseconds = float(line[COLUMNS[4]])
        if not isfinite(nanoseconds):
            raise ValueError
    except (TypeError, ValueError):
        raise UnmaskError(f"{path}:{number}: expected numbers in {', '.join(COLUMNS[1:])}, not {list(line.values())}") from None
    if tokens < 1 or cached < 0 or parallel < 1 or not nanoseconds > 0:
        raise UnmaskError(f"{path}:{number}: expected positive numbers (kv_cache may be 0), not {list(line.values())}")
    if line["layer_name"] not in LAYERS:
        raise UnmaskError(f"{path}:{number}: unknown layer {line['layer_name']!r}: expected one of {', '.join(LAYERS)}")
    return Measured(line["layer_name"], tokens, cached, parallel, nanoseconds * 1e-9)


LAYERS = (
    "embedding",
    "input_layernorm",
    "q_proj",
    "k_proj",
    "v_proj",
    "rope",
    "attn",
    "o_proj",
    "post_layernorm",
    "gate_proj",
    "up_proj",
    "act_fn",
    "down_proj",
    "final_layernorm",
    "lm_head",
)


def products(shape: Architecture) -> dict[str, tuple[int, int]]:
    """Columns and length of the dot products of every matrix product, by layer."""
    width, kv_width = shape.width, shape.kv_heads * shape.head_dim
    return {
        "q_proj": (width, width),
        "k_proj": (kv_width, width),
        "v_proj": (kv_width, width),
        "o_proj": (width, width),
        "gate_proj": (shape.feed_forward, width),
        "up_proj": (shape.feed_forward, width),
        "down_proj": (width, shape.feed_forward),
        "lm_head": (shape.embedding_rows, width),
    }


def layer_kernels(gpu: Gpu, shape: Architecture, layer: str, tokens: int, cached: int = 0, parallel: int = 1) -> list[Kernel]:
    """The kernels of one layer of a profile.

    Args:
        gpu: what runs them.
        shape: of the network.
        layer: one of `LAYERS`.
        tokens: fed, of one sequence.
        cached: whose keys and values are in the cache.
        parallel: GPUs over which heads, feed-forward and vocabulary are cut.
    """
    width = shape.width
    if layer in products(shape):
        columns, length = products(shape)[layer]
        along_rows = layer in ("o_proj", "down_proj")
        columns, length = (columns, length // parallel) if along_rows else (columns // parallel, length)
        return [gemm(gpu, "linear", layer, tokens, columns, length)]
    if layer == "embedding":
        return op.embedding(gpu, tokens, width)
    if layer == "rope":
        heads = (shape.heads, shape.kv_heads)
        return [kernel for count in heads for kernel in op.rope_bf16(gpu, tokens * count * shape.head_dim // parallel)]
    if layer == "attn":
        heads_here, kv_here = shape.heads // parallel, max(shape.kv_heads // parallel, 1)
        return fused_attention(gpu, 1, heads_here, kv_here, tokens, cached + tokens, shape.head_dim, causal=True)
    if layer == "act_fn":
        return op.swiglu(gpu, tokens, shape.feed_forward // parallel)
    return op.rms_norm(gpu, tokens, width)


def predicted_seconds(gpu: Gpu, row: Measured, shape: Architecture = LLAMA_3_1_8B) -> float:
    """The model's seconds for a measurement of a network of that shape."""
    return seconds_of(layer_kernels(gpu, shape, row.layer, row.tokens, row.cached, row.parallel))


def check(gpu: Gpu, rows: Iterable[Measured], least: int = LEAST, most: int = MOST, shape: Architecture = LLAMA_3_1_8B) -> Check:
    """Predict every measurement whose length lies in [least, most].

    Raises:
        UnmaskError: there is none.
    """
    chosen = [row for row in rows if least <= row.tokens <= most]
    if not chosen:
        raise UnmaskError(f"the profile has no input length from {least} to {most}")
    return Check(gpu, tuple(Predicted(row, predicted_seconds(gpu, row, shape)) for row in chosen))

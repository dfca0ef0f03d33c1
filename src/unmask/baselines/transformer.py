"""The network's part of a denoising step as a GPU runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unmask.baselines import operators as op
from unmask.baselines.attention import eager_attention, fused_attention
from unmask.baselines.gemm import gemm
from unmask.baselines.gpu import Gpu
from unmask.baselines.kernel import Kernel, streamed
from unmask.baselines.sampling import Confidence
from unmask.errors import UnmaskError
from unmask.models.layers import Architecture

AttentionKind = Literal["fused", "eager"]


@dataclass(frozen=True)
class Precision:
    """Formats of a run. Arithmetic on the tensor cores is BF16 with FP32 sums whatever the weights are stored in.

    Attributes:
        weight_bits, kv_bits: of an element in memory, block scales included; below 16, unpacking is taken to cost nothing, which
            favours the GPU.
        confidence: dtype in which the sampler computes the confidence: LLaDA's reference that of the logits, `bf16`; its first release
            and Fast-dLLM `fp64`.

    Raises:
        UnmaskError: bits that are no number in (0, 16].
    """

    weight_bits: float = 16
    kv_bits: float = 16
    confidence: Confidence = "bf16"

    def __post_init__(self) -> None:
        for name in ("weight_bits", "kv_bits"):
            if not 0 < getattr(self, name) <= 16:
                raise UnmaskError(f"{name} is {getattr(self, name)!r}; it must lie in (0, 16]")


def transformer_kernels(
    gpu: Gpu,
    shape: Architecture,
    batch: int,
    rows: int,
    keys: int,
    head_rows: int,
    precision: Precision,
    *,
    cached: bool = False,
    attention: AttentionKind = "fused",
) -> list[Kernel]:
    """Embedding, all layers, final norm and LM head.

    Args:
        gpu: what runs them.
        shape: of the network.
        batch: sequences.
        rows: positions of each that are fed.
        keys: positions of each that are attended to.
        head_rows: positions of each whose logits are computed.
        precision: formats.
        cached: K and V of other positions come from a cache, and those of the fed ones replace theirs there.
        attention: see `unmask.baselines.attention`.
    """
    fed, width, bits = batch * rows, shape.width, precision.weight_bits
    kv_width = shape.kv_heads * shape.head_dim
    attend = (
        fused_attention(gpu, batch, shape.heads, shape.kv_heads, rows, keys, shape.head_dim, kv_bits=precision.kv_bits)
        if attention == "fused"
        else eager_attention(gpu, batch, shape.heads, rows, keys, shape.head_dim)
    )
    projections = [("query", width), ("key", kv_width), ("value", kv_width)]
    layer = [
        *op.rms_norm(gpu, fed, width),
        *(gemm(gpu, "attention", name, fed, columns, width, weight_bits=bits) for name, columns in projections),
        *(_head_norms(gpu, shape, fed) if shape.qk_norm else ()),
        *op.rope_fp32(gpu, fed * width),
        *op.rope_fp32(gpu, fed * kv_width),
        *(op.cache_update(gpu, fed, kv_width) if cached and rows < keys else ()),
        *attend,
        gemm(gpu, "attention", "output", fed, width, width, weight_bits=bits),
        *op.residual(gpu, fed, width),
        *op.rms_norm(gpu, fed, width),
        *op.feed_forward(gpu, shape, fed, bits),
        *op.residual(gpu, fed, width),
    ]
    head = batch * head_rows
    return [
        *op.embedding(gpu, fed, width),
        *(kernel.times(shape.layers) for kernel in layer),
        *op.rms_norm(gpu, fed, width),
        streamed(gpu, "lm head", "pick rows", head * width, 4),
        gemm(gpu, "lm head", "logits", head, shape.embedding_rows, width, weight_bits=bits),
    ]


def _head_norms(gpu: Gpu, shape: Architecture, fed: int) -> list[Kernel]:
    """Every head's queries and keys normalised on their own."""
    heads = (shape.heads, shape.kv_heads)
    return [kernel for count in heads for kernel in op.rms_norm(gpu, fed * count, shape.head_dim, "query and key norm")]

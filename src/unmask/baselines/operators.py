"""The operators of a transformer layer as eager PyTorch runs them, kernel by kernel. Sizes in rows of the residual stream."""

from __future__ import annotations

from math import ceil

from unmask.baselines.gemm import gemm
from unmask.baselines.gpu import Gpu
from unmask.baselines.kernel import Kernel, gathered, streamed
from unmask.models.layers import Architecture

BF16_BYTES = 2


def embedding(gpu: Gpu, rows: int, width: int) -> list[Kernel]:
    """Rows of the embedding table."""
    return [gathered(gpu, "embedding", "gather", rows, width * BF16_BYTES)]


def rms_norm(gpu: Gpu, rows: int, width: int, operator: str = "norm") -> list[Kernel]:
    """RMSNorm in FP32 and its product with the weight in BF16: `weight * (x * rsqrt(mean(x ** 2) + eps)).to(bf16)`."""
    elements = rows * width
    return [
        streamed(gpu, operator, "to FP32", elements, 6),
        streamed(gpu, operator, "square", elements, 8),
        streamed(gpu, operator, "mean", elements, 4, "reduce"),
        streamed(gpu, operator, "add epsilon", rows, 8),
        streamed(gpu, operator, "reciprocal square root", rows, 8),
        streamed(gpu, operator, "scale", elements, 8),
        streamed(gpu, operator, "to BF16", elements, 6),
        streamed(gpu, operator, "weight", elements, 4),
    ]


def rope_bf16(gpu: Gpu, elements: int) -> list[Kernel]:
    """Rotary embedding in BF16, as `transformers` runs Llama: `x * cos + rotate_half(x) * sin`."""
    return [
        streamed(gpu, "rope", "times cosine", elements, 4, "strided"),
        streamed(gpu, "rope", "negate half", elements / 2, 4, "strided"),
        streamed(gpu, "rope", "rotate half", elements, 4, "strided"),
        streamed(gpu, "rope", "times sine", elements, 4),
        streamed(gpu, "rope", "add", elements, 6),
    ]


def rope_fp32(gpu: Gpu, elements: int) -> list[Kernel]:
    """Rotary embedding in FP32, as LLaDA's and this project's reference run it: cast, the five kernels in FP32, cast."""
    return [
        streamed(gpu, "rope", "to FP32", elements, 6, "strided"),
        streamed(gpu, "rope", "negate half", elements / 2, 8, "strided"),
        streamed(gpu, "rope", "rotate half", elements, 8, "strided"),
        streamed(gpu, "rope", "times cosine", elements, 8),
        streamed(gpu, "rope", "times sine", elements, 8),
        streamed(gpu, "rope", "add", elements, 12),
        streamed(gpu, "rope", "to BF16", elements, 6),
    ]


def swiglu(gpu: Gpu, rows: int, width: int) -> list[Kernel]:
    """`silu(gate) * up`."""
    return [streamed(gpu, "swiglu", "silu", rows * width, 4), streamed(gpu, "swiglu", "product", rows * width, 6)]


def residual(gpu: Gpu, rows: int, width: int) -> list[Kernel]:
    """The sum with the residual stream."""
    return [streamed(gpu, "residual", "add", rows * width, 6)]


def cache_update(gpu: Gpu, rows: int, width: int) -> list[Kernel]:
    """Rows of K and of V replaced in place, as Fast-dLLM does; this project's own reference copies the whole canvas's first."""
    return [streamed(gpu, "cache", "replace", rows * width, 4, "strided").times(2)]


def feed_forward(gpu: Gpu, shape: Architecture, rows: int, weight_bits: float) -> list[Kernel]:
    """The gated feed-forward, or the mixture of experts that stands in its place, which rows choose evenly."""
    if shape.experts:
        return _mixture(gpu, shape, rows, weight_bits)
    return _gated(gpu, shape, rows, weight_bits)


def _gated(gpu: Gpu, shape: Architecture, rows: int, weight_bits: float) -> list[Kernel]:
    return [
        gemm(gpu, "feed-forward", "gate", rows, shape.feed_forward, shape.width, weight_bits=weight_bits),
        gemm(gpu, "feed-forward", "up", rows, shape.feed_forward, shape.width, weight_bits=weight_bits),
        *swiglu(gpu, rows, shape.feed_forward),
        gemm(gpu, "feed-forward", "down", rows, shape.width, shape.feed_forward, weight_bits=weight_bits),
    ]


def _mixture(gpu: Gpu, shape: Architecture, rows: int, weight_bits: float) -> list[Kernel]:
    """The router, and expert after expert: find its rows, gather them, its feed-forward, scale, add to the rows' sums."""
    routing = [
        gemm(gpu, "router", "scores", rows, shape.experts, shape.width),
        streamed(gpu, "router", "softmax", rows * shape.experts, 6, "reduce"),
        streamed(gpu, "router", "top-k", rows * shape.experts, 4, "reduce").times(2),
        streamed(gpu, "router", "scatter", rows * shape.experts, 4).times(3),
        streamed(gpu, "router", "zero", rows * shape.width, 2),
    ]
    if shape.normalised_routing:
        routing.append(streamed(gpu, "router", "normalise", rows * shape.experts_per_token, 8).times(2))
    taken = min(ceil(rows * shape.experts_per_token / shape.experts), rows)
    chosen = min(shape.experts, rows * shape.experts_per_token)
    one = [
        streamed(gpu, "router", "find rows", rows, 8, "reduce").times(4),
        gathered(gpu, "router", "gather", taken, shape.width * BF16_BYTES).times(2),
        *_gated(gpu, shape, taken, weight_bits),
        streamed(gpu, "router", "weigh and add", taken * shape.width, 6).times(2),
        streamed(gpu, "router", "index copy", rows * shape.width, 4),
    ]
    return routing + [kernel.times(chosen) for kernel in one]

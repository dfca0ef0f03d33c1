"""Attention as PyTorch runs it: the fused kernel, or one operator after the other."""

from __future__ import annotations

import heapq
from math import ceil

from unmask.baselines.gemm import gemm
from unmask.baselines.gpu import Gpu
from unmask.baselines.kernel import Kernel, streamed

KEY_SPLITS = (1, 2, 4, 8, 16)
"""Into how many parts the fused kernel may cut the keys where query rows alone do not fill the GPU."""
_OPERATOR = "attention"


def fused_attention(
    gpu: Gpu, batch: int, heads: int, kv_heads: int, queries: int, keys: int, head_dim: int, causal: bool = False, kv_bits: float = 16
) -> list[Kernel]:
    """`scaled_dot_product_attention` by FlashAttention-2: a thread block has some query rows of a head and goes over the keys.

    Args:
        gpu: what runs it.
        batch, heads, kv_heads, queries, keys, head_dim: sizes.
        causal: a query sees the keys up to its own position.
        kv_bits: of an element of K and V in memory; below 16, unpacking is taken to cost nothing.
    """
    fit = gpu.fit.attention
    rows = fit.causal_rows if causal else fit.rows
    blocks = ceil(queries / rows)
    rate = gpu.bf16_tflops * 1e12 / gpu.multiprocessors * fit.math
    per_key = 4 * rows * head_dim / rate
    if causal:
        seen = [min((index + 1) * rows, queries) + keys - queries for index in range(blocks)]
        lengths = [ceil(length / rows) * rows * per_key + fit.block_us * 1e-6 for length in seen]
        arithmetic = _makespan(lengths * (batch * heads), gpu.multiprocessors)
    else:
        arithmetic = min(_split(gpu, batch * heads * blocks, keys, per_key, split) for split in KEY_SPLITS)
    flops = 4.0 * batch * heads * queries * keys * head_dim / (2 if causal else 1)
    moved = batch * head_dim * (2 * 2 * heads * queries + 2 * kv_heads * keys * kv_bits / 8)
    memory = moved / (gpu.memory_gbps * 1e9 * gpu.fit.stream.dram)
    return [Kernel(_OPERATOR, "fused attention", fit.fixed_us * 1e-6 + max(arithmetic, memory), moved, flops)]


def _split(gpu: Gpu, blocks: int, keys: int, per_key: float, split: int) -> float:
    """Seconds of equal thread blocks whose keys are cut into `split` parts; the parts are joined by a second kernel."""
    fit = gpu.fit.attention
    waves = ceil(blocks * split / gpu.multiprocessors)
    joining = fit.fixed_us * 1e-6 if split > 1 else 0.0
    return waves * (ceil(keys / split) * per_key + fit.block_us * 1e-6) + joining


def _makespan(lengths: list[float], places: int) -> float:
    """When the last of these is done if each begins, in their order, at the first place that is free."""
    free = [0.0] * places
    for length in lengths:
        heapq.heapreplace(free, free[0] + length)
    return max(free)


def eager_attention(gpu: Gpu, batch: int, heads: int, queries: int, keys: int, head_dim: int) -> list[Kernel]:
    """Scores, scaling, softmax in FP32 and its cast, and the product with V, one kernel each."""
    scores = batch * heads * queries * keys
    return [
        gemm(gpu, _OPERATOR, "scores", queries, keys, head_dim, batch * heads),
        streamed(gpu, _OPERATOR, "scale", scores, 4),
        streamed(gpu, _OPERATOR, "softmax in FP32", scores, 10, "reduce"),
        streamed(gpu, _OPERATOR, "cast", scores, 6),
        gemm(gpu, _OPERATOR, "product with V", queries, head_dim, keys, batch * heads),
    ]

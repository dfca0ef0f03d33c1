"""Kernels stay within what the data sheet allows, and show the steps that tiles, waves and caches make."""

from __future__ import annotations

import numpy as np
import pytest

from unmask.baselines import operators as op
from unmask.baselines.attention import eager_attention, fused_attention
from unmask.baselines.gemm import gemm, gemm_bytes, gemm_seconds
from unmask.baselines.gpu import Gpu, gpus
from unmask.baselines.kernel import Kernel, gathered, seconds_of, streamed
from unmask.models.catalogue import architecture


@pytest.mark.parametrize("name", gpus())
@pytest.mark.parametrize(("n", "k"), [(4096, 4096), (1024, 4096), (4096, 14336), (128256, 4096)])
def test_a_product_is_never_faster_than_tensor_cores_and_memory(name: str, n: int, k: int) -> None:
    gpu, m = Gpu.load(name), np.arange(1, 4097, 37)
    seconds = gemm_seconds(gpu, m, n, k)
    assert (seconds > 2.0 * m * n * k / (gpu.bf16_tflops * 1e12)).all()
    assert (seconds > gemm_bytes(m, n, k) / (gpu.memory_gbps * 1e9)).all()


def test_a_row_beyond_a_wave_of_tiles_costs_a_wave(a6000: Gpu) -> None:
    within, beyond, end = gemm_seconds(a6000, np.array([1536, 1537, 1552]), 128256, 4096)
    assert beyond > 1.03 * within
    assert end == pytest.approx(beyond, rel=1e-3)


def test_a_batched_product_costs_as_much_as_one_with_as_many_tiles(a6000: Gpu) -> None:
    one = gemm(a6000, "", "", 2048, 8192, 2048)
    many = gemm(a6000, "", "", 2048, 2048, 2048, batch=4)
    assert many.flops == one.flops
    assert many.seconds == pytest.approx(one.seconds, rel=0.05)


def test_fewer_weight_bits_speed_up_what_the_memory_bounds_and_nothing_else(a6000: Gpu) -> None:
    assert gemm(a6000, "", "", 16, 4096, 4096, weight_bits=4).seconds < 0.5 * gemm(a6000, "", "", 16, 4096, 4096).seconds
    assert gemm(a6000, "", "", 4096, 4096, 4096, weight_bits=4).seconds > 0.99 * gemm(a6000, "", "", 4096, 4096, 4096).seconds


def test_a_large_pass_runs_at_the_memory_and_a_small_one_in_the_cache(a6000: Gpu) -> None:
    large, small = streamed(a6000, "", "", 1e9, 2), streamed(a6000, "", "", 1e6, 2)
    fixed = a6000.fit.stream.element_us * 1e-6
    assert large.hbm_bytes / large.seconds == pytest.approx(a6000.fit.stream.dram * 768e9, rel=1e-2)
    assert small.hbm_bytes / (small.seconds - fixed) > 768e9


def test_fp64_functions_bound_a_workstation_board_but_no_data_centre_one(a6000: Gpu) -> None:
    def slowed(gpu: Gpu) -> float:
        return streamed(gpu, "", "", 1e8, 16, fp64=40).seconds / streamed(gpu, "", "", 1e8, 16).seconds

    assert slowed(a6000) > 2
    assert slowed(Gpu.load("a100")) == 1


def test_few_rows_are_gathered_one_after_the_other(a6000: Gpu) -> None:
    def seconds(rows: int) -> float:
        return gathered(a6000, "", "", rows, 8192).seconds

    assert seconds(16) - seconds(15) == pytest.approx(a6000.fit.stream.gather_us * 1e-6)
    assert seconds(17) < seconds(16)


def test_a_causal_mask_saves_half_of_long_attention(a6000: Gpu) -> None:
    (whole,), (causal,) = (fused_attention(a6000, 1, 32, 8, 4096, 4096, 128, causal=causal) for causal in (False, True))
    assert causal.flops == whole.flops / 2
    assert 0.45 < causal.seconds / whole.seconds < 0.75


def test_few_queries_of_many_keys_are_split_over_the_keys(a6000: Gpu) -> None:
    (one,), (all_busy,) = (fused_attention(a6000, 1, heads, heads, 32, 4096, 128) for heads in (4, 64))
    assert one.seconds < all_busy.seconds / 2


def test_fused_attention_is_faster_than_its_operators_one_by_one(a6000: Gpu) -> None:
    fused, eager = fused_attention(a6000, 1, 32, 32, 2048, 2048, 128), eager_attention(a6000, 1, 32, 2048, 2048, 128)
    assert seconds_of(fused) < 0.5 * seconds_of(eager)
    assert eager[0].flops + eager[-1].flops == fused[0].flops


def test_every_expert_is_launched_but_a_row_takes_only_its_own(a6000: Gpu) -> None:
    shape = architecture("llada-moe-7b-a1b")

    def products(rows: int) -> list[Kernel]:
        return [kernel for kernel in op.feed_forward(a6000, shape, rows, 16) if kernel.operator == "feed-forward" and kernel.flops]

    assert {kernel.count for kernel in products(512)} == {shape.experts}
    assert {kernel.count for kernel in products(1)} == {shape.experts_per_token}
    dense = 2.0 * 512 * shape.experts_per_token * shape.width * shape.feed_forward * 3
    assert sum(kernel.flops * kernel.count for kernel in products(512)) == dense

"""One kind of kernel of a step, and how long those take that pass over tensors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from unmask.baselines.gpu import Gpu

SERIAL_GATHER_ROWS = 16
"""PyTorch's `index_select` takes so many rows one after the other, more in parallel."""

FP64_OPERATIONS = {"exp": 40, "log": 44, "pow": 120, "divide": 24, "draw": 20}
"""FP64 operations, a fused multiply-add being two, of CUDA's functions; an estimate from their polynomials."""

Pattern = Literal["element", "reduce", "strided", "gather"]


@dataclass(frozen=True)
class Kernel:
    """A launch, or several alike.

    Attributes:
        operator: of the network or of the sampler.
        name: what the kernel does.
        seconds: of one launch on the device.
        hbm_bytes: of one launch, that its tensors have.
        flops: of one launch, on the tensor cores.
        count: launches.
    """

    operator: str
    name: str
    seconds: float
    hbm_bytes: float
    flops: float = 0.0
    count: int = 1

    def times(self, count: int) -> Kernel:
        """As many launches of each of these."""
        return replace(self, count=self.count * count)


def streamed(
    gpu: Gpu, operator: str, name: str, elements: float, bytes_each: float, pattern: Pattern = "element", fp64: float = 0.0
) -> Kernel:
    """A kernel that passes over tensors once.

    Args:
        gpu: what runs it.
        operator, name: see `Kernel`.
        elements: of the largest tensor.
        bytes_each: read and written for each of them.
        pattern: how it goes over them. Strided passes and gathers are bound by their requests, not by where the data lie.
        fp64: FP64 operations on each of them.
    """
    fit = gpu.fit.stream
    moved, bandwidth = elements * bytes_each, gpu.memory_gbps * 1e9
    if pattern in ("strided", "gather"):
        memory = moved / (bandwidth * (fit.strided if pattern == "strided" else fit.gather))
    else:
        hit = min(max(2 - moved / (fit.l2_share * gpu.l2_mib * 2**20), 0.0), 1.0)
        memory = moved / bandwidth * ((1 - hit) / fit.dram + hit / fit.l2)
    fixed = (fit.reduce_us if pattern == "reduce" else fit.element_us) * 1e-6
    return Kernel(operator, name, fixed + max(memory, elements * fp64 / (gpu.fp64_tflops * 1e12)), moved)


def gathered(gpu: Gpu, operator: str, name: str, rows: int, row_bytes: float) -> Kernel:
    """Rows of a table, by index: read and written once."""
    if rows > SERIAL_GATHER_ROWS:
        return streamed(gpu, operator, name, rows, 2 * row_bytes, "gather")
    fit = gpu.fit.stream
    return Kernel(operator, name, (fit.element_us + rows * fit.gather_us) * 1e-6, 2 * rows * row_bytes)


def seconds_of(kernels: Iterable[Kernel]) -> float:
    """Device time of all launches, without gaps."""
    return sum(kernel.seconds * kernel.count for kernel in kernels)

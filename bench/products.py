"""How long the cycle reading takes for three matrix products, a forward and a generation of LLaDA-8B: compilation and DRAM timing included.

Prints the median of three runs of each in one run of this script, after one that does not count: wall time and, since other work may share
the cores, the processor's time. The figures of other simulators were measured elsewhere, on a machine of the same size (2 cores), for a
128 x 128-class array with DRAM.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable

from unmask.compiler.gemm import compile_gemm
from unmask.compiler.generation import time_generation
from unmask.decoding.policy import Policy
from unmask.machine.config import Machine
from unmask.machine.cycle import time_program
from unmask.models.catalogue import architecture

REPEATS = 3
MACHINE = "published-2048"
OTHERS = {
    (256, 4096, 4096): "ONNXim 12.0 s, ZigZag (analytic) 3.1 s, SCALE-Sim v3 470 s",
    (512, 4096, 4096): "ONNXim 19.3 s",
    (32, 4096, 126464): "ONNXim 334 s",
}


def median(run: Callable[[], int]) -> tuple[float, float, int]:
    """Seconds, those of the processor, and what the run returns."""
    run()
    wall, processor = [], []
    for _ in range(REPEATS):
        begun, used = time.perf_counter(), time.process_time()
        cycles = run()
        wall.append(time.perf_counter() - begun)
        processor.append(time.process_time() - used)
    return statistics.median(wall), statistics.median(processor), cycles


def main() -> None:
    machine = Machine.load(MACHINE)
    print(f"machine {MACHINE}, median of {REPEATS}")
    for (m, k, n), others in OTHERS.items():

        def product(m: int = m, k: int = k, n: int = n) -> int:
            return time_program(compile_gemm(m, k, n, machine), machine).cycles

        seconds, used, cycles = median(product)
        print(f"{m} x {k} x {n:<8} {cycles:>14,} cycles {seconds:>8.3f} s (processor {used:.3f} s)   others: {others}")
    shape = architecture("llada-8b")

    def forward() -> int:
        policy = Policy(gen_length=256, block_length=256, steps=1)
        return time_generation(shape, policy, machine, 512).cycles

    def generation() -> int:
        policy = Policy(gen_length=256, block_length=32, steps=256, cache="dual")
        return time_generation(shape, policy, machine, 512).cycles

    for name, run in (("forward, 768 positions", forward), ("512 + 256 tokens, dual cache", generation)):
        seconds, used, cycles = median(run)
        print(f"LLaDA-8B, {name:<30} {cycles:>14,} cycles {seconds:>8.2f} s (processor {used:.2f} s)")
    print(f"most memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB")


if __name__ == "__main__":
    main()

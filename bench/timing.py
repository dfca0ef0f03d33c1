"""How fast the cycle reading runs: instructions per second of the walk, gigabytes of simulated DRAM per second, start-up apart.

Prints the median of three runs of each after one that does not count, in the processor's time, since other work may share the cores, and
how long imports and that first run took by the clock on the wall.
"""

from __future__ import annotations

import statistics
import sys
import time

STARTED = time.perf_counter()

from unmask.isa.encoding import assemble  # noqa: E402
from unmask.isa.program import Program  # noqa: E402
from unmask.machine.config import Machine  # noqa: E402
from unmask.machine.cycle import Timing, time_program  # noqa: E402

IMPORTED = time.perf_counter()
REPEATS = 3


def program(text: str) -> Program:
    """Assembly text as a program of one phase."""
    words = assemble(text)
    return Program(words, ["all"] * len(words), 0, {}, {}, {})


def engines(iterations: int) -> Program:
    """A double-buffered stream of weight tiles through load, matrix, vector and store engine, 10 instructions an iteration."""
    return program(f"""SEM_SET semaphore=0 value=2
S_LI rd=r1 value=0
LOOP count={iterations}
L_MAT dst=r0 src=r1 scales=r2 rows=16 cols=64 src_stride=2 format=0 wait=0 signal=1
S_ADDI rd=r1 rs=r1 value=1024
S_ADDI rd=r2 rs=r2 value=32
M_MM dst=r0 a=r0 b=r0 m=16 n=16 k=64 dst_stride=2 a_stride=2 transposed=0 format=0 wait=1 signal=0,2
V_ADD dst=r0 a=r0 b=r0 rows=16 cols=16 dst_stride=2 a_stride=2 b_stride=2 wait=2
V_EXP dst=r0 a=r0 rows=16 cols=16 dst_stride=2 a_stride=2
V_RED_SUM dst=r0 a=r0 rows=16 cols=16 a_stride=2 running=0 signal=3
ST_VEC src=r0 dst=r3 rows=16 cols=16 src_stride=2 dst_stride=32 wait=3
S_ADDI rd=r3 rs=r3 value=512
END
HALT""")


def stream(gib: int) -> Program:
    """Loads of 256 KiB that follow each other."""
    size = 1 << 18
    return program(f"""LOOP count={gib * 4096}
L_VEC dst=r0 src=r1 rows=1 cols={size // 2} dst_stride=0 src_stride=0
S_ADDI rd=r1 rs=r1 value={size}
END
HALT""")


def measured(what: Program, machine: Machine) -> tuple[float, float, Timing]:
    """Seconds of the first run, median seconds of the processor of the next `REPEATS`, the timing."""
    begun = time.perf_counter()
    time_program(what, machine)
    first, seconds = time.perf_counter() - begun, []
    for _ in range(REPEATS):
        begun = time.process_time()
        timing = time_program(what, machine)
        seconds.append(time.process_time() - begun)
    return first, statistics.median(seconds), timing


def main() -> None:
    """Measure and print; the argument is a number of GiB to stream, 4 if there is none."""
    gib = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    print(f"imports {IMPORTED - STARTED:.2f} s")
    loop = engines(100_000)
    for name in ("small", "published-2048"):
        first, seconds, timing = measured(loop, Machine.preset(name))
        count = sum(timing.instructions.values())
        print(
            f"{name:<15} {count:>11,} instructions {seconds:7.3f} s {count / seconds / 1e6:8.1f} M instructions/s"
            f" {timing.cycles:>12,} cycles, first run {first:.2f} s"
        )
    for name in ("published-2048", "a6000-class", "h100-class", "edge"):
        machine = Machine.preset(name)
        _, seconds, timing = measured(stream(gib), machine)
        moved = timing.hbm_bytes["load"]
        sustained = moved / timing.cycles * machine.clock_ghz
        print(
            f"{name:<15} {moved / 1e9:>7.2f} GB of DRAM {seconds:11.3f} s {moved / seconds / 1e9:8.1f} GB/s simulated,"
            f" sustained {sustained:7.1f} of {machine.memory_gbps:.1f} GB/s"
        )


if __name__ == "__main__":
    main()

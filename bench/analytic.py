"""How far the analytic reading is off the cycle reading, and how long either takes: a generation per line.

    python bench/analytic.py --models llada-8b --machines published-2048,a6000-class --batches 1,4 --caches none,dual

Wall times include compilation. The first run of the analytic reading keeps nothing from the line before; the median of five more may use
the schedule and the samples of the memory that it kept.
"""

from __future__ import annotations

import argparse
import statistics
import time

from unmask import Machine, Policy, UnmaskError
from unmask.compiler.analytic import estimate_generation, forget
from unmask.compiler.generation import time_generation
from unmask.models.catalogue import architecture, catalogue

REPEATS = 5


def numbers(text: str) -> list[int]:
    """Integers of a comma-separated list."""
    return [int(part) for part in text.split(",")]


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="llada-8b,dream-7b,sotu")
    parser.add_argument("--machines", default="small,published-512,published-1024,published-2048,a6000-class,h100-class")
    parser.add_argument("--batches", type=numbers, default=[1, 4, 16])
    parser.add_argument("--caches", default="none,prefix,dual")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    given = arguments()
    heads = f"{'model':10}{'machine':16}{'batch':>6} {'cache':8}{'cycle reading':>16}{'analytic':>16}{'error':>9}"
    print(heads + f"{'wall, s':>10}{'first, ms':>11}{'ms':>8}")
    for model in given.models.split(","):
        shape = architecture(model)
        prompt, length = (512, 256) if model in catalogue() else (32, 64)
        for name in given.machines.split(","):
            machine = Machine.preset(name)
            for batch in given.batches:
                for cache in given.caches.split(","):
                    schedule = "timesteps" if shape.shifted_logits else "uniform"
                    policy = Policy(length, 32, length, cache=cache, schedule=schedule)
                    line = f"{model:10}{name:16}{batch:6} {cache:8}"
                    try:
                        forget()
                        seconds = []
                        for _ in range(1 + REPEATS):
                            started = time.perf_counter()
                            found = estimate_generation(shape, policy, machine, prompt, batch)
                            seconds.append(time.perf_counter() - started)
                        started = time.perf_counter()
                        exact = time_generation(shape, policy, machine, prompt, batch)
                        wall = time.perf_counter() - started
                    except UnmaskError as error:
                        print(f"{line}{error}")
                        continue
                    error = found.cycles / exact.cycles - 1
                    print(
                        f"{line}{exact.cycles:16,}{found.cycles:16,}{error:9.2%}{wall:10.2f}{1e3 * seconds[0]:11.1f}"
                        f"{1e3 * statistics.median(seconds[1:]):8.1f}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()

"""How far the analytic reading is off the cycle reading, and how long either takes: a generation per line.

    python bench/analytic.py --models llada-8b --machines published-2048 --batches 1,4 --caches none,prefix,dual

Errors: of the whole generation, and of the kind of step for which it is largest. Times are of one thread's CPU, compilation included:

    ms      median of 9 runs of a machine that was timed before: what a step is compiled to and what its transfers take is kept
    other   median of 5 machines that were not, each of another clock: what a step is compiled to is kept, but for a mixture of experts,
            whose tiles depend on how fast the memory is
    first   nothing is kept

`--no-cycle` leaves the cycle reading out, of which a full-size generation takes a minute.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterable

from unmask import Machine, Policy, UnmaskError
from unmask.compiler.analytic import estimate_generation, forget
from unmask.compiler.generation import GenerationTime, time_generation
from unmask.models.catalogue import architecture, catalogue

AGAIN, OTHERS = 9, 5
LARGEST_MS = 50
"""What a whole generation may take."""


def numbers(text: str) -> list[int]:
    """Integers of a comma-separated list."""
    return [int(part) for part in text.split(",")]


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="llada-8b,dream-7b,llada-moe-7b-a1b,sotu")
    parser.add_argument("--machines", default="edge,small,published-512,published-1024,published-2048,a6000-class,h100-class")
    parser.add_argument("--batches", type=numbers, default=[1, 4, 16])
    parser.add_argument("--caches", default="none,prefix,dual")
    parser.add_argument("--prompt", type=int, help="tokens; by default 512, of a shipped checkpoint 32")
    parser.add_argument("--generate", type=int, help="tokens; by default 256, of a shipped checkpoint 64")
    parser.add_argument("--sampling", default="general", help="general, four-phase, single-pass or fused")
    parser.add_argument("--no-cycle", dest="cycle", action="store_false", help="only time the analytic reading")
    return parser.parse_args()


def median_ms(seconds: Iterable[float]) -> float:
    """Milliseconds."""
    return 1e3 * statistics.median(seconds)


def worst_error(found: GenerationTime, exact: GenerationTime) -> float:
    """Of the kind of step for which it is largest."""
    errors = [found.timings[entry].cycles / timing.cycles - 1 for entry, timing in exact.timings.items()]
    return max(errors, key=abs)


def main() -> None:
    """Measure and print."""
    given = arguments()
    heads = f"{'model':18}{'machine':16}{'batch':>5} {'cache':8}{'ms':>7}{'other':>8}{'first':>8}"
    print(heads + (f"{'cycles':>17}{'analytic':>17}{'error':>8}{'worst':>8}{'cycle reading, s':>18}" if given.cycle else ""))
    slowest = largest = 0.0
    for model in given.models.split(","):
        shape = architecture(model)
        prompt, length = (512, 256) if model in catalogue() else (32, 64)
        prompt, length = given.prompt or prompt, given.generate or length
        for name in given.machines.split(","):
            machine = Machine.preset(name)
            for batch in given.batches:
                for cache in given.caches.split(","):
                    policy = Policy(length, 32, length, cache=cache, schedule="timesteps" if shape.shifted_logits else "uniform")

                    def timed(on: Machine, policy: Policy = policy, batch: int = batch) -> tuple[float, GenerationTime]:
                        started = time.process_time()
                        done = estimate_generation(shape, policy, on, prompt, batch, sampling=given.sampling)  # noqa: B023
                        return time.process_time() - started, done

                    line = f"{model:18}{name:16}{batch:5} {cache:8}"
                    try:
                        timed(machine)
                        forget()
                        first, found = timed(machine)
                        again = median_ms(timed(machine)[0] for _ in range(AGAIN))
                        others = [
                            machine.model_copy(update={"clock_ghz": machine.clock_ghz * (1 + 0.01 * k)}) for k in range(1, OTHERS + 1)
                        ]
                        other = median_ms(timed(on)[0] for on in others)
                        line += f"{again:7.1f}{other:8.1f}{1e3 * first:8.1f}"
                        slowest = max(slowest, again)
                        if given.cycle:
                            started = time.perf_counter()
                            exact = time_generation(shape, policy, machine, prompt, batch, sampling=given.sampling)
                            wall, worst = time.perf_counter() - started, worst_error(found, exact)
                            line += f"{exact.cycles:17,}{found.cycles:17,}{found.cycles / exact.cycles - 1:8.2%}{worst:8.2%}{wall:18.2f}"
                            largest = max(largest, abs(worst))
                    except UnmaskError as error:
                        line += f" {error}"
                    print(line, flush=True)
    print(f"slowest {slowest:.1f} ms of {LARGEST_MS}" + (f"; largest error of a kind of step {largest:.2%}" if given.cycle else ""))


if __name__ == "__main__":
    main()

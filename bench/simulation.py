"""How fast the readings run: one denoising step of the shipped model, side by side.

Prints the median of five runs of each, in time of the processor, which other work on the machine hardly changes, and the ratio to a float32
forward pass of the same canvas in PyTorch. `OMP_NUM_THREADS=1` leaves PyTorch one thread.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from unmask import Machine, Policy, load_model
from unmask.compiler.check import in_formats
from unmask.compiler.lower import compile_step
from unmask.machine.cycle import time_program
from unmask.machine.functional import FunctionalMachine

PROMPT, REPEATS = 8, 5


def median_seconds(run: Callable[[], object]) -> float:
    """Median time of the processor of `REPEATS` runs after one that does not count."""
    run()
    times = []
    for _ in range(REPEATS):
        started = time.process_time()
        run()
        times.append(time.process_time() - started)
    return statistics.median(times)


@torch.no_grad()
def main() -> None:
    """Measure and print."""
    model, machine, policy = load_model("sotu"), Machine.preset("small"), Policy(gen_length=64, block_length=32, steps=32)
    program = compile_step(model, policy, machine, PROMPT)
    [entry] = program.entries
    npu, canvas = FunctionalMachine(program, machine), np.full(PROMPT + policy.gen_length, model.config.mask_token_id)
    canvas[:PROMPT] = np.arange(PROMPT)
    ids, twin = torch.from_numpy(canvas)[None], in_formats(model, machine.formats)

    def step() -> None:
        npu.write("canvas", canvas.astype("<i4"))
        npu.write("parameters", np.array([0, PROMPT, PROMPT, 0, 0, 2], "<u4"))
        npu.run(entry)

    timed = {
        "PyTorch forward, float32": median_seconds(lambda: model(ids)),
        "PyTorch forward, machine's formats": median_seconds(lambda: twin(ids)),
        "functional reading, one step": median_seconds(step),
        "cycle reading, one step": median_seconds(lambda: time_program(program.entry(entry), machine)),
        "compilation, weights packed": median_seconds(lambda: compile_step(model, policy, machine, PROMPT)),
    }
    base = timed["PyTorch forward, float32"]
    for what, seconds in timed.items():
        print(f"{what:<36}{seconds * 1e3:10.2f} ms {seconds / base:8.2f} x")


if __name__ == "__main__":
    main()

"""How fast the hardware runs in Verilator: denoising steps of the shipped micro model on the machine `rtl-tiny`, beside the other readings.

Prints cycles per second of processor time of each reading, and how many times slower than the machine's clock that is; the processor's time
rather than the wall's, since others may work beside. The hardware is built first where it is not in the user's cache: minutes.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from unmask import Machine, Policy, load_model
from unmask.compiler.lower import compile_step
from unmask.machine.cycle import time_program
from unmask.machine.functional import FunctionalMachine
from unmask.rtl.backend import RtlMachine
from unmask.rtl.lockstep.build import harness

PROMPT, STEPS = 8, 8


def seconds(run: Callable[[], object], times: int) -> float:
    """Mean processor time of so many runs after one that does not count."""
    run()
    started = time.process_time()
    for _ in range(times):
        run()
    return (time.process_time() - started) / times


def main() -> None:
    """Measure and print."""
    model, machine, policy = load_model("micro"), Machine.preset("rtl-tiny"), Policy(gen_length=16, block_length=8, steps=16)
    program = compile_step(model, policy, machine, PROMPT)
    [entry] = program.entries
    canvas = np.full(PROMPT + policy.gen_length, model.config.mask_token_id, "<i4")
    canvas[:PROMPT] = np.arange(PROMPT)
    words = np.array([0, PROMPT, PROMPT, 0, 0, 1], "<u4")
    started = time.perf_counter()
    library = harness(machine, "npu")
    print(f"built or found in {time.perf_counter() - started:.1f} s")
    rtl, functional = RtlMachine(program, machine, library), FunctionalMachine(program, machine)

    def step(on: RtlMachine | FunctionalMachine) -> None:
        on.write("canvas", canvas)
        on.write("parameters", words)
        on.run(entry)

    part = program.entry(entry)
    cycles = time_program(part, machine).cycles
    print(f"{cycles:,} cycles a step on machine {machine.name}")
    timed = {
        "hardware in Verilator": seconds(lambda: step(rtl), STEPS),
        "functional reading": seconds(lambda: step(functional), STEPS),
        "cycle reading": seconds(lambda: time_program(part, machine), STEPS),
    }
    for what, taken in timed.items():
        print(f"{what:<24}{cycles / taken:14,.0f} cycles/s {machine.clock_ghz * 1e9 * taken / cycles:12,.0f} times slower than the clock")
    assert {run.cycles for run in rtl.runs} == {cycles}


if __name__ == "__main__":
    main()

"""`unmask bench`: one kernel on a machine, timed."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from unmask.cli import options
from unmask.cli.bench_sampling import sampling
from unmask.cli.energy import show_costs
from unmask.cli.printed import print_json

bench = typer.Typer(help="Time one kernel on a machine.", no_args_is_help=True)


@bench.callback()
def _bench() -> None:
    """Time one kernel on a machine."""


@bench.command("gemm")
def gemm(
    m: Annotated[int, typer.Argument(metavar="M", help="Rows of the left operand.", min=1)],
    k: Annotated[int, typer.Argument(metavar="K", help="Length of the dot products.", min=1)],
    n: Annotated[int, typer.Argument(metavar="N", help="Columns of the result.", min=1)],
    machine: options.MachineOption = "small",
    weights: options.Weights = None,
    activations: options.Activations = None,
    costs: options.CostsOption = None,
    skip: options.SkipOption = True,
    as_json: options.JsonOption = False,
) -> None:
    """Time a matrix product: M x K in BF16 times K x N in the format of the weights, from memory to memory.

    wall_seconds is compilation and timing; startup_seconds, printed apart, is what Python takes to load and the timing code to be ready.
    """
    begun = time.perf_counter()
    from unmask.compiler.gemm import compile_gemm, ideal_gemm
    from unmask.machine.config import Machine
    from unmask.machine.cycle import time_program
    from unmask.silicon.cost.events import count_events
    from unmask.silicon.cost.figures import cost_figures
    from unmask.silicon.cost.table import load_costs

    formats = {"weights": weights, "activations": activations}
    target = Machine.load(machine).with_formats(**{role: form for role, form in formats.items() if form is not None})
    prices = load_costs(costs)
    time_program(compile_gemm(1, 1, 1, target), target)
    started = time.perf_counter()
    program = compile_gemm(m, k, n, target)
    compiled = time.perf_counter()
    timing = time_program(program, target, skip=skip)
    done = time.perf_counter()
    ideal = ideal_gemm(m, k, n, target)
    found = {
        "m": m,
        "k": k,
        "n": n,
        "machine": target.name,
        "clock_ghz": target.clock_ghz,
        "formats": target.formats.model_dump(),
        "cycles": timing.cycles,
        "ideal_cycles": ideal.cycles,
        "ideal_compute_cycles": ideal.compute,
        "ideal_memory_cycles": ideal.memory,
        "microseconds": timing.cycles / target.clock_ghz / 1e3,
        "busy": timing.busy,
        "hbm_bytes": timing.hbm_bytes,
        "program_bytes": program.words.nbytes,
        "wall_seconds": done - started,
        "wall_seconds_compile": compiled - started,
        "startup_seconds": started - begun,
        **cost_figures(count_events(program, target, timing.cycles, timing.hbm_bytes), prices),
    }
    if as_json:
        print_json(found)
    else:
        _print(found)


def _print(found: dict[str, Any]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"{found['m']} x {found['k']} x {found['n']} on machine {escape(found['machine'])}, weights {found['formats']['weights']}"
    )
    share = found["ideal_cycles"] / found["cycles"]
    console.print(f"{found['cycles']:,} cycles, {found['microseconds']:,.2f} us at {found['clock_ghz']:g} GHz")
    console.print(
        f"{found['ideal_cycles']:,} at best (array {found['ideal_compute_cycles']:,}, memory {found['ideal_memory_cycles']:,}): {share:.1%}"
    )
    console.print(f"wall time {found['wall_seconds']:.3f} s, after {found['startup_seconds']:.3f} s of start-up")
    show_costs(found, console)


bench.command("sampling")(sampling)

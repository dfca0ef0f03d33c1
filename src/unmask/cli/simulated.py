"""`unmask generate` on a machine: in the functional reading, or on the hardware in Verilator."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from unmask.cli import costs
from unmask.cli.generate import shown

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from unmask.cli.canvas import CanvasView
    from unmask.cli.generate import Task
    from unmask.compiler.guide import NpuGuide
    from unmask.compiler.host import Simulation
    from unmask.isa.program import Program
    from unmask.machine.config import Machine
    from unmask.machine.executor import Executor
    from unmask.rtl.backend import RtlMachine
    from unmask.silicon.cost.table import Costs

_UNIT = "npu"


@dataclass
class _Hardware:
    """Loads programs into the built hardware, and remembers what ran on it."""

    library: Path
    watch: Callable[[int, float], None]
    machines: list[RtlMachine] = field(default_factory=list)

    def __call__(self, program: Program, machine: Machine) -> Executor:
        from unmask.rtl.backend import RtlMachine

        self.machines.append(RtlMachine(program, machine, self.library, self.watch))
        return self.machines[-1]

    def result(self, program: Program, done: Simulation, guide: NpuGuide | None) -> dict[str, Any]:
        """How fast it ran, and by how many cycles its runs, of the program and of a guide's, differ from the cycle reading."""
        from unmask.compiler.host import cycles_of_steps

        due = []
        for machine in self.machines:
            times = guide.cycles_of_runs() if guide is not None and machine.program is not program else cycles_of_steps(program, done)
            due += list(zip(machine.runs, times, strict=True))
        difference = sum(abs(run.cycles - cycles % 2**32) for run, cycles in due)
        seconds = sum(machine.seconds for machine in self.machines)
        ran = sum(machine.cycles for machine in self.machines)
        return {"cycle_difference": difference, "cycles_per_second": ran / seconds}

    def close(self) -> None:
        for machine in self.machines:
            machine.close()


def simulated(
    task: Task, machine: Machine, view: CanvasView, check: bool, checkpoint: str, sampling: str, prices: Costs, *, rtl: bool
) -> dict[str, Any]:
    """Generate on a machine.

    Args:
        check: compare with PyTorch; the hardware also with the functional and the cycle reading.
        checkpoint: where the model came from. sampling: name of the sampling program.
        rtl: run the hardware.

    Returns:
        The JSON of the command, its text missing.
    """
    from unmask.compiler.guide import NpuGuide, compile_guide
    from unmask.compiler.host import simulate
    from unmask.compiler.lower import compile_step
    from unmask.compiler.sampling.streamed import sampling_named
    from unmask.machine.functional import FunctionalMachine
    from unmask.numerics import bf16
    from unmask.quant.smoothing.static import scales_for
    from unmask.rtl.backend import require_instructions

    hardware = _Hardware(_built(machine, view), view.cycles) if rtl else None
    started = time.perf_counter()
    scales = scales_for(machine.formats.smoothing, checkpoint, task.model)
    prompt_length, padded = len(task.padded[0]), task.attention_mask is not None
    program = compile_step(
        task.model,
        task.policy,
        machine,
        prompt_length,
        len(task.prompts),
        padded=padded,
        kv_scales=scales,
        sampling=sampling_named(sampling),
    )
    programs = [program]
    if task.guide is not None:
        programs.append(compile_guide(task.guide, machine, prompt_length + task.policy.gen_length))

    if hardware is not None:
        for each in programs:
            require_instructions(each, _UNIT)

    def run(executing: Callable[[Program, Machine], Executor], **options: Any) -> tuple[Simulation, NpuGuide | None]:
        guide = None if task.guide is None else NpuGuide(programs[-1], executing)
        return simulate(
            program, task.padded, template=task.content, attention_mask=task.attention_mask, guide=guide, executing=executing, **options
        ), guide

    with view.running():
        done, guide = run(FunctionalMachine if hardware is None else hardware, on_step=shown(task, view))
    wall = time.perf_counter() - started
    measured: dict[str, Any] = {"cycle_difference": None, "cycles_per_second": None}
    if hardware is not None:
        measured = hardware.result(program, done, guide)
        hardware.close()
    compared = None
    if check:
        compared = _compared(task, done, scales, view)
        if hardware is not None:
            with view.checking("running the functional reading") as advance:
                read, _ = run(FunctionalMachine, on_step=advance)
            compared["functional"] = _same(done, read)
            compared["identical"] &= compared["functional"] and measured["cycle_difference"] == 0
    return (
        costs.of_simulation(done, programs, prices)
        | {
            "text": None,
            "forwards": len(done.steps),
            "instructions": len(program.words),
            "temperature_bf16": bf16.rounded(task.policy.temperature),
            "check": compared,
            "identical": None if compared is None else compared["identical"],
            "wall_seconds": wall,
        }
        | measured
    )


def _built(machine: Machine, view: CanvasView) -> Path:
    from unmask.rtl.lockstep.build import harness

    with view.building() as report:
        return harness(machine, _UNIT, report)


def _compared(task: Task, done: Simulation, scales: Any, view: CanvasView) -> dict[str, Any]:
    from unmask.compiler.check import check as compare

    with view.checking("checking against PyTorch") as advance:
        return dict(vars(compare(done, task.model, guide=task.guide, kv_scales=scales, on_step=advance)))


def _same(one: Simulation, other: Simulation) -> bool:
    """Whether two runs did the same in every step."""
    pairs = (
        [(step.entry, step.start, step.canvas.tolist()) for step in one.steps],
        [(step.entry, step.start, step.canvas.tolist()) for step in other.steps],
    )
    return pairs[0] == pairs[1]

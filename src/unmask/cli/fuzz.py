"""`unmask fuzz`: random programs in three readings, which must agree."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.status import Status
from rich.table import Table

from unmask.cli import options
from unmask.errors import UnmaskError

if TYPE_CHECKING:
    from unmask.machine.config import Machine
    from unmask.rtl.lockstep import Result

_SHOWN = 20
_SHRUNK = 3


def fuzz(
    programs: Annotated[int, typer.Option(help="Random programs to run.", min=1)] = 300,
    seed: Annotated[int, typer.Option(help="Chooses the programs.", min=0)] = 0,
    unit: Annotated[str, typer.Option(help="The hardware: sampler, vector (all that needs no matrix engine) or npu.")] = "sampler",
    machine: options.MachineOption = "nano",
    vlen: Annotated[int | None, typer.Option(help="Lanes; by default the machine's.", min=1)] = 8,
    jobs: Annotated[int, typer.Option(help="Processes.", min=1)] = 1,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for shrunk programs that fail.")] = Path("build/fuzz"),
    replay: Annotated[Path | None, typer.Option(help="Run a saved program again instead.")] = None,
    as_json: options.JsonOption = False,
) -> None:
    """Run random programs in the functional and the cycle reading and in RTL, and compare every instruction's values and cycles.

    The hardware is built first: minutes, kept in the user's cache. Exits with status 1 if anything differs; a program that fails is shrunk
    and saved with the command that runs it again.
    """
    from unmask.machine.config import Machine
    from unmask.rtl.lockstep import campaign
    from unmask.rtl.lockstep.build import harness
    from unmask.rtl.lockstep.machines import bench_machine

    console = Console(stderr=True)
    saved: list[Path] = []
    if replay is not None:
        with console.status("running"):
            result = campaign.replay(replay)
        absent: list[str] = []
    else:
        built = bench_machine(Machine.load(machine), vlen)
        with console.status(f"building the {unit} of {built.name}, {built.vector.vlen} lanes"):
            harness(built, unit)
        result = _run(console, programs, seed, built, unit, jobs)
        absent = campaign.missing(result, built, unit)
        saved = _save(console, result, seed, built, unit, output)
    commands = [f"unmask fuzz --replay {path}" for path in saved]
    if as_json:
        print(json.dumps(_json(result, absent, commands)))
    else:
        _show(result, absent, commands)
    if not result.passed:
        raise typer.Exit(1)


def _run(console: Console, programs: int, seed: int, machine: Machine, unit: str, jobs: int) -> Result:
    from unmask.rtl.lockstep import fuzz as run

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("programs", total=programs)
        found: list[Result] = []

        def advance(result: Result) -> None:
            found.append(result)
            wrong = result.value_mismatches + result.cycle_mismatches + result.fault_mismatches
            bar.update(task, completed=result.programs, description=f"programs, {wrong} mismatches" if wrong else "programs")

        try:
            return run(programs, seed, machine, unit, jobs=jobs, progress=advance)
        except KeyboardInterrupt:
            bar.stop()
            console.print(f"interrupted after {found[-1].programs if found else 0} programs")
            if found:
                _show(found[-1], [], [])
            raise


def _save(console: Console, result: Result, seed: int, machine: Machine, unit: str, output: Path) -> list[Path]:
    """Shrink and save the first programs that fail; those meant to end in a fault are known by their number."""
    from unmask.rtl.lockstep import campaign

    saved: list[Path] = []
    for number in result.failing:
        if len(saved) == _SHRUNK:
            break
        try:
            with console.status(f"shrinking program {number}") as status:
                saved.append(campaign.save_failure(seed, number, machine, unit, output, _tell(status, number)))
        except UnmaskError as error:
            console.print(escape(str(error)))
    return saved


def _tell(status: Status, number: int) -> Callable[[int], None]:
    return lambda size: status.update(f"shrinking program {number}: {size} instructions left")


def _json(result: Result, absent: list[str], commands: list[str]) -> dict[str, Any]:
    return {
        "programs": result.programs,
        "instructions": result.instructions,
        "value_mismatches": result.value_mismatches,
        "cycle_mismatches": result.cycle_mismatches,
        "fault_mismatches": result.fault_mismatches,
        "failing": result.failing,
        "details": [str(detail) for detail in result.details[:_SHOWN]],
        "replay": commands,
        "coverage": {"points": dict(sorted(result.coverage.items())), "missing": absent},
    }


def _show(result: Result, absent: list[str], commands: list[str]) -> None:
    console = Console()
    table = Table("", "", show_header=False)
    for label, value in (
        ("programs", result.programs),
        ("instructions executed", result.instructions),
        ("with wrong values", result.value_mismatches),
        ("in wrong cycles", result.cycle_mismatches),
        ("faults misreported", result.fault_mismatches),
        ("coverage points met", len(result.coverage)),
        ("coverage points missing", len(absent)),
    ):
        table.add_row(label, f"{value:,}")
    console.print(table)
    for detail in result.details[:_SHOWN]:
        console.print(escape(str(detail)))
    for point in absent:
        console.print(f"not covered: {escape(point)}")
    for command in commands:
        console.print(escape(command), soft_wrap=True)

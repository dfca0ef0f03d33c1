"""`unmask search`: try many machines of a space and keep those that no other beats."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unmask.cli import options
from unmask.cli.policy import policy_from, takes_policy
from unmask.cli.printed import print_json, typed
from unmask.errors import UnmaskError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from unmask.explore.evaluate import Outcome, Task
    from unmask.explore.store import Point

PANEL = "Workload, as of `unmask sim`"
_OF_THE_SEARCH = frozenset(
    ("space", "objective", "model", "trials", "jobs", "output", "resume", "sampler_seed", "cluster", "cycle", "costs", "as_json")
)


@takes_policy
def search(
    ctx: typer.Context,
    space: Annotated[Path, typer.Argument(metavar="SPACE.toml", help="What is varied, within which limits; see docs/exploring.md.")],
    objective: Annotated[
        str,
        typer.Option(metavar="NAME,...", help="What to minimize: latency, energy, power, area, peak-power, multiplies, sram, bandwidth."),
    ] = "latency,area",
    model: Annotated[str | None, typer.Option(help="As of `unmask sim`; by default the one that the space names.")] = None,
    trials: Annotated[int, typer.Option(help="Points to try, those of a search that is resumed included.", min=1)] = 200,
    jobs: Annotated[int, typer.Option(help="Processes.", min=1)] = 1,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the study, the front and its machines; by default build/search/SPACE.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the search in the folder, if there is one.")] = False,
    sampler_seed: Annotated[int, typer.Option(help="Decides the points, on however many processes.", min=0, max=2**32 - 1)] = 0,
    cluster: Annotated[
        str | None, typer.Option(metavar="dask|ADDRESS", help="Evaluate on a Dask cluster: Dask's own choice, or tcp://HOST:PORT.")
    ] = None,
    cycle: Annotated[
        bool, typer.Option("--cycle/--no-cycle", help="Time the front by the cycle reading at the end, up to minutes a point.")
    ] = True,
    batch: Annotated[int, typer.Option(help="Sequences that are decoded side by side.", min=1, rich_help_panel=PANEL)] = 1,
    prompt: Annotated[int, typer.Option(help="Tokens of each prompt.", min=1, rich_help_panel=PANEL)] = 512,
    gen_length: Annotated[
        int, typer.Option("--generate", "--gen-length", help="New tokens of each sequence.", min=1, rich_help_panel=PANEL)
    ] = 256,
    block_length: Annotated[
        int | None,
        typer.Option("--block", "--block-length", help="Tokens per block; by default the policy's.", min=1, rich_help_panel=PANEL),
    ] = None,
    tokens_per_step: Annotated[
        float | None,
        typer.Option(help="Of --commit threshold and factor: tokens that a step commits on average; by default 1.", rich_help_panel=PANEL),
    ] = None,
    sampling: options.SamplingOption = "general",
    costs: options.CostsOption = None,
    as_json: options.JsonOption = False,
    **decoding: Any,
) -> None:
    """Try machines of a space by the analytic reading, with Optuna: TPE for one objective, NSGA-II for several.

    A machine on which the workload does not compile is a trial with its reason. Every trial is written when it ends, so that a search that
    was killed goes on with --resume. The front is printed, drawn and written with a machine file for each of its points.
    """
    from rich.console import Console

    from unmask.cli.target import target_machine
    from unmask.compiler.sampling.streamed import sampling_named
    from unmask.explore.evaluate import Task, Workload
    from unmask.explore.measures import objectives_named
    from unmask.explore.search import AHEAD, search, time_front
    from unmask.explore.space import Space, read_space
    from unmask.explore.store import Store
    from unmask.explore.workers import workers
    from unmask.models.catalogue import architecture, catalogue
    from unmask.silicon.cost.table import load_costs

    described = read_space(space)
    given, stated = _workload(ctx, described.workload)
    name = model or described.model
    if name is None:
        raise UnmaskError(f"{space}: names no model; expected --model")
    policy = policy_from({key: given[key] for key in (*decoding, "gen_length", "block_length")} | {"policy": given["policy"] or "llada"})
    shape = architecture(name)
    base = target_machine(described.machine, None if name in catalogue() else name, {})
    workload = Workload(shape, policy, given["prompt"], given["batch"], given["tokens_per_step"], sampling_named(given["sampling"]))
    task = Task(Space(base, described.fields), workload, objectives_named(objective), load_costs(costs), described.limits)
    settings = {
        "space": described.model_dump(mode="json", exclude={"model", "workload"}),
        "machine": base.model_dump(mode="json"),
        "model": name,
        "workload": stated,
        "objectives": list(task.objectives),
        "costs": task.costs.model_dump(mode="json"),
        "seed": sampler_seed,
    }
    assert task.measures, "every name is known from here on"
    folder = output or Path("build/search") / space.stem
    _make(folder)
    console = Console(stderr=True)
    command = shlex.join(["unmask", "sim", name, *_words(stated), *(("--costs", str(costs)) if costs else ())])
    # The store comes last: what is wrong before it leaves no study behind.
    with workers(jobs, cluster) as (executor, width):
        store = Store(folder / "study.db", task, settings, resume)
        started, first = time.perf_counter(), len(store.points())
        with _progress(console, "trials", trials) as bar:
            points = search(task, store, trials, sampler_seed, max(AHEAD, 2 * width), executor, _Told(bar, task).trial)
        seconds = time.perf_counter() - started
        front = _front(points, task)
        about = {"space": str(space), "model": name, "workload": stated, "sampler_seed": sampler_seed, "command": typed()}
        found = _leave(task, points, None, command, about, folder)
        if cycle:
            with _progress(console, "cycle reading of the front", len(front)) as bar:
                exact = time_front(task, store, front, executor, lambda point, outcome: bar.advance(bar.task_ids[0]))
            found = _leave(task, points, exact, command, about, folder)
    found["seconds"] = seconds
    found["new_trials_per_minute"] = (len(points) - first) / seconds * 60
    if as_json:
        print_json(found)
    else:
        from unmask.cli.search_tables import show

        show(found)


def _workload(ctx: typer.Context, described: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of the workload: on the command line, else in the space's file, else their defaults; and those given, by their long names."""
    names = {
        flag.removeprefix("--"): p for p in ctx.command.params for flag in (*p.opts, *p.secondary_opts) if p.name not in _OF_THE_SEARCH
    }
    values, stated = dict(ctx.params), {}
    for flag, value in described.items():
        if flag not in names or flag == "help":
            raise UnmaskError(f"workload.{flag}: no option of the workload; expected some of {', '.join(sorted(set(names) - {'help'}))}")
        option = names[flag]
        assert option.name is not None
        if flag == "no-" + option.name.replace("_", "-"):
            raise UnmaskError(f"workload.{flag}: expected {flag.removeprefix('no-')} = false")
        if _is_default(ctx, option.name):
            try:
                values[option.name] = option.process_value(ctx, str(value))
            except typer.BadParameter as error:
                raise UnmaskError(f"workload.{flag} = {value!r}: {error.message}") from None
            stated[option.opts[0].removeprefix("--")] = value
    for option in {id(p): p for p in names.values()}.values():
        assert option.name is not None
        if not _is_default(ctx, option.name):
            value = values[option.name]
            stated[option.opts[0].removeprefix("--")] = value.value if isinstance(value, Enum) else value
    return values, dict(sorted(stated.items()))


def _is_default(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is None or source.name == "DEFAULT"


def _words(stated: Mapping[str, Any]) -> Iterator[str]:
    """Options as words of a command line."""
    for flag, value in stated.items():
        if isinstance(value, bool):
            yield f"--{flag}" if value else f"--no-{flag}"
        else:
            yield from (f"--{flag}", f"{value}")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnmaskError(f"{folder}: cannot make the folder: {error.strerror}") from None


def _front(points: list[Point], task: Task) -> list[Point]:
    from unmask.explore.front import front_of

    return front_of(points, task.objectives)


def _leave(
    task: Task, points: list[Point], exact: Mapping[int, Outcome] | None, command: str, about: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """Write what the search leaves in its folder; `about` it and the figures of `report`, with `files`."""
    from dataclasses import replace

    from unmask.explore.export import report, write_front
    from unmask.explore.plots import draw

    front = _front(points, task)
    if exact is not None:
        timed = _front([replace(point, outcome=exact[point.number]) for point in front], task)
        front = [point for point in front if point.number in {survivor.number for survivor in timed}]
    found = {**about, **report(task, points, front, exact or {}, command)}
    files = [write_front(found, task, folder), *draw(task, points, front, folder), folder / "study.db"]
    return found | {"files": [str(path) for path in files]}


@contextmanager
def _progress(console: Console, what: str, total: int) -> Iterator[Progress]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        bar.add_task(what, total=total)
        yield bar


class _Told:
    """Says how the search goes."""

    def __init__(self, bar: Progress, task: Task) -> None:
        self._bar, self._task, self._infeasible = bar, task, 0
        self._least: dict[str, float] = {}

    def trial(self, point: Point) -> None:
        """Take note of a trial."""
        self._infeasible += bool(point.outcome.reason)
        if not point.outcome.reason:
            for name in self._task.objectives:
                value = point.outcome.measures[name]
                self._least[name] = min(value, self._least.get(name, value))
        least = ", ".join(f"{name} {value:.4g}" for name, value in self._least.items())
        told = f"trials, {self._infeasible} infeasible" + (f", least {least}" if least else "")
        self._bar.update(self._bar.task_ids[0], advance=1, description=told)

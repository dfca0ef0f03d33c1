"""What a search leaves: its front as JSON, a machine file for every point of it, and the command that times each."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unmask.errors import UnmaskError
from unmask.explore.describe import machine_text
from unmask.explore.evaluate import INTERNAL, Outcome, Task
from unmask.explore.store import Point
from unmask.machine.config import Machine


def report(task: Task, points: Sequence[Point], front: Sequence[Point], cycle: Mapping[int, Outcome], command: str) -> dict[str, Any]:
    """The search as figures with stable names.

    Args:
        task: what was searched.
        points: all trials.
        front: those that none beats.
        cycle: the cycle reading of points of the front, by number.
        command: `unmask sim` with the workload, to which the machine is added.
    """
    reasons = Counter(point.outcome.reason for point in points if point.outcome.reason)
    return {
        "objectives": list(task.objectives),
        "units": {measure.name: measure.unit for measure in task.measures},
        "limits": dict(task.limits),
        "trials": len(points),
        "distinct": len({tuple(sorted(point.parameters.items())) for point in points}),
        "feasible": sum(not point.outcome.reason for point in points),
        "infeasible": dict(reasons.most_common()),
        "internal_errors": sum(count for reason, count in reasons.items() if reason.startswith(INTERNAL)),
        "front": [_entry(task, point, cycle.get(point.number), command) for point in front],
    }


def _entry(task: Task, point: Point, cycle: Outcome | None, command: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "trial": point.number,
        "fields": task.space.values(point.parameters),
        "analytic": {**point.outcome.measures, **point.outcome.figures},
        "command": f"{command} --reading analytic" if cycle is None else command,
    }
    if cycle is not None:
        found["cycle"] = {**cycle.measures, **cycle.figures}
    return found


def write_front(found: dict[str, Any], task: Task, folder: Path) -> Path:
    """Write a machine file for every point of the front, complete the commands, and write everything as `front.json`.

    Args:
        found: of `report`; every point of the front gets its `machine`, and its command names it.
        task: what was searched.
        folder: of the search; machine files go into `machines`, where those of an earlier front are removed.

    Raises:
        UnmaskError: a file cannot be written.
    """
    machines = folder / "machines"
    try:
        machines.mkdir(exist_ok=True)
        for old in machines.glob("trial-*.toml"):
            old.unlink()
        for entry in found["front"]:
            path = machines / f"trial-{entry['trial']}.toml"
            machine = machine_of(task, entry)
            entry["machine"] = str(path)
            entry["command"] += f" --machine {shlex.quote(str(path))}"
            path.write_text(machine_text(machine, (entry["command"],)), "utf-8")
        path = folder / "front.json"
        path.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    except OSError as error:
        raise UnmaskError(f"{folder}: cannot write the front: {error.strerror}") from None
    return path


def machine_of(task: Task, entry: Mapping[str, Any]) -> Machine:
    """The machine of a point of the front, with a name of its own."""
    return task.space.machine(entry["fields"], f"{task.space.base.name}-trial-{entry['trial']}")

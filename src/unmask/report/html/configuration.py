"""What was run, exactly: the command, the machine and the file of every run."""

from __future__ import annotations

from html import escape

from unmask.machine.config import Machine, presets
from unmask.report.html.figures import Data, command, facts, table
from unmask.report.html.runs import COMMANDS, Run


def configuration(run: Run) -> str:
    """The file, the command that makes it again, and the machine where it ships."""
    stated = run.found.get("otherData") or run.found
    line = stated.get("command")
    about = [("file", run.name), ("SHA-256", run.digest), ("written by", COMMANDS[run.kind])]
    shown = facts(about) + (command(line) if isinstance(line, str) else "")
    name = stated.get("machine")
    if isinstance(name, str) and name in presets():
        shown += f"<details><summary>Machine {escape(name)}</summary>{_machine(Machine.preset(name))}</details>"
    return shown


def _machine(machine: Machine) -> str:
    rows: list[tuple[str, str]] = []
    for name, value in machine.model_dump(exclude_none=True).items():
        rows += [(f"{name}.{key}", str(inner)) for key, inner in value.items()] if isinstance(value, dict) else [(name, str(value))]
    return table(f"Machine {machine.name}", Data(("field", "value"), rows))

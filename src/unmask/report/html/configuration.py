"""What was run, exactly: the command, the machine and the file of every run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from html import escape
from typing import Any

from unmask.decoding.policies import NAMED
from unmask.errors import UnmaskError
from unmask.machine.config import Machine, presets
from unmask.report.html.figures import Data, command, facts, table
from unmask.report.html.runs import COMMANDS, Run

_NAMES = {"gen_length": "generate", "block_length": "block"}
_UNNAMED = ("seed", "exclude_mask", "honour_padding", "eps")
"""Fields of a policy that decide no time, or that no option sets."""


def configuration(run: Run) -> str:
    """The file, the command that makes it again, and the machine where it ships."""
    line = _command(run)
    about = [("file", run.name), ("SHA-256", run.digest), ("written by", COMMANDS[run.kind])]
    shown = facts(about) + (command(line) if line else "")
    name = run.found.get("machine")
    if isinstance(name, str) and name in presets():
        shown += f"<details><summary>Machine {escape(name)}</summary>{_machine(Machine.preset(name))}</details>"
    return shown


def _machine(machine: Machine) -> str:
    rows: list[tuple[str, str]] = []
    for name, value in machine.model_dump(exclude_none=True).items():
        rows += [(f"{name}.{key}", str(inner)) for key, inner in value.items()] if isinstance(value, dict) else [(name, str(value))]
    return table(f"Machine {machine.name}", Data(("field", "value"), rows))


def _command(run: Run) -> str | None:
    """As the file states it, else put together again from what was run; None where that is not all in the file."""
    found = run.found
    if isinstance(found.get("command"), str):
        return str(found["command"])
    match run.kind:
        case "sim":
            return shlex.join(["unmask", "sim", found["model"], *_workload(found), "--reading", found["reading"], "--json"])
        case "sampling":
            words = ["unmask", "bench", "sampling"]
            names = {"machine": "machine", "batch": "batch", "block": "block", "vocab": "vocabulary", "program": "program"}
            for flag, field in (names | {"temperature": "temperature"}).items():
                words += [f"--{flag}", f"{found[field]}"]
            return shlex.join([*words, *(["--chunk", str(found["chunk"])] if found["chunk"] else []), "--json"])
    return None


def _workload(found: Mapping[str, Any]) -> list[str]:
    """Options of `unmask sim`: sizes, whatever differs from LLaDA's policy, formats."""
    words = ["--machine", found["machine"]]
    for name in ("batch", "prompt", "generate", "block"):
        words += [f"--{name}", str(found[name])]
    policy = found["policy"]
    try:
        usual = asdict(NAMED["llada"].policy(gen_length=policy["gen_length"], block_length=policy["block_length"]))
    except UnmaskError:
        usual = {}
    for name, value in policy.items():
        if name in _NAMES or name in _UNNAMED or value is None or usual.get(name) == value:
            continue
        flag = name.replace("_", "-")
        words += [f"--{flag}" if value else f"--no-{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
    for line in found["assumptions"]:
        if rate := re.search(r"a step commits ([\d.e+]+) tokens? of a sequence", line):
            words += ["--tokens-per-step", rate.group(1)]
    for role, form in found["formats"].items():
        words += [f"--{role}", form]
    return words

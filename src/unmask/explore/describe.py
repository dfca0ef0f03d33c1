"""A machine as the text of a machine file."""

from __future__ import annotations

import json
from typing import Any

from unmask.machine.config import Machine


def machine_text(machine: Machine, remarks: tuple[str, ...] = ()) -> str:
    """TOML that `Machine.load` reads back to the same machine, under lines of remarks."""
    described = machine.model_dump(exclude_none=True)
    lines = [f"# {line}" for line in remarks]
    lines += [f"{name} = {_value(value)}" for name, value in described.items() if not isinstance(value, dict)]
    for name, part in described.items():
        if isinstance(part, dict):
            lines += ["", f"[{name}]", *(f"{key} = {_value(value)}" for key, value in part.items())]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(inner)}" for key, inner in value.items()) + " }" if value else "{}"
    # JSON's strings, integers, floats and booleans are TOML's too, but for one character that JSON leaves as it is.
    return json.dumps(value).replace("\x7f", "\\u007f")

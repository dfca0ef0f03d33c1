"""Figures as JSON, with the command that printed them, which files that a command writes state too."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any

_arguments: ContextVar[tuple[str, ...]] = ContextVar("arguments", default=())


def remember(arguments: Sequence[str]) -> None:
    """The words of the command line behind `unmask`."""
    _arguments.set(tuple(arguments))


def typed() -> str:
    """The command line, `unmask` included."""
    return shlex.join(["unmask", *_arguments.get()])


def print_json(figures: Mapping[str, Any]) -> None:
    """Print figures on one line, and as `command` what was typed."""
    print(json.dumps({**figures, "command": typed()}))

"""Figures as JSON, with the command that printed them."""

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


def print_json(figures: Mapping[str, Any]) -> None:
    """Print figures on one line, and as `command` what was typed."""
    print(json.dumps({**figures, "command": shlex.join(["unmask", *_arguments.get()])}))

"""What a report is made of: files that commands wrote with `--json`, or with `--trace`, told apart by their fields."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unmask.errors import UnmaskError

_FIELDS: dict[str, tuple[str, ...]] = {
    "compare": ("npu", "gpu", "ratio", "sim"),
    "search": ("objectives", "front"),
    "generate": ("commits", "tokens", "text"),
    "sim": ("by_phase", "by_step", "peak_tops"),
    "sampling": ("program", "bound_ms", "breakdown"),
    "synth": ("area_um2", "blocks", "parts"),
    "synth-table": ("rows", "checked_vlen"),
    "trace": ("traceEvents", "otherData"),
}
"""Fields that only one kind of file has together, by the kind."""
COMMANDS = {
    "compare": "unmask compare --json",
    "search": "unmask search --json",
    "generate": "unmask generate --json",
    "sim": "unmask sim --json",
    "sampling": "unmask bench sampling --json",
    "synth": "unmask synth --json",
    "synth-table": "unmask synth --table --json",
    "trace": "unmask sim --trace",
}
"""Which command writes a kind of file."""


@dataclass(frozen=True)
class Run:
    """A file.

    Attributes:
        kind: one of `COMMANDS`.
        name: of the file, without its folder.
        digest: SHA-256 of its bytes, hexadecimal.
        found: what it holds.
    """

    kind: str
    name: str
    digest: str
    found: dict[str, Any]


def read_run(path: Path) -> Run:
    """Read a file and find out what it is.

    Raises:
        UnmaskError: it cannot be read, is no JSON object, or none that a report knows.
    """
    try:
        content = path.read_bytes()
        found = json.loads(content)
    except OSError as error:
        raise UnmaskError(f"{path}: cannot read: {error.strerror}") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise UnmaskError(f"{path}: not JSON; expected what a command prints with --json") from None
    if isinstance(found, dict):
        for kind, fields in _FIELDS.items():
            if found.keys() >= set(fields):
                return Run(kind, path.name, hashlib.sha256(content).hexdigest(), found)
    raise UnmaskError(f"{path}: not a run that a report shows; expected the output of {', '.join(COMMANDS.values())}")

"""`unmask policies`: the decodings that have a name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from unmask.cli.options import JsonOption
from unmask.decoding.policies import NAMED


def policies(as_json: JsonOption = False) -> None:
    """List the named policies, what each sets, and its paper. All else is as `unmask generate --help` says."""
    if as_json:
        print(json.dumps([{**vars(named), "settings": dict(named.settings)} for named in NAMED.values()]))
        return
    table = Table("policy", "settings", "paper", box=None, pad_edge=False)
    for named in NAMED.values():
        table.add_row(named.name, _flags(named.settings, named.one_block), named.paper)
    Console(highlight=False).print(table)


def _flags(settings: Mapping[str, Any], one_block: bool) -> str:
    flags = [f"--{name.replace('_', '-')} {value}" for name, value in settings.items()]
    return " ".join([*flags, "one block"] if one_block else flags)

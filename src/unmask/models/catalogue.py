"""Networks by their shape alone: published models of `catalogue.toml`, shipped checkpoints and checkpoint folders."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from unmask.errors import UnmaskError
from unmask.models.checkpoint import config_of, read_config, resolve_checkpoint, shipped_checkpoints
from unmask.models.layers import Architecture

_FILE = "catalogue.toml"


@cache
def catalogue() -> Mapping[str, Mapping[str, Any]]:
    """The published models: per name a `summary` and the keys of its `config.json` as `config`."""
    return tomllib.loads((resources.files("unmask.models") / _FILE).read_text("utf-8"))


def architecture(name: str) -> Architecture:
    """The sizes of a network; no weights are read.

    Args:
        name: of the catalogue, of a shipped checkpoint, or the path of a folder with a `config.json`.

    Raises:
        UnmaskError: none of these, or a `config.json` that is damaged or of an unknown family.
    """
    entry = catalogue().get(name)
    if entry is not None:
        _, config = config_of(entry["config"], Path(_FILE))
    elif name in shipped_checkpoints() or Path(name).exists():
        _, config = read_config(resolve_checkpoint(name))
    else:
        known = ", ".join((*catalogue(), *shipped_checkpoints()))
        raise UnmaskError(f"unknown model {name!r}: expected one of {known}, or a folder with a config.json")
    shape: Architecture = config.architecture
    return shape

"""Caches by name. A cache is one file of this package with a module constant `CACHES`; it is found by looking, so adding one edits
nothing else.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

from unmask.decoding.cache.base import Cache
from unmask.decoding.cache.smoothing import Smoothing


@dataclass(frozen=True)
class CacheKind:
    """What a policy can name.

    Attributes:
        name: the value of `Policy.cache`.
        build: a new cache for one generation, which divides keys and values by a smoothing method's scales, or by nothing (None).
        summary: which rows a step feeds, in a phrase.
        opens_blocks: later steps of a block do not feed the row before it. On a network with shifted logits that row predicts the block's
            first position, which such networks therefore commit in the block's first step (`unmask.decoding.dream.Opening`).
        consecutive: the rows that a step feeds are always consecutive, and which they are depends on block and step alone.
    """

    name: str
    build: Callable[[Smoothing | None], Cache]
    summary: str
    opens_blocks: bool = False
    consecutive: bool = True


@cache
def caches() -> Mapping[str, CacheKind]:
    """Every cache that this package knows, sorted by name."""
    package = importlib.import_module("unmask.decoding.cache")
    modules = (importlib.import_module(f"unmask.decoding.cache.{found.name}") for found in pkgutil.iter_modules(package.__path__))
    kinds = [kind for module in modules for kind in getattr(module, "CACHES", ())]
    return {kind.name: kind for kind in sorted(kinds, key=lambda kind: kind.name)}

"""Fast-dLLM's block caches (Wu et al., arXiv 2505.22618): refreshed by the first step of every block."""

from __future__ import annotations

from unmask.decoding.cache.base import KeyValueStore, Moment
from unmask.decoding.cache.registry import CacheKind
from unmask.decoding.cache.smoothing import Smoothing
from unmask.models.layers import LayerRunner, Rows


class PrefixCache:
    """Later steps of a block feed everything from the block's start on; what lies before keeps the keys and values of the first step."""

    def __init__(self, smoothing: Smoothing | None = None) -> None:
        self._store = KeyValueStore(smoothing)

    def rows(self, now: Moment) -> range:
        return now.everything if now.step == 0 else range(now.block.start, now.everything.stop)

    def runner(self, now: Moment, rows: Rows) -> LayerRunner:
        return self._store.runner(now, rows)


class DualCache:
    """Later steps of a block feed only the block; everything outside keeps the keys and values of the first step."""

    def __init__(self, smoothing: Smoothing | None = None) -> None:
        self._store = KeyValueStore(smoothing)

    def rows(self, now: Moment) -> range:
        return now.everything if now.step == 0 else now.block

    def runner(self, now: Moment, rows: Rows) -> LayerRunner:
        return self._store.runner(now, rows)


CACHES = (
    CacheKind("prefix", PrefixCache, "all; after a block's first step, from the block's start on", opens_blocks=True),
    CacheKind("dual", DualCache, "all; after a block's first step, the block", opens_blocks=True),
)

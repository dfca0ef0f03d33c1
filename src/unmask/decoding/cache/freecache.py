"""FlashDLM's caches (Hu et al., arXiv 2505.21467): keys and values that are computed once and never refreshed."""

from __future__ import annotations

from unmask.decoding.cache.base import KeyValueStore, Moment
from unmask.decoding.cache.registry import CacheKind
from unmask.decoding.cache.smoothing import Smoothing
from unmask.models.layers import LayerRunner, Rows


class FreeCache:
    """Everything before the row that predicts the block's first token is frozen: a step feeds `[block.start - 1, end of the canvas)`,
    the first step of all feeds everything. A finished block keeps the keys and values of its last step.
    """

    def __init__(self, smoothing: Smoothing | None = None) -> None:
        self._store = KeyValueStore(smoothing)

    def rows(self, now: Moment) -> range:
        return now.everything if now.index == 0 else range(max(now.block.start - 1, 0), now.everything.stop)

    def runner(self, now: Moment, rows: Rows) -> LayerRunner:
        return self._store.runner(now, rows)


class PromptCache:
    """The prompt is frozen by the first step; later ones feed all new positions. Guided Diffusion runs with it."""

    def __init__(self, smoothing: Smoothing | None = None) -> None:
        self._store = KeyValueStore(smoothing)

    def rows(self, now: Moment) -> range:
        return now.everything if now.index == 0 else range(now.prompt_length, now.everything.stop)

    def runner(self, now: Moment, rows: Rows) -> LayerRunner:
        return self._store.runner(now, rows)


CACHES = (
    CacheKind("freecache", FreeCache, "all; after the first step, from the row before the block on"),
    CacheKind("prompt", PromptCache, "all; after the first step, what follows the prompt", opens_blocks=True),
)

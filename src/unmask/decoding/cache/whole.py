"""No reuse: every step feeds the whole canvas."""

from __future__ import annotations

from unmask.decoding.cache.base import KeyValueStore, Moment
from unmask.decoding.cache.smoothing import Smoothing
from unmask.models.layers import LayerRunner, Rows


class WholeCanvas:
    """Keys and values of a step are never read by another one; they stand in a store because it can smooth them."""

    def __init__(self, smoothing: Smoothing | None = None) -> None:
        self._store = KeyValueStore(smoothing)

    def rows(self, now: Moment) -> range:
        return now.everything

    def runner(self, now: Moment, rows: Rows) -> LayerRunner:
        return self._store.runner(now, rows)

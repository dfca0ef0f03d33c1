"""dKV-Cache (Ma et al., arXiv 2505.15781): keys and values are kept one step after their token is decoded."""

from __future__ import annotations

from torch import Tensor

from unmask.decoding.cache.base import KeyValueStore, Moment
from unmask.decoding.cache.registry import CacheKind
from unmask.decoding.cache.smoothing import Smoothing
from unmask.errors import UnmaskError
from unmask.models.layers import LayerRunner, Rows


class DelayedCache:
    """dKV-Cache-Decode: a step feeds the positions that were masked before the step before it, in any row of the batch: those still masked,
    and those just decoded, whose keys and values are then for the first time the token's and stay. A block's first two steps and every
    `refresh`-th one feed everything.

    On a network with shifted logits the row before a masked position, which predicts it, is fed too.
    """

    def __init__(self, smoothing: Smoothing | None = None, refresh: int = 8) -> None:
        """Set the refresh interval in steps.

        Raises:
            UnmaskError: an interval below 1.
        """
        if refresh < 1:
            raise UnmaskError(f"refresh is {refresh!r}; it must be at least 1")
        self._store, self._refresh = KeyValueStore(smoothing), refresh
        self._masked: Tensor | None = None

    def rows(self, now: Moment) -> Rows:
        masked = (now.canvas == now.mask_token_id).any(dim=0)
        fed, self._masked = self._masked, masked
        if fed is None or now.step < 2 or now.step % self._refresh == 0 or not bool(fed.any()):
            return now.everything
        if now.shifted:
            fed = fed.clone()
            fed[:-1] |= masked[1:]
        return fed.nonzero()[:, 0]

    def runner(self, now: Moment, rows: Rows) -> LayerRunner:
        return self._store.runner(now, rows)


CACHES = (
    CacheKind(
        "dkv", DelayedCache, "what was masked before the last step; all in two first steps of a block and every eighth", consecutive=False
    ),
)

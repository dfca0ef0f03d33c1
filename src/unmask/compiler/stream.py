"""What the layers of a step read and write: the rows that are fed, and where they and the cache are in HBM."""

from __future__ import annotations

from dataclasses import dataclass

from unmask.compiler.kernels.cache import KvCache
from unmask.compiler.kernels.smoothing_buffers import SmoothingBuffers


@dataclass(frozen=True)
class Feed:
    """The rows that a step feeds: `rows` consecutive ones of each of `sequences` canvases of `positions` positions."""

    sequences: int
    rows: int
    positions: int


@dataclass(frozen=True)
class Unseen:
    """What to add to attention scores, BF16 in HBM: -inf where a key must not be seen, else 0.

    Attributes:
        at: of the first row.
        row_bytes: between rows.
        causal: the rows belong to the fed rows, and column `positions` to the first of these; otherwise there is one row per sequence, and
            column 0 belongs to position 0.
    """

    at: int
    row_bytes: int
    causal: bool


@dataclass(frozen=True)
class StreamBuffers:
    """HBM addresses of what the layers read and write.

    Attributes:
        canvas: INT32 [sequences, positions].
        x: the residual stream of the fed rows, BF16 [sequences * rows, width].
        queries: of the same shape.
        cache: K and V of all positions.
        unseen: None if every position sees every other.
        smoothing: None if K and V are packed as they are.
    """

    canvas: int
    x: int
    queries: int
    cache: KvCache
    unseen: Unseen | None
    smoothing: SmoothingBuffers | None = None

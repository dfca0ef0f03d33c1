"""What a cache is, and the store of keys and values that most of them share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from unmask.decoding.cache.smoothing import Smoother, Smoothing
from unmask.models.arithmetic import Arithmetic
from unmask.models.layers import LayerRunner, Rows, TransformerBlock, row_index


@dataclass(frozen=True)
class Moment:
    """Where a generation stands before a forward pass.

    Attributes:
        canvas: int64 [batch, positions].
        prompt_length: where the new tokens begin.
        block: the positions of the active block.
        step: counted from the start of the block.
        index: counted over the whole generation.
        mask_token_id: what masked positions of the canvas hold; -1: not known, so none counts as masked.
        shifted: the network's row `i` predicts position `i + 1`.
    """

    canvas: Tensor
    prompt_length: int
    block: range
    step: int
    index: int
    mask_token_id: int = -1
    shifted: bool = False

    @property
    def everything(self) -> range:
        """All positions of the canvas."""
        return range(self.canvas.shape[1])


class Cache(Protocol):
    """One generation's cache. It is asked once per forward pass for the rows to feed, and then for what runs the layers on them.

    The runner sees every layer's rows, keys and values as they come, so it may keep them in place (Fast-dLLM, FreeCache), keep those
    of a token only once it is decoded (dKV-Cache), compute a layer for some of the fed rows and reuse the rest (dLLM-Cache), or let
    rows see only the blocks before them and their own (LLaDA 2.0).
    """

    def rows(self, now: Moment) -> Rows:
        """The canvas positions to feed, the same for every row of the batch; they include those of the active block that are still
        masked in any of them. A cache whose rows are always consecutive gives ranges.
        """
        ...

    def runner(self, now: Moment, rows: Rows) -> LayerRunner:
        """What runs the layers on these rows, in this forward pass."""
        ...


class KeyValueStore:
    """Keys and values of the whole canvas, per layer. The rows that are fed replace theirs in place; the others stay as they were when
    they were last fed. As positions never move, keys are kept rotated.

    Args:
        smoothing: what keys and values are divided by before they are kept; None: by nothing.
    """

    def __init__(self, smoothing: Smoothing | None = None) -> None:
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}
        self._smooth = None if smoothing is None else Smoother(smoothing)

    def keys_and_values(self, layer: int) -> tuple[Tensor, Tensor]:
        """Those of one layer, smoothed if they are kept so: two tensors [batch, kv_heads, positions, head_dim]."""
        return self._layers[layer]

    def runner(self, now: Moment, rows: Rows) -> LayerRunner:
        """Feeds `rows`, which see every position of the canvas. All positions must have been fed before, or be fed now."""
        length, place = now.canvas.shape[1], row_index(rows)

        def run(
            index: int,
            block: TransformerBlock,
            x: Tensor,
            cos: Tensor,
            sin: Tensor,
            attention_bias: Tensor | None,
            arithmetic: Arithmetic,
        ) -> Tensor:
            q, k, v = block.project(x, cos, sin, arithmetic)
            warm = len(rows) == length
            if self._smooth is not None:
                q, k, v, arithmetic = self._smooth(index, q, k, v, warm, arithmetic)
            if warm:
                self._layers[index] = k, v
            else:
                keys, values = self._layers[index]
                self._layers[index] = _replaced(keys, k, place), _replaced(values, v, place)
            return block.attend(x, q, *self._layers[index], attention_bias, arithmetic)

        return run


def _replaced(whole: Tensor, part: Tensor, place: slice | Tensor) -> Tensor:
    replaced = whole.clone()
    replaced[:, :, place] = part
    return replaced

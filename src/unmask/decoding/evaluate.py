"""Running the network on a canvas: which rows are fed and which logits come back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from unmask.decoding.cache.base import Cache, Moment
from unmask.models.layers import LayerRunner, Rows, row_index


class ModelConfig(Protocol):
    """What decoding needs to know of a model's configuration; `unmask.models.config` provides it."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def mask_token_id(self) -> int: ...
    @property
    def eos_token_id(self) -> int: ...
    @property
    def max_sequence_length(self) -> int: ...
    @property
    def shifted_logits(self) -> bool: ...


class MaskPredictor(Protocol):
    """What decoding needs of a network; every family of `unmask.models` is one."""

    @property
    def config(self) -> ModelConfig: ...

    def hidden(
        self, ids: Tensor, attention_mask: Tensor | None = None, *, positions: Rows | None = None, layers: LayerRunner | None = None
    ) -> Tensor:
        """Final hidden states [batch, rows, width] of `ids` int64 [batch, rows], which lie at `positions` (None: from 0)."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [..., vocabulary] of hidden states [..., width]."""
        ...

    def guidance(self, conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        """Classifier-free guidance: `unconditional + (scale + 1) (conditional - unconditional)`."""
        ...


@dataclass(frozen=True)
class Evaluation:
    """One forward pass.

    Attributes:
        fed: int64 [rows, positions], the ids that went through the network; rows is twice the batch under guidance.
        window: the canvas positions that the logits are for, ascending.
        logits: [batch, window, vocabulary], after guidance; row `i` predicts position `window[i]`, whatever the network's convention.
    """

    fed: Tensor
    window: Rows
    logits: Tensor


class Evaluator:
    """Gives the logits of every step: feeds the rows that the cache asks for, twice under classifier-free guidance (once with the
    prompt masked out), and undoes the shift of networks whose row `i` predicts position `i + 1`.

    Where a shifted network is not fed the row before a position, which predicts it, the position's own row is taken, like the reference
    implementations do.
    """

    def __init__(
        self, model: MaskPredictor, prompt: Tensor, prompt_length: int, cfg_scale: float, attention_mask: Tensor | None, cache: Cache | None
    ) -> None:
        """Fix what does not change from step to step.

        Args:
            model: the network.
            prompt: bool [batch, positions], True where guidance masks the canvas out.
            prompt_length: where the new tokens begin.
            cfg_scale: 0 for no guidance.
            attention_mask: bool [batch, positions] of the whole canvas, or None.
            cache: None feeds the whole canvas at every step.
        """
        self._model, self._prompt, self._prompt_length = model, prompt, prompt_length
        self._cfg_scale, self._cache = cfg_scale, cache
        guided = cfg_scale > 0 and attention_mask is not None
        self._attention_mask = torch.cat((attention_mask, attention_mask)) if guided and attention_mask is not None else attention_mask
        self._index = 0

    def __call__(self, canvas: Tensor, block: range, step: int, window: range | None) -> Evaluation:
        """Evaluate.

        Args:
            canvas: int64 [batch, positions].
            block: the positions of the active block.
            step: counted from the start of the block.
            window: the positions whose logits are wanted; those that are not fed are left out. None: all that are fed.
        """
        config = self._model.config
        now = Moment(canvas, self._prompt_length, block, step, self._index, config.mask_token_id, config.shifted_logits)
        self._index += 1
        rows = now.everything if self._cache is None else self._cache.rows(now)
        layers = None if self._cache is None else self._cache.runner(now, rows)
        fed = canvas
        if self._cfg_scale > 0:
            fed = torch.cat((canvas, canvas.masked_fill(self._prompt, config.mask_token_id)))
        fed = fed[:, row_index(rows)]
        hidden = self._model.hidden(fed, self._attention_mask, positions=rows, layers=layers)
        wanted = rows if window is None else _common(rows, window)
        logits = self._predictions(hidden, _indices(rows), _indices(wanted))
        if self._cfg_scale > 0:
            conditional, unconditional = logits.chunk(2)
            logits = self._model.guidance(conditional, unconditional, self._cfg_scale)
        return Evaluation(fed, wanted, logits)

    def _predictions(self, hidden: Tensor, rows: Tensor, window: Tensor) -> Tensor:
        """Logits that predict the positions `window`, of `hidden` states at the positions `rows`."""
        own = torch.searchsorted(rows, window)
        if not self._model.config.shifted_logits:
            return self._model.logits(hidden[:, own])
        before = (own - 1).clamp(min=0)
        source = torch.where(rows[before] == window - 1, before, own)
        needed = torch.tensor(sorted({*source.tolist(), *own.tolist()}), dtype=torch.long)
        return self._model.logits(hidden[:, needed])[:, torch.searchsorted(needed, source)]


def _indices(rows: Rows) -> Tensor:
    return torch.arange(rows.start, rows.stop) if isinstance(rows, range) else rows


def _common(rows: Rows, window: range) -> Rows:
    """The positions of `window` that are among `rows`."""
    if isinstance(rows, range):
        return range(max(rows.start, window.start), min(rows.stop, window.stop))
    return rows[(rows >= window.start) & (rows < window.stop)]

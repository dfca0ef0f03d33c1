"""Running the network on a canvas: which rows are fed and which logits come back. Caches are other implementations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


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


class MaskPredictor(Protocol):
    """What decoding needs of a network; every family of `unmask.models` is one."""

    @property
    def config(self) -> ModelConfig: ...

    def hidden(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Final hidden states [batch, positions, width] of `ids` int64 [batch, positions]."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [..., vocabulary] of hidden states [..., width]."""
        ...


@dataclass(frozen=True)
class Evaluation:
    """One forward pass.

    Attributes:
        fed: int64 [rows, positions], the ids that went through the network; rows is twice the batch under guidance.
        logits: [batch, window, vocabulary], after guidance, of the positions asked for.
    """

    fed: Tensor
    logits: Tensor


class Evaluator(Protocol):
    """Gives the logits of a window of the canvas at every step of a block, feeding what it must."""

    def __call__(self, canvas: Tensor, block: range, step: int, window: range) -> Evaluation:
        """Evaluate.

        Args:
            canvas: int64 [batch, positions].
            block: the positions of the active block.
            step: counted from the start of the block; a block cache refreshes at 0.
            window: the positions whose logits are wanted.
        """
        ...


class FullCanvas:
    """No cache: the whole canvas at every step, twice under classifier-free guidance (once with the prompt masked out)."""

    def __init__(self, model: MaskPredictor, prompt: Tensor, cfg_scale: float, attention_mask: Tensor | None) -> None:
        """Fix what does not change from step to step.

        Args:
            model: the network.
            prompt: bool [batch, positions], True where guidance masks the canvas out.
            cfg_scale: 0 for no guidance.
            attention_mask: bool [batch, positions] of the whole canvas, or None.
        """
        self._model, self._prompt, self._cfg_scale = model, prompt, cfg_scale
        guided = cfg_scale > 0 and attention_mask is not None
        self._attention_mask = torch.cat((attention_mask, attention_mask)) if guided and attention_mask is not None else attention_mask

    def __call__(self, canvas: Tensor, block: range, step: int, window: range) -> Evaluation:
        rows = slice(window.start, window.stop)
        if self._cfg_scale == 0:
            return Evaluation(canvas, self._model.logits(self._model.hidden(canvas, self._attention_mask)[:, rows]))
        fed = torch.cat((canvas, canvas.masked_fill(self._prompt, self._model.config.mask_token_id)))
        conditional, unconditional = self._model.logits(self._model.hidden(fed, self._attention_mask)[:, rows]).chunk(2)
        return Evaluation(fed, unconditional + (self._cfg_scale + 1) * (conditional - unconditional))

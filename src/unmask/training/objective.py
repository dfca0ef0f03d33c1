"""What a training step minimises: the masked diffusion loss, or the next token's cross-entropy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from unmask.models.family import Network
from unmask.training.bound import exact_count_masks
from unmask.training.recipe import Recipe

_SQRT_WEIGHT_SCALE = 1.5
"""One over the integral of t / sqrt(t) on (0, 1): makes the weighted loss a mean over tokens."""

Hidden = Callable[[Tensor], Tensor]
"""The network's `hidden`, perhaps compiled: token ids [rows, length] to final hidden states [rows, length, width]."""


class Objective(Protocol):
    """A loss over texts.

    Attributes:
        lookahead: tokens that a text needs beyond those that the network reads.
    """

    lookahead: int

    def loss(self, model: Network, hidden: Hidden, texts: Tensor, generator: torch.Generator) -> Tensor:
        """The mean loss in nats per token, float32 [].

        Args:
            model: the network.
            hidden: computes its final hidden states.
            texts: int64 [rows, length + lookahead].
            generator: of whatever is drawn.
        """
        ...


class MaskedDiffusion:
    """LLaDA's objective (Nie et al., arXiv 2502.09992): mask a random fraction of a text, predict the masked tokens from the others."""

    lookahead = 0

    def __init__(self, weighting: Literal["sqrt", "elbo"] | None) -> None:
        self._weighting = weighting

    def loss(self, model: Network, hidden: Hidden, texts: Tensor, generator: torch.Generator) -> Tensor:
        rows, length = texts.shape
        fraction = (torch.randperm(rows, generator=generator) + torch.rand(rows, generator=generator)) / rows
        counts = (fraction * length).ceil().clamp(1, length)
        masks = exact_count_masks(counts, length, generator)
        states = hidden(torch.where(masks, model.config.mask_token_id, texts))
        loss = cross_entropy(model.logits(states[masks]).float(), texts[masks], reduction="none")
        of_token = counts[:, None].expand_as(masks)[masks]
        if self._weighting == "sqrt":
            return (loss / (of_token * length).sqrt()).sum() / rows * _SQRT_WEIGHT_SCALE
        return (loss / of_token).sum() / rows


class NextToken:
    """The autoregressive objective: predict every token from those before it in the text."""

    lookahead = 1

    def loss(self, model: Network, hidden: Hidden, texts: Tensor, generator: torch.Generator) -> Tensor:
        logits = model.logits(hidden(texts[:, :-1])).float()
        return cross_entropy(logits.flatten(0, 1), texts[:, 1:].flatten())


def objective_of(recipe: Recipe) -> Objective:
    """The objective that a recipe states."""
    return NextToken() if recipe.objective == "autoregressive" else MaskedDiffusion(recipe.weighting)

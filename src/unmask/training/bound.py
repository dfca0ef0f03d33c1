"""The masked-diffusion bound: an upper bound on the bits a model needs per character of a text.

For a window x of L tokens, a masked diffusion model bounds its negative log-likelihood in nats by

    -log p(x)  <=  E over k uniform on 1..L, E over the sets M of k masked positions:  L / k * sum over i in M of -log p(x_i | x outside M).

This is the low-variance form with an exact count of masks that LLaDA evaluates with (Nie et al., arXiv 2502.09992); it equals the
continuous-time bound of MDLM, where each token is masked with probability t and weighs 1 / t (Sahoo et al., arXiv 2406.07524), and the
expected loss of an any-order autoregressive model over a uniformly random order (Hoogeboom et al., arXiv 2110.02037).

Here k is drawn by strata: k = ceil((s + u) / S * L) for s = 0..S-1 with u uniform on (0, 1), so that each window sees few and many masks
alike and k is still uniform over all strata together. A text is cut into windows that are scored on their own, its last one shorter: no
window sees another.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from unmask.errors import UnmaskError


class _MaskedModel(Protocol):
    """What the bound needs of a model: `config.mask_token_id`, final hidden states, and the LM head apart from them."""

    @property
    def config(self) -> Any: ...

    def hidden(self, ids: Tensor, /) -> Tensor: ...

    def logits(self, hidden: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class Bound:
    """A measured bound.

    Attributes:
        bits_per_character: the bound, over all texts together.
        standard_error: of `bits_per_character`, from the draw of masks (not from the choice of texts).
        tokens: how many were scored.
        characters: of the texts.
    """

    bits_per_character: float
    standard_error: float
    tokens: int
    characters: int


@torch.no_grad()
def diffusion_bound(
    model: _MaskedModel,
    texts: Sequence[Sequence[int]],
    characters: int,
    *,
    length: int,
    strata: int = 8,
    seed: int = 0,
    batch: int = 16,
    report: Callable[[float], None] = lambda fraction: None,
) -> Bound:
    """Measure the bound of `model` on `texts`.

    The standard error collapses neighbouring strata in pairs, and so errs to the large side. The masks do not depend on `batch`.

    Args:
        model: any network with `hidden`, `logits` and `config.mask_token_id`.
        texts: token ids of each text.
        characters: how many characters the texts have together.
        length: tokens per window.
        strata: forward passes per window; even.
        seed: of the masks.
        batch: windows per forward pass.
        report: called after each forward pass with the fraction that is done, for a progress bar.

    Raises:
        UnmaskError: an odd number of strata, no text, or windows longer than the model's context.
    """
    if strata < 2 or strata % 2:
        raise UnmaskError(f"strata must be an even number of at least 2, not {strata}")
    if not characters or not any(texts):
        raise UnmaskError("no text to measure the bound on")
    context = getattr(model.config, "max_sequence_length", length)
    if not 0 < length <= context:
        raise UnmaskError(f"windows of {length} tokens do not fit the model's context of {context}")

    generator = torch.Generator().manual_seed(seed)
    groups: dict[int, list[tuple[Tensor, Tensor]]] = defaultdict(list)
    for text in texts:
        for start in range(0, len(text), length):
            window = torch.tensor(text[start : start + length])
            groups[len(window)].append((window.expand(strata, -1), _masks(len(window), strata, generator)))

    nats, variance, done, tokens = 0.0, 0.0, 0, sum(map(len, texts))
    for windows in groups.values():
        ids = torch.cat([rows for rows, _ in windows])
        masks = torch.cat([rows for _, rows in windows])
        estimates = []
        for part, masked in zip(torch.split(ids, batch), torch.split(masks, batch), strict=True):
            estimates.append(_window_nats(model, part, masked))
            done += part.numel()
            report(done / (strata * tokens))
        by_window = torch.cat(estimates).double().reshape(-1, strata)
        nats += by_window.mean(1).sum().item()
        variance += (by_window[:, 0::2] - by_window[:, 1::2]).square().sum().item() / strata**2
    unit = math.log(2) * characters
    return Bound(nats / unit, math.sqrt(variance) / unit, tokens, characters)


def exact_count_masks(counts: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """For each row a uniformly random set of exactly `counts` positions.

    Args:
        counts: masks per row, [rows], in 0..length.
        length: positions per row.
        generator: consumed by one draw of [rows, length].

    Returns:
        bool [rows, length], True where masked.
    """
    ranks = torch.rand(len(counts), length, generator=generator).argsort(1).argsort(1)
    return ranks < counts[:, None]


def _masks(length: int, strata: int, generator: torch.Generator) -> Tensor:
    fraction = (torch.arange(strata) + torch.rand(strata, generator=generator)) / strata
    return exact_count_masks((fraction * length).ceil().clamp(1, length), length, generator)


def _window_nats(model: _MaskedModel, ids: Tensor, masked: Tensor) -> Tensor:
    """One estimate of the bound per row, nats [rows]: the mean cross-entropy of the masked tokens times the length of the window."""
    hidden = model.hidden(torch.where(masked, model.config.mask_token_id, ids))
    loss = cross_entropy(model.logits(hidden[masked]).float(), ids[masked], reduction="none")
    rows = torch.zeros(len(ids)).index_add(0, masked.nonzero()[:, 0], loss)
    return rows / masked.sum(1) * ids.shape[1]

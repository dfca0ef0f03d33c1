"""FlashDLM's Guided Diffusion (Hu et al., arXiv 2505.21467): the diffusion model drafts every mask, and a small autoregressive model says
how far the draft may be kept.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from unmask.decoding.sampler import Sampling, without
from unmask.errors import UnmaskError


class Guide(Protocol):
    """An autoregressive model with a cache of the tokens that it has read."""

    @property
    def vocab_size(self) -> int: ...

    def read(self, kept: int, ids: Tensor) -> Tensor:
        """Forget all but the first `kept` tokens, then read on.

        Args:
            kept: not more than the tokens read so far.
            ids: int64 [n], what follows them.

        Returns:
            Logits [n, vocabulary]: row `i` predicts the token after `ids[i]`.
        """
        ...


class Acceptance(Protocol):
    """Whether the guide lets a draft pass."""

    def __call__(self, drafts: Tensor, logits: Tensor) -> Tensor:
        """Judge `drafts` int64 [n] by the guide's logits [n, vocabulary] for the same positions: bool [n]."""
        ...


class Exact:
    """The draft is the guide's arg-max, ties to the lowest token."""

    def __call__(self, drafts: Tensor, logits: Tensor) -> Tensor:
        return drafts == logits.argmax(dim=-1)


class Relaxed:
    """The draft is among the guide's `top_k` tokens, and at least `ratio` times as probable as its best one."""

    def __init__(self, top_k: int, ratio: float) -> None:
        """Set how many tokens count, and the least ratio of probabilities.

        Raises:
            UnmaskError: a `top_k` below 1 or a ratio outside [0, 1].
        """
        if top_k < 1:
            raise UnmaskError(f"top_k is {top_k!r}; it must be at least 1")
        if not 0 <= ratio <= 1:
            raise UnmaskError(f"ratio is {ratio!r}; it must lie in [0, 1]")
        self._top_k, self._ratio = top_k, ratio

    def __call__(self, drafts: Tensor, logits: Tensor) -> Tensor:
        probabilities = torch.softmax(logits, dim=-1)
        order = torch.sort(probabilities, dim=-1, descending=True, stable=True).indices[:, : self._top_k]
        probability = probabilities.gather(-1, drafts[:, None])[:, 0]
        return (order == drafts[:, None]).any(dim=-1) & (probability >= self._ratio * probabilities.amax(dim=-1))


class GuidedSampler:
    """Drafts the arg-max at every mask. The guide reads the last clean token and the drafts that follow it, and the drafts that it accepts
    have confidence 1, left to right up to the first that it does not; the first draft has confidence 1 in any case, so that every step
    makes progress. All others have confidence 0; the committer is `unmask.decoding.commit.Certain`. Once an end token is committed, what
    follows it is filled with end tokens in the same step.

    For one row, in one block; one object serves one generation.
    """

    def __init__(self, guide: Guide, eos_token_id: int, accept: Acceptance | None = None, chunk: int = 32) -> None:
        """Set the guide.

        Args:
            guide: of the same vocabulary as the diffusion model.
            eos_token_id: the end token.
            accept: by default `Exact`.
            chunk: how many tokens the guide reads at once; it reads on only while all drafts are accepted.

        Raises:
            UnmaskError: a chunk below 1.
        """
        if chunk < 1:
            raise UnmaskError(f"chunk is {chunk!r}; it must be at least 1")
        self._guide, self._eos, self._accept, self._chunk = guide, eos_token_id, accept or Exact(), chunk
        self._read = 0

    def __call__(self, logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
        """See `Sampler`.

        Raises:
            UnmaskError: more than one row, a temperature, deferred tokens, or a guide with another vocabulary.
        """
        if sampling.temperature > 0 or sampling.deferred:
            raise UnmaskError("Guided Diffusion knows neither a temperature nor deferred end-of-text tokens")
        if self._guide.vocab_size != logits.shape[-1]:
            raise UnmaskError(f"the guide has a vocabulary of {self._guide.vocab_size}; the diffusion model has {logits.shape[-1]}")
        return self.judge(without(logits, sampling.excluded).argmax(dim=-1), sampling)

    def judge(self, drafts: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
        """Candidates and their confidence, as a `Sampler` gives them, of `drafts` int64 [1, n].

        Raises:
            UnmaskError: more than one row.
        """
        if len(drafts) != 1 or sampling.canvas is None or sampling.eligible is None:
            raise UnmaskError("Guided Diffusion decodes one row at a time")
        tokens = drafts.clone()
        confidence = torch.zeros(tokens.shape, dtype=torch.float32)
        masks = sampling.eligible[0].nonzero()[:, 0]
        if len(masks) == 0:
            return tokens, confidence
        run = masks[masks - masks[0] == torch.arange(len(masks))]  # a template's next words end it
        first = int(sampling.positions[run[0]])
        kept = run[: max(self._accepted(sampling.canvas[0, :first], tokens[0, run]), 1)]
        confidence[0, kept] = 1
        if bool((ends := tokens[0, kept] == self._eos).any()):
            after = masks[masks > kept[ends][0]]
            tokens[0, after], confidence[0, after] = self._eos, 1
        return tokens, confidence

    def _accepted(self, prefix: Tensor, drafts: Tensor) -> int:
        """How many drafts the guide accepts, before the first that it does not."""
        known = len(prefix) - 1
        if self._read < known:
            self._guide.read(self._read, prefix[self._read : known])
        chain, accepted = torch.cat((prefix[-1:], drafts)), 0
        while accepted < len(drafts):
            fed = chain[accepted : accepted + self._chunk]
            judged = drafts[accepted : accepted + self._chunk]
            passed = self._accept(judged, self._guide.read(known + accepted, fed)[: len(judged)])
            accepted += int(passed.long().cumprod(dim=0).sum())
            if not bool(passed.all()):
                break
        self._read = known + max(accepted, 1)
        return accepted

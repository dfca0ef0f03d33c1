"""Sampling as the streaming programs do it: what four-phase, single-pass and fused sampling must equal bit for bit."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from unmask.decoding.policy import Policy
from unmask.decoding.sampler import Sampling
from unmask.numerics import window
from unmask.quant.cut import F32
from unmask.quant.sampler import LAST, MachineSampler


class StreamingSampler:
    """`MachineSampler` with another probability: the candidate's weight over the window sum of its row (`unmask.numerics.window`).

    Candidates and uniform draws are those of `MachineSampler`; LLaDA's scorers only, nothing deferred.
    """

    def __init__(self, policy: Policy, *, seed: int | None = None) -> None:
        """Arguments as of `MachineSampler`."""
        self._sampler = MachineSampler(policy, seed=seed)

    def __call__(self, logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
        """See `Sampler`; the logits are bf16-valued, the confidences float32."""
        tokens, confidences = self._sampler(logits, sampling)
        if sampling.remasking == "random":
            return tokens, confidences
        allowed = logits.to(torch.float32).numpy().copy()
        allowed[..., list(sampling.excluded)] = -np.inf
        rows = allowed.reshape(-1, allowed.shape[-1])
        return tokens, torch.from_numpy(probabilities(rows, tokens.numpy().reshape(-1)).reshape(tokens.shape))


def probabilities(logits: F32, tokens: np.ndarray) -> F32:
    """Confidences of candidates, float32 [rows]; a row with a NaN or an infinity has the lowest of all.

    Args:
        logits: bf16-valued float32 [rows, vocabulary].
        tokens: integer [rows].
    """
    state = window.empty(len(logits))
    window.add_rows(state, logits)
    found = window.confidence(logits[np.arange(len(logits)), tokens], state)
    broken = (np.isnan(logits) | (logits == np.inf)).any(axis=1)
    return np.where(broken | np.isnan(found), np.float32(LAST), found)

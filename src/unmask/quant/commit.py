"""Which candidates are committed, as the machine decides it: scores in FP32, draws from its counter-based noise."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from unmask.decoding.commit import Certain, Committer, Factor, Threshold, TopK
from unmask.decoding.policy import Policy
from unmask.errors import UnmaskError
from unmask.numerics import noise
from unmask.quant.sampler import LAST

DUE_UNIT = 2.0**-24
"""Of a fraction of the masks, as the host gives it to a program."""
_FP32_MAX = float(np.finfo(np.float32).max)


class MachineDrawn:
    """The scheduled number of positions, drawn without replacement from the softmax of `confidence / temperature` (Dream's `alg_temp`).

    By the Gumbel top-k trick (Kool, van Hoof and Welling, "Stochastic beams and where to find them", ICML 2019, arXiv 1903.06059): the
    positions of the largest confidence / temperature + Gumbel noise are such a draw. Product and sum are FP32; the noise is that of the
    position's own words, the same in every row of a batch. One object serves one generation: its calls count the steps.
    """

    def __init__(self, temperature: float, seed: int) -> None:
        """Set how far the choice may stray from the most confident candidates, and the seed, modulo 2^32."""
        self._factor, self._seed, self._step = np.float32(inverse_temperature(temperature)), seed % 2**32, 0

    def __call__(self, confidence: Tensor, counts: Tensor) -> Tensor:
        bits = noise.position_bits(self._seed, self._step, np.arange(confidence.shape[1]))
        self._step += 1
        values = confidence.to(torch.float32).numpy()
        with np.errstate(over="ignore"):
            scores = values * self._factor + noise.gumbel_fp32(bits)
        lowest = np.float32(LAST)
        scores = np.where(values == lowest, lowest, np.maximum(scores, lowest))
        return TopK()(torch.from_numpy(np.where(values == -np.inf, -np.inf, scores)), counts)


def machine_committer(policy: Policy, *, seed: int | None = None) -> Committer:
    """The committer that a policy's program equals; a new one for every generation.

    Args:
        policy: any; where a guide decides, its sampler's confidence of 1 does.
        seed: of the draws, modulo 2^32; by default the policy's.
    """
    if policy.commit == "threshold":
        return Threshold(policy.threshold)
    if policy.commit == "factor":
        return Factor(policy.factor)
    if policy.commit == "guided" or policy.remasking == "origin":
        return Certain()
    if policy.alg_temp:
        return MachineDrawn(policy.alg_temp, policy.seed if seed is None else seed)
    return TopK()


def inverse_temperature(temperature: float) -> float:
    """1 / temperature as the scalar unit multiplies it: FP32, at most its largest number.

    Raises:
        UnmaskError: a temperature that is not a positive number.
    """
    if not 0 < temperature < math.inf:
        raise UnmaskError(f"alg_temp is {temperature!r}; it must be a positive number")
    return float(np.float32(min(1 / temperature, _FP32_MAX)))


def factor_bars(factor: float, ranks: int) -> list[float]:
    """What the confidence of each rank must reach under Fast-dLLM's factor rule: 1 - factor / (rank + 2), rounded up to FP32.

    An FP32 confidence reaches the rounded bar exactly if it reaches the float64 one. Rank 0 has none: minus infinity.
    """
    bars = 1 - factor / (np.arange(ranks, dtype=np.float64) + 2)
    with np.errstate(over="ignore"):
        nearest = bars.astype(np.float32)
        up = np.where(nearest < bars, np.nextafter(nearest, np.float32(np.inf)), nearest)
    # A bar below every FP32 number is cleared by every row, those with NaN included.
    return [-math.inf, *(float(bar) if exact >= -_FP32_MAX else -math.inf for bar, exact in zip(up[1:], bars[1:], strict=True))]


def due_word(fraction: float) -> int:
    """What the host writes as commits for the scorer `origin`: a position is due if the top 24 bits of its word are below this."""
    return math.ceil(fraction / DUE_UNIT)

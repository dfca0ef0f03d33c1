"""The plainest smoothing: one scale for all of a layer's K, one for all of its V."""

from __future__ import annotations

from torch import Tensor

from unmask.decoding.cache.smoothing import Scales
from unmask.quant.smoothing.scales import peak, power_of_two_below


class PerTensor:
    """A scale per row of the batch: the power of two below the largest magnitude over heads, positions and channels, at every warm step.

    The blocks of an MX format have power-of-two scales of their own, which take back what this one does: it serves as a control.
    """

    def scales(self, layer: int, keys: Tensor, values: Tensor) -> Scales:
        return Scales(*(power_of_two_below(peak(x, dim=(1, 2, 3))).expand_as(x[:, :, :1]) for x in (keys, values)))

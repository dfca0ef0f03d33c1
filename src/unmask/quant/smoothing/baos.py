"""BAOS: block-adaptive online smoothing (arXiv 2601.20706v2), by powers of two."""

from __future__ import annotations

from torch import Tensor

from unmask.decoding.cache.smoothing import Scales
from unmask.quant.smoothing.scales import peak, power_of_two_below


class Baos:
    """A scale per row of the batch, head and channel: the power of two below the largest magnitude over all positions.

    The warm step of a block computes K and V of the whole canvas anyway, so that no calibration text is needed; the block's other steps
    keep the scales.
    """

    def scales(self, layer: int, keys: Tensor, values: Tensor) -> Scales:
        return Scales(*(power_of_two_below(peak(x, dim=2)) for x in (keys, values)))

"""BAOS (arXiv 2601.20706v2) by BF16 scales, which fill the range of 4-bit elements."""

from __future__ import annotations

from torch import Tensor

from unmask.decoding.cache.smoothing import Scales
from unmask.quant.smoothing.scales import filling, peak


class BaosBf16:
    """As `unmask.quant.smoothing.baos.Baos`, but every channel's largest magnitude becomes 7/4. Scaling rounds to BF16 here, by far less
    than 4 bits do.
    """

    def scales(self, layer: int, keys: Tensor, values: Tensor) -> Scales:
        return Scales(*(filling(peak(x, dim=2)) for x in (keys, values)))

"""Smoothing: dividing keys and values by a scale before a cache keeps them, so that few bits represent them better.

With K' = K / s_k and V' = V / s_v, attention is unchanged if the queries are multiplied by s_k and the attention output by s_v. Where the
scales come from is a method of `unmask.quant.smoothing`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, cast

from torch import Tensor

from unmask.models.arithmetic import Arithmetic


@dataclass(frozen=True)
class Scales:
    """What one layer's keys and values are divided by: two tensors [batch or 1, kv_heads, 1, head_dim] of the dtype of K and V, positive,
    and powers of two if nothing but the format of the cache shall change a value.
    """

    keys: Tensor
    values: Tensor


class Smoothing(Protocol):
    """A method: where the scales come from. It keeps nothing of a generation."""

    def scales(self, layer: int, keys: Tensor, values: Tensor) -> Scales:
        """The scales of a layer whose K and V of the whole canvas are `keys` and `values` [batch, kv_heads, positions, head_dim]."""
        ...


class Smoother:
    """Applies a method in one generation: scales are found in each pass that feeds the whole canvas (the warm step of a block, for block
    caches) and stay for the passes that feed a part of it.
    """

    def __init__(self, method: Smoothing) -> None:
        self._method = method
        self._scales: dict[int, Scales] = {}

    def __call__(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, warm: bool, arithmetic: Arithmetic
    ) -> tuple[Tensor, Tensor, Tensor, Arithmetic]:
        """Smooth one layer's rows.

        Args:
            layer: from 0.
            q: [batch, heads, rows, head_dim].
            k, v: [batch, kv_heads, rows, head_dim].
            warm: the rows are the whole canvas.
            arithmetic: what the layer is computed in.

        Returns:
            Queries times s_k, keys divided by s_k, values divided by s_v, and an arithmetic whose attention multiplies its output by s_v.
        """
        if warm:
            self._scales[layer] = self._method.scales(layer, k, v)
        scales, group = self._scales[layer], q.shape[1] // k.shape[1]
        q = arithmetic.scaled(q, scales.keys.repeat_interleave(group, dim=1))
        k, v = arithmetic.scaled(k, scales.keys.reciprocal()), arithmetic.scaled(v, scales.values.reciprocal())
        return q, k, v, cast(Arithmetic, _Restoring(arithmetic, scales.values.repeat_interleave(group, dim=1)))


class _Restoring:
    """An arithmetic like another, but its attention output is multiplied by a factor."""

    def __init__(self, arithmetic: Arithmetic, factor: Tensor) -> None:
        self._arithmetic, self._factor = arithmetic, factor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._arithmetic, name)

    def attention(self, q: Tensor, k: Tensor, v: Tensor, attention_bias: Tensor | None) -> Tensor:
        return self._arithmetic.scaled(self._arithmetic.attention(q, k, v, attention_bias), self._factor)

"""A guide network that remembers what it has read: the `Guide` of `unmask.decoding.guided`, with a cache of keys and values."""

from __future__ import annotations

import torch
from torch import Tensor

from unmask.errors import UnmaskError
from unmask.models.arithmetic import Arithmetic
from unmask.models.guide import GuideNetwork
from unmask.models.layers import LayerRunner, TransformerBlock


class CachedGuide:
    """Reads tokens with a guide network and keeps their keys and values, for one row. As every token sees only those before it, what is
    kept is exact: reading in any pieces gives what one forward pass over everything gives, to the rounding of a sum.

    In the machine's formats that holds for reads in the same pieces only. Values get their MX scales in blocks of keys there, so a token
    that is fed at the same time changes the rounding of those before it although they do not see it.
    """

    def __init__(self, network: GuideNetwork) -> None:
        self._network = network
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}
        self._length = 0

    @property
    def vocab_size(self) -> int:
        return int(self._network.config.vocab_size)

    @torch.no_grad()
    def read(self, kept: int, ids: Tensor) -> Tensor:
        """See `Guide`; the logits are float32.

        Raises:
            UnmaskError: more kept than were read, or more tokens than the network's context holds.
        """
        if not 0 <= kept <= self._length:
            raise UnmaskError(f"the guide cannot keep {kept} tokens; it has read {self._length}")
        context = self._network.config.max_sequence_length
        if kept + len(ids) > context:
            raise UnmaskError(f"{kept + len(ids)} tokens do not fit the guide's context of {context}")
        self._length = kept
        if len(ids) == 0:
            return torch.empty(0, self.vocab_size)
        rows = range(kept, kept + len(ids))
        hidden = self._network.hidden(ids[None], positions=rows, layers=self._runner(kept))
        self._length = rows.stop
        return self._network.logits(hidden[0]).float()

    def _runner(self, kept: int) -> LayerRunner:
        """Puts the keys and values of the rows that are fed after the first `kept`, in place of whatever was there."""

        def run(
            index: int,
            block: TransformerBlock,
            x: Tensor,
            cos: Tensor,
            sin: Tensor,
            attention_bias: Tensor | None,
            arithmetic: Arithmetic,
        ) -> Tensor:
            q, k, v = block.project(x, cos, sin, arithmetic)
            if kept:
                keys, values = self._layers[index]
                k, v = torch.cat((keys[:, :, :kept], k), dim=2), torch.cat((values[:, :, :kept], v), dim=2)
            self._layers[index] = k, v
            return block.attend(x, q, k, v, attention_bias, arithmetic)

        return run

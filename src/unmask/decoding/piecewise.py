"""A guide that reads as a machine does whose programs feed a fixed number of rows and whose memory has a fixed number of places."""

from __future__ import annotations

import torch
from torch import Tensor

from unmask.errors import UnmaskError
from unmask.models.arithmetic import Arithmetic
from unmask.models.guide import GuideNetwork
from unmask.models.layers import LayerRunner, TransformerBlock

PIECE = 16
"""Tokens that are fed at once."""


def guide_room(positions: int) -> int:
    """Places for keys and values that reading up to `positions` tokens needs, since the last piece may begin at the last of them."""
    return positions + PIECE - 1


class PiecewiseGuide:
    """An `unmask.decoding.guided.Guide` that feeds pieces of `PIECE` tokens, the last one filled up with token 0, and keeps keys and values
    for a fixed number of positions, zero where nothing was fed yet.

    No token sees what fills up, nor what was read and forgotten: the logits are those of one forward pass, to the rounding of a sum. In the
    machine's formats unseen rows do reach the rounding of those beside them (V gets common MX scales of 32 keys), and this class says which
    rows there are.
    """

    def __init__(self, network: GuideNetwork, positions: int) -> None:
        """Set the network and the longest text.

        Raises:
            UnmaskError: the text does not fit the network's context.
        """
        self._network, self._room = network, guide_room(positions)
        context = network.config.max_sequence_length
        if self._room > context:
            raise UnmaskError(f"{positions} positions need a guide's context of {self._room}; it has {context}")
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def vocab_size(self) -> int:
        return int(self._network.config.vocab_size)

    @torch.no_grad()
    def read(self, kept: int, ids: Tensor) -> Tensor:
        """See `Guide`; the logits are float32."""
        logits = [torch.empty(0, self.vocab_size)]
        for start in range(0, len(ids), PIECE):
            piece = ids[start : start + PIECE]
            fed = torch.zeros(1, PIECE, dtype=torch.int64)
            fed[0, : len(piece)] = piece
            rows = range(kept + start, kept + start + PIECE)
            seen = torch.ones(1, self._room, dtype=torch.bool)
            hidden = self._network.hidden(fed, seen, positions=rows, layers=self._runner(rows))
            logits.append(self._network.logits(hidden[0]).float()[: len(piece)])
        return torch.cat(logits)

    def _runner(self, rows: range) -> LayerRunner:
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
            if index not in self._layers:
                shape = (*k.shape[:2], self._room, k.shape[3])
                self._layers[index] = k.new_zeros(shape), v.new_zeros(shape)
            keys, values = self._layers[index]
            keys[:, :, rows.start : rows.stop], values[:, :, rows.start : rows.stop] = k, v
            return block.attend(x, q, keys, values, attention_bias, arithmetic)

        return run

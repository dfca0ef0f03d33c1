"""When a generation may end before its canvas is clean."""

from __future__ import annotations

from typing import Any, Protocol

from unmask.errors import UnmaskError


class Committed(Protocol):
    """What a step left behind, wherever it was computed."""

    @property
    def canvas(self) -> Any:
        """int64 [batch, positions], after the step."""
        ...

    def positions(self, row: int = 0) -> list[int]:
        """The canvas positions committed in one row, ascending."""
        ...


class EarlyStop:
    """FlashDLM's early stop (Hu et al., arXiv 2505.21467), for one row: the rightmost committed token is an end token, no mask is left
    before it, and the last tokens up to it are all end tokens.
    """

    def __init__(self, eos_token_id: int, mask_token_id: int, consecutive: int = 1) -> None:
        """Set the end token, the mask token, and how many end tokens there must be in a row.

        Raises:
            UnmaskError: fewer than one.
        """
        if consecutive < 1:
            raise UnmaskError(f"consecutive is {consecutive!r}; it must be at least 1")
        self._eos, self._mask, self._consecutive = eos_token_id, mask_token_id, consecutive
        self._last = -1

    def __call__(self, record: Committed) -> bool:
        """Whether to end after this step. One object serves one generation.

        Raises:
            UnmaskError: more than one row.
        """
        if len(record.canvas) != 1:
            raise UnmaskError(f"an early stop is for one row; the batch has {len(record.canvas)}")
        self._last = max([self._last, *record.positions()])
        clean = record.canvas[0, : self._last + 1]
        tail = clean[-self._consecutive :]
        if len(tail) < self._consecutive or bool((tail != self._eos).any()):
            return False
        return not bool((clean == self._mask).any())

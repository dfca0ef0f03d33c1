"""The functions by the names of their instructions, and what several of them share.

A function takes the state and the row's operands by name, registers already replaced by their values. Values are those of
`unmask.numerics`; nothing is computed here that the hardware would compute otherwise.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from unmask.isa.table import BY_NAME
from unmask.machine.state import F32, MachineFault, State
from unmask.numerics import mx

Semantics = Callable[..., None]
SEMANTICS: dict[str, Semantics] = {}


def effect(name: str) -> Callable[[Semantics], Semantics]:
    """Register a function as the effect of instruction `name`.

    Raises:
        KeyError: the table has no such instruction.
    """
    if name not in BY_NAME:
        raise KeyError(f"{name} is not in the instruction table")

    def register(function: Semantics) -> Semantics:
        SEMANTICS[name] = function
        return function

    return register


def format_of(s: State, number: int, known: int) -> mx.MxFormat:
    """The MX format of that number, out of the first `known`.

    Raises:
        MachineFault: there is none.
    """
    known = min(known, len(s.formats))
    if number >= known:
        raise MachineFault(f"format {number}: expected one of 0 to {known - 1}")
    return s.formats[number]


def bit_word(number: int) -> np.int32:
    """The INT32 word of which only the bit of that number is set; the low five bits of the number count."""
    return np.uint32(1 << number % 32).astype(np.int32)


def blocks_of(cols: int) -> int:
    """MX blocks of a row of `cols` elements."""
    return mx.padded(cols) // mx.BLOCK


def comparable(x: F32) -> F32:
    """NaN never wins a maximum."""
    return np.where(np.isnan(x), np.float32(-np.inf), x)


def two_tiles(s: State, a: int, b: int, rows: int, cols: int, a_stride: int, b_stride: int) -> tuple[F32, F32]:
    """The operands of a tile instruction."""
    return s.tile(a, rows, cols, a_stride), s.tile(b, rows, cols, b_stride)

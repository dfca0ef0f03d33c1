"""Where things are: HBM regions with their initial data, and scoped buffers in the on-chip memories."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from unmask.errors import UnmaskError
from unmask.isa.program import Region
from unmask.numerics import bf16, mx

_ALIGNMENT = 64


def ceil_to(value: int, unit: int) -> int:
    """The smallest multiple of `unit` that is not below `value`."""
    return -(-value // unit) * unit


class SramOverflow(UnmaskError):
    """A buffer does not fit an on-chip memory: a smaller tile may."""


@dataclass
class Hbm:
    """Hands out aligned HBM regions and remembers what they hold at the start."""

    size: int = 0
    regions: dict[str, Region] = field(default_factory=dict)
    data: dict[str, NDArray[np.uint8]] = field(default_factory=dict)

    def reserve(self, name: str, size: int) -> int:
        """Address of a new region of `size` bytes."""
        start = self.size
        self.size = ceil_to(start + size, _ALIGNMENT)
        self.regions[name] = Region(start, size)
        return start

    def fill(self, name: str, content: NDArray[np.uint8]) -> None:
        """Set what a region holds when the program starts.

        Raises:
            UnmaskError: the content is not of the region's size.
        """
        if content.size != self.regions[name].size:
            raise UnmaskError(f"region {name!r} has {self.regions[name].size} bytes; its content has {content.size}")
        self.data[name] = np.ascontiguousarray(content).reshape(-1)

    def place(self, name: str, content: NDArray[np.uint8]) -> int:
        """Address of a new region that holds `content` when the program starts."""
        start = self.reserve(name, content.size)
        self.fill(name, content)
        return start


def bf16_bytes(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Values rounded to BF16, as little-endian bytes."""
    return bf16.to_bits(bf16.round(values)).astype("<u2").view(np.uint8)


@dataclass(frozen=True)
class MxMatrix:
    """An MX matrix in HBM: element and scale addresses of its first row; rows are `blocks` MX blocks long."""

    elements: int
    scales: int
    rows: int
    cols: int
    format: mx.MxFormat

    @property
    def blocks(self) -> int:
        return ceil_to(self.cols, mx.BLOCK) // mx.BLOCK

    @property
    def row_bytes(self) -> int:
        return self.blocks * mx.BLOCK * self.format.element.bits // 8


class Sram:
    """One on-chip memory as a stack of scoped buffers."""

    def __init__(self, what: str, capacity: int, unit: str, alignment: int = 1) -> None:
        self._what, self._capacity, self._unit, self._alignment = what, capacity, unit, alignment
        self._top = 0
        self.high_water = 0

    @property
    def free(self) -> int:
        """Entries that are left."""
        return self._capacity - self._top

    def take(self, count: int, purpose: str) -> int:
        """Address of a new buffer of `count` entries.

        Raises:
            SramOverflow: it does not fit.
        """
        start = self._top
        if start + count > self._capacity:
            raise SramOverflow(
                f"the {self._what} SRAM cannot hold {purpose}: it needs {start + count} {self._unit}, there are {self._capacity}"
            )
        self._top = ceil_to(start + count, self._alignment)
        self.high_water = max(self.high_water, self._top)
        return start

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Buffers taken inside are given back at the end."""
        top = self._top
        yield
        self._top = top

"""Where a random program keeps things: tiles of the vector SRAM, words of the other two, and areas of HBM."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unmask.isa.table import BF16_BYTES, INT32_BYTES, STRIDE_UNIT
from unmask.rtl.lockstep import values

Span = tuple[int, int]


def overlaps(low: int, high: int, spans: Sequence[Span]) -> bool:
    """Whether [low, high) has something in common with a span."""
    return any(low < end and start < high for start, end in spans)


class Tile(NamedTuple):
    """Part of the vector SRAM that holds values; `stride` in units of 32 elements."""

    start: int
    rows: int
    cols: int
    stride: int

    @property
    def span(self) -> Span:
        return self.start, self.start + (self.rows - 1) * self.stride * STRIDE_UNIT + self.cols


class Tiles:
    """The vector SRAM: a part of it, small enough that tiles come to lie on each other, anywhere in the memory."""

    def __init__(self, rng: Random, elements: int, granule: int) -> None:
        self._rng, self._granule = rng, granule
        size = min(elements, 1 << 13)
        self._base = rng.choice((0, elements - size, rng.randrange(0, elements - size + 1, granule)))
        self._end = self._base + size
        self.tiles: list[Tile] = []

    def find(self, rows: int, cols: int) -> Tile | None:
        """A tile of this shape that holds values, most often a part of a larger one."""
        fitting = [tile for tile in self.tiles if tile.rows >= rows and tile.cols >= cols]
        if not fitting:
            return None
        tile = self._rng.choice(fitting)
        row, col = self._rng.randint(0, tile.rows - rows), self._granule * self._rng.randint(0, (tile.cols - cols) // self._granule)
        if rows == 1 or self._rng.random() < 0.9:
            return Tile(tile.start + row * tile.stride * STRIDE_UNIT + col, rows, cols, tile.stride)
        return Tile(tile.start + row * tile.stride * STRIDE_UNIT + col, rows, cols, 0)

    def place(self, rows: int, cols: int, avoid: Sequence[Span]) -> Tile | None:
        """A place for a tile of this shape outside of `avoid`; what is there is overwritten."""
        stride = -(-cols // STRIDE_UNIT) + self._rng.choice((0, 0, 0, 1, 2))
        size = (rows - 1) * stride * STRIDE_UNIT + cols
        for _ in range(20):
            last = self._end - size
            if last < self._base:
                return None
            start = self._rng.randint(self._base // self._granule, last // self._granule) * self._granule
            if self._rng.random() < 0.1:
                start = last // self._granule * self._granule
            tile = Tile(start, rows, cols, stride)
            if start >= self._base and not overlaps(*tile.span, avoid):
                return tile
        return None


class Words:
    """The float or the integer SRAM: which words hold values, and which of those are marked: 0 or 1, or BF16 values."""

    def __init__(self, rng: Random, size: int) -> None:
        self._rng = rng
        part = min(size, 320)
        self._base = rng.choice((0, size - part, rng.randint(0, size - part)))
        self._held, self._marked = np.zeros(part, bool), np.zeros(part, bool)

    def find(self, count: int, marked: bool, avoid: Sequence[Span] = ()) -> int | None:
        """The first of `count` words that hold values."""
        mask = (self._marked if marked else self._held).copy()
        for low, high in avoid:
            mask[max(0, low - self._base) : max(0, high - self._base)] = False
        total = np.concatenate(([0], np.cumsum(mask)))
        starts = np.flatnonzero(total[count:] - total[:-count] == count).tolist() if count < len(total) else []
        return self._base + int(self._rng.choice(starts)) if starts else None

    def place(self, count: int, avoid: Sequence[Span]) -> int | None:
        """The first of `count` words outside of `avoid`."""
        if count > len(self._held):
            return None
        for _ in range(20):
            start = self._base + self._rng.randint(0, len(self._held) - count)
            if not overlaps(start, start + count, avoid):
                return start
        return None

    def hold(self, start: int, count: int, marked: bool) -> None:
        """Note that these words are written."""
        part = slice(start - self._base, start - self._base + count)
        self._held[part], self._marked[part] = True, marked

    def forget_marks(self, start: int, count: int) -> None:
        """Note that these words are overwritten, sooner or later, by values of no kind."""
        self._marked[start - self._base : start - self._base + count] = False

    def marked_spans(self) -> list[Span]:
        """Runs of marked words."""
        edges = np.flatnonzero(np.diff(np.concatenate(([0], self._marked.astype(np.int8), [0]))))
        return [(self._base + int(low), self._base + int(high)) for low, high in zip(edges[::2], edges[1::2], strict=True)]


class Blocks:
    """The matrix SRAM: which blocks hold values, and of what format."""

    def __init__(self, rng: Random, size: int) -> None:
        self._rng = rng
        part = min(size, 600)
        self._base = rng.choice((0, size - part, rng.randint(0, size - part)))
        self._formats = np.full(part, -1)

    def find(self, count: int, form: int) -> int | None:
        """The first of `count` blocks that hold values of a format."""
        total = np.concatenate(([0], np.cumsum(self._formats == form)))
        starts = np.flatnonzero(total[count:] - total[:-count] == count).tolist() if count < len(total) else []
        return self._base + int(self._rng.choice(starts)) if starts else None

    def place(self, count: int, form: int, looped: bool) -> int | None:
        """The first of `count` blocks; in a loop, of none that an earlier instruction of its body may read in another format."""
        spare = len(self._formats) - count
        for _ in range(20 if spare >= 0 else 0):
            start = self._rng.choice((0, spare, self._rng.randint(0, spare)))
            if not looped or np.isin(self._formats[start : start + count], (-1, form)).all():
                return self._base + start
        return None

    def hold(self, start: int, count: int, form: int) -> None:
        """Note that these blocks are written."""
        self._formats[start - self._base : start - self._base + count] = form


class Area(NamedTuple):
    """A matrix in HBM. `kind`: "bf16", "int", "bool" or "mx0", "mx1", ... by format; `cols` in elements, 4-byte words or MX blocks."""

    kind: str
    start: int
    scales: int
    rows: int
    cols: int
    stride: int
    """Bytes; MX blocks for an MX format."""


class Memory:
    """HBM: what is in it when the program starts, and where its areas are."""

    def __init__(self, rng: Random, numbers: np.random.Generator, size: int, alignment: int) -> None:
        self._rng, self._numbers, self._alignment = rng, numbers, alignment
        self.image = np.zeros(size, np.uint8)
        self._next = rng.randrange(0, 256, alignment)
        self.areas: list[Area] = []

    def _room(self, size: int, alignment: int) -> int | None:
        start = -(-self._next // alignment) * alignment
        if start + size > len(self.image):
            return None
        self._next = start + size + self._rng.choice((0, 0, alignment, 3 * alignment, 40))
        return start

    def find(self, kind: str, rows: int, cols: int, alignment: int = 1) -> Area | None:
        """An area of this kind and size that starts at a multiple of so many bytes."""
        fitting = [a for a in self.areas if a.kind == kind and a.rows >= rows and a.cols >= cols and a.start % alignment == 0]
        return self._rng.choice(fitting) if fitting else None

    def place(self, kind: str, rows: int, cols: int, block_bytes: int = 0, alignment: int = 1) -> Area | None:
        """Room for a matrix that is going to be written, or is filled by `fill`."""
        unit = {"bf16": BF16_BYTES, "int": INT32_BYTES, "bool": INT32_BYTES}.get(kind, 1)
        if unit == 1:
            stride = cols + self._rng.choice((0, 0, 1, 3))
            start, scales = self._room(rows * stride * block_bytes, max(alignment, self._alignment)), self._room(rows * stride, 1)
            if start is None or scales is None:
                return None
            return Area(kind, start, scales, rows, cols, stride)
        # Words do not straddle beats.
        size, alignment = cols * unit, max(self._alignment, INT32_BYTES if unit == INT32_BYTES else 1)
        stride = -(-size // alignment) * alignment + alignment * self._rng.choice((0, 0, 0, 1, 5))
        if self._rng.random() < 0.3 and size % alignment == 0:
            stride = size
        start = self._room(rows * stride, alignment)
        return None if start is None else Area(kind, start, 0, rows, cols, stride)

    def fill(self, area: Area, block_bytes: int = 0) -> Area:
        """Put random values into an area and remember it."""
        if area.kind.startswith("mx"):
            total = area.rows * area.stride
            elements, scales = values.mx_bytes(self._numbers, total, block_bytes)
            self.write(area.start, elements)
            self.write(area.scales, scales)
        elif area.kind == "bf16":
            bits = values.bf16_bits(self._numbers, area.rows * area.stride // BF16_BYTES)
            self.write(area.start, bits.astype("<u2").view(np.uint8))
        else:
            count = area.rows * area.stride // INT32_BYTES
            self.write(area.start, values.words(self._numbers, count, area.kind == "bool").astype("<i4").view(np.uint8))
        self.areas.append(area)
        return area

    def write(self, start: int, content: NDArray[np.uint8]) -> None:
        self.image[start : start + len(content)] = content

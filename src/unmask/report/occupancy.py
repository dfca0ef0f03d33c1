"""How much of the on-chip memories holds values that are still needed, from what a window of instructions reads and writes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from unmask.compiler.context import capacities
from unmask.errors import UnmaskError
from unmask.isa.table import STRIDE_UNIT
from unmask.machine.access import Access
from unmask.machine.config import Machine

I64 = NDArray[np.int64]

_GRAIN = {"vector": STRIDE_UNIT}
"""Locations that are kept together; 1 where nothing is said."""
_NEVER = -1


class _Memory:
    """One memory: of each grain when its value was written and last needed, and where the number of those needed changes."""

    def __init__(self, name: str, capacity: int, grain: int, start: int) -> None:
        self.name, self.capacity, self.grain, self._start = name, capacity, grain, start
        self._written = np.full(capacity // grain, _NEVER)
        self._needed = np.full(capacity // grain, _NEVER)
        self._times: list[int] = []
        self._changes: list[int] = []

    def touch(self, access: Access, start: int, end: int) -> None:
        """Read or write the grains of an access between two cycles."""
        written, needed = self._grains(self._written, access), self._grains(self._needed, access)
        if access.write:
            self._close(written, needed, start)
            written[...] = start
            needed[...] = end
        else:
            np.maximum(needed, end, out=needed)

    def close(self, at: int) -> tuple[I64, I64]:
        """When the number of grains in use changes, and by how many; values in use at cycle `at` end with their last use before it."""
        self._close(self._written[None], self._needed[None], at)
        times, places = np.unique(np.array(self._times, np.int64), return_inverse=True)
        changes = np.zeros(len(times), np.int64)
        np.add.at(changes, places, np.array(self._changes, np.int64))
        return times, changes

    def _grains(self, of: I64, access: Access) -> I64:
        first, last = access.start // self.grain, -(-(access.start + access.cols) // self.grain)
        rows, stride = (access.rows, access.row_stride // self.grain) if access.row_stride else (1, 0)
        try:
            return np.ndarray((rows, last - first), np.int64, of, 8 * first, (8 * stride, 8))
        except (TypeError, ValueError):
            raise UnmaskError(f"the {self.name} SRAM holds {self.capacity:,}; an instruction addresses {access.start:,} and on") from None

    def _close(self, written: I64, needed: I64, upto: int) -> None:
        """End the values of some grains at their last use, and not after `upto`."""
        if (needed == needed[0, 0]).all() and (written == written[0, 0]).all():
            # Nearly always: a tile is written again as a whole.
            written, needed, weight = written[:1, :1], needed[:1, :1], needed.size
        else:
            weight = 1
        used = needed != _NEVER
        since = np.maximum(written[used], self._start)
        until = np.minimum(needed[used], upto)
        lived = until > since
        for times, sign in ((since[lived], weight), (until[lived], -weight)):
            found, counts = np.unique(times, return_counts=True) if times.size > 1 else (times, np.ones(times.size, np.int64))
            self._times += found.tolist()
            self._changes += (sign * counts).tolist()


class Occupancy:
    """Occupancy of the four SRAMs between two cycles.

    A location is in use from the start of the instruction that writes it to the end of the last that reads it before it is written again;
    what was there before the window counts from the window's start, what is read only after it ends with its last use inside.
    """

    def __init__(self, machine: Machine, start: int, end: int) -> None:
        self._end = end
        self._memories: dict[str, _Memory] = {}
        self._units: dict[str, str] = {}
        for name, capacity in capacities(machine).items():
            space, unit = name.split("_")
            self._units[space] = unit
            self._memories[space] = _Memory(space, capacity, _GRAIN.get(space, 1), start)

    def add(self, touched: Iterable[Access], start: int, end: int) -> None:
        """An instruction and when it starts and ends; in program order, since that orders the accesses to a location.

        Raises:
            UnmaskError: an address beyond the machine's memory.
        """
        for access in touched:
            if access.space in self._memories:
                self._memories[access.space].touch(access, start, end)

    def peaks(self, bins: I64) -> dict[tuple[str, str], I64]:
        """The most in use in each bin, in the memory's units, by the memory's name and its capacity with unit.

        Args:
            bins: int64 [bins + 1], where they start and where the last one ends.
        """
        found = {}
        for space, memory in self._memories.items():
            times, changes = memory.close(self._end)
            level = np.concatenate((np.zeros(1, np.int64), np.cumsum(changes))) * memory.grain
            before = level[np.searchsorted(times, bins[:-1], side="right")]
            # `times` with the starts of the bins among them, so that every bin has one.
            moments = np.concatenate((bins[:-1], times))
            order = np.argsort(moments, kind="stable")
            levels = np.concatenate((before, level[1:]))[order]
            starts = np.searchsorted(moments[order], bins[:-1], side="left")
            found[f"{space} SRAM", f"of {memory.capacity:,} {self._units[space]}"] = np.maximum.reduceat(levels, starts)
        return found

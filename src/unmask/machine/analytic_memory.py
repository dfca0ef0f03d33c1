"""Transfers in closed form: what a DMA instruction asks of the memory, and at which rates the memory serves.

No address is known, so a range may start at any place that its stride allows, and takes as many beats and bursts as it does on average over
these.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import gcd
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unmask.machine import _kernels as kernels
from unmask.machine._analytic import WHOLE
from unmask.machine.config import Machine
from unmask.machine.dma import Transfer
from unmask.machine.dram import parameters_of

I64 = NDArray[np.int64]

_ALIGNMENT = 64
"""Bytes: where the compiler lets regions of HBM begin."""
_COPIES, _ALONE, _PAUSE = 4, 3, 40
"""Transfers tried one after the other, and alone; cycles between those."""
_LARGE_BYTES, _LONG_BYTES = 2**17, 2**20
"""Of a larger transfer, a part is tried that goes over all banks, if these are not too many."""
_PLAIN_CHUNK = 2**14
_SCALES_AT = 2**34
_SHIFTS = 4
"""Places of the scales, relative to the elements, that are tried."""


class Range(NamedTuple):
    """`times` ranges of `size` bytes that start at multiples of `grain`."""

    times: int
    size: int
    grain: int

    def pieces(self, unit: int) -> float:
        """How many aligned pieces of `unit` bytes one of them touches, on average."""
        grain = min(self.grain, unit)
        return (-(-self.size // grain) * grain + unit - grain) / unit


class Times(NamedTuple):
    """Time and traffic of a DMA instruction, cycles and bytes.

    Attributes:
        asking: until the last beat has been asked for, if the memory keeps up.
        latency: from the last byte at the pins to its place.
        service: of the memory's pins; 0 of an ideal memory, whose ports are never shared.
        window: by how much asking is ahead of the end, where the memory does not keep up.
        reach: see `unmask.machine._analytic.REACH`.
        moved: bytes, whole beats or bursts, on average.
        asked: bytes that the instruction names.
    """

    asking: int
    latency: int
    service: int
    window: int
    reach: int
    moved: float
    asked: int


def ranges_of(transfer: Transfer) -> Iterator[Range]:
    """The ranges of HBM that a DMA instruction asks for."""
    parts = ((transfer.size, transfer.stride, transfer.chunk), (transfer.scale_size, transfer.scale_stride, transfer.scale_chunk))
    for size, stride, chunk in parts:
        whole, rest = divmod(size, chunk) if chunk else (0, 0)
        grain = gcd(_ALIGNMENT, stride if transfer.rows > 1 else 0, chunk if whole + (rest > 0) > 1 else 0)
        if whole:
            yield Range(transfer.rows * whole, chunk, grain)
        if rest:
            yield Range(transfer.rows, rest, grain)


class Place(NamedTuple):
    """Where a DMA instruction's elements and scales lie the first time it runs, and how much further they lie the second time, bytes."""

    elements: int
    scales: int
    to_next: int
    to_next_scales: int


class Pins:
    """The memory of a machine."""

    def __init__(self, machine: Machine) -> None:
        self._t: tuple[int, ...] = tuple(parameters_of(machine).tolist())
        self._known: dict[tuple[Transfer, bool, Place], Times] = {}

    def times(self, transfer: Transfer, write: bool, place: Place) -> Times:
        """What a DMA instruction takes; what has been asked for before is known."""
        key = (transfer, write, place)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._times(transfer, write, place)
        return found

    def _times(self, transfer: Transfer, write: bool, place: Place) -> Times:
        t = self._t
        ranges = list(ranges_of(transfer))
        asked = sum(r.times * r.size for r in ranges)
        beats = sum(r.times * r.pieces(t[kernels.BEAT]) for r in ranges)
        if t[kernels.PACE]:
            beat = t[kernels.BEAT]
            asking = sum(r.times * max(1.0, r.pieces(beat) * beat / t[kernels.PACE]) for r in ranges)
            return Times(transfer.lead + round(asking), t[kernels.LATENCY] // kernels.TICKS, 0, 0, 0, beats * beat, asked)
        moved = sum(r.times * r.pieces(t[kernels.BURST_BYTES]) for r in ranges) * t[kernels.BURST_BYTES]
        found = _served(t, transfer._replace(address=0, scale_address=0), place, write)
        reach = round(found.channels * WHOLE / t[kernels.CHANNELS] ** 0.5)
        until = transfer.lead + max(1, round(beats / t[kernels.PORTS]))
        return Times(until, max(0, round(found.latency)), max(1, round(found.service)), round(found.window), reach, moved, asked)


class Served(NamedTuple):
    """How DRAM serves a DMA instruction among its like, cycles.

    Attributes:
        service: from the end of one to the end of the next, when they follow each other at once.
        latency: of one alone, but for its service.
        window: from the moment in which all has been asked for to the end, when the memory is busy.
        channels: that it takes.
    """

    service: float
    latency: float
    window: float
    channels: float


def _served(memory: tuple[int, ...], transfer: Transfer, place: Place, write: bool) -> Served:
    """How DRAM serves a DMA instruction whose register numbers are left out."""
    if transfer.rows == 1:
        return _stream(memory, transfer, place, write)
    return _apart(memory, transfer, place, write)


def _stream(memory: tuple[int, ...], transfer: Transfer, place: Place, write: bool) -> Served:
    """A transfer of consecutive bytes, whose rate depends on its chunks and on where these lie among AXI bursts."""
    request, stripe = memory[kernels.REQUEST], memory[kernels.CHANNELS] * memory[kernels.INTERLEAVE]
    sweep = stripe * memory[kernels.PIECES] * memory[kernels.BANKS]
    elements, scales = place.elements % request, _SCALES_AT + place.scales % request
    apart = Place(elements, scales + sweep // 2 + stripe // 2 // request * request, transfer.size, transfer.scale_size)
    if transfer.size <= _LARGE_BYTES:
        return _apart(memory, transfer, apart, write)
    chunk, scale_chunk = (transfer.chunk, transfer.scale_chunk) if transfer.scale_size else (_PLAIN_CHUNK, 0)
    many = min(max(sweep, _LARGE_BYTES), _LONG_BYTES) // chunk
    steady = _apart(memory, _chunks(many, chunk, scale_chunk), Place(elements, scales, many * chunk, many * scale_chunk), write)
    return steady._replace(service=steady.service / (many * chunk) * transfer.size)


def _apart(memory: tuple[int, ...], transfer: Transfer, place: Place, write: bool) -> Served:
    """A tile, with its scales where they mostly lie: one of the places tried is in its elements' banks, which is seldom so in a run."""
    if not transfer.scale_size:
        return _probe(memory, transfer, place, write)
    sweep = memory[kernels.CHANNELS] * memory[kernels.INTERLEAVE] * memory[kernels.PIECES] * memory[kernels.BANKS]
    shifts = (part * sweep // _SHIFTS for part in range(_SHIFTS))
    found = [_probe(memory, transfer, place._replace(scales=place.scales + shift), write) for shift in shifts]
    return Served(*map(median, zip(*found, strict=True)))


def _chunks(count: int, size: int, scales: int) -> Transfer:
    """A transfer of so many chunks."""
    return Transfer(0, 0, 1, count * size, count * scales, 0, 0, size, scales, 0)


@lru_cache(maxsize=2**15)
def _probe(memory: tuple[int, ...], transfer: Transfer, place: Place, write: bool) -> Served:
    """Try transfers on the memory's model, some that follow each other and then some alone."""
    t = np.array(memory, np.int64)
    op = np.zeros(kernels.COLUMNS, np.int64)
    op[kernels.ADDRESS0 : kernels.ADDRESS0 + len(transfer)] = transfer
    state, ready = kernels.idle(t), 0
    elements, scales = place.elements, place.scales
    ends, apart, unknown = [], [], np.zeros(0, np.int64)
    for number in range(_COPIES):
        ready, end, _ = kernels.transfer(t, state, op, elements, scales, write, ready, unknown)
        ends.append(end)
        if number == 0:
            channels = float(np.count_nonzero(state.bus != -t[kernels.TURN]))
        elements, scales = elements + place.to_next, scales + place.to_next_scales
    window = end - ready
    service = (ends[-1] - ends[0]) / (_COPIES - 1)
    for _ in range(_ALONE if transfer.size <= _LARGE_BYTES else 1):
        start = end + _PAUSE
        _, end, _ = kernels.transfer(t, state, op, elements, scales, write, start, unknown)
        apart.append(end - start)
        elements, scales = elements + place.to_next, scales + place.to_next_scales
    return Served(service, median(apart) - service, window, channels)


def forget_memories() -> None:
    """Drop the samples that are kept."""
    _probe.cache_clear()

"""Transfers in closed form: what a DMA instruction asks of the memory, and at which rates the memory serves.

No address is known, so a range may start at any place that its stride allows, and takes as many beats and bursts as it does on average over
these.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import gcd
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unmask.isa.encoding import Op
from unmask.isa.table import Engine
from unmask.machine import _kernels as kernels
from unmask.machine.config import Machine
from unmask.machine.dma import Transfer, transfer_of
from unmask.machine.dram import parameters_of

I64 = NDArray[np.int64]

_ALIGNMENT = 64
"""Bytes: where the compiler lets regions of HBM begin."""
_COPIES = 5
_STREAM_BYTES = 2**20
_LATENCY_BYTES = 2**14
_SCALES_AT = 2**32
_SPREAD = 389


class Range(NamedTuple):
    """`count` ranges of `size` bytes that start at multiples of `grain`."""

    count: int
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
        service: of the memory's pins; 0 of an ideal memory, whose ports are never shared.
        latency: from the last byte at the pins to its place.
        window: by how much asking is ahead of the end, where the memory does not keep up.
        moved: bytes, whole beats or bursts, on average.
        asked: bytes that the instruction names.
    """

    asking: int
    service: int
    latency: int
    window: int
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
        self._machine = machine
        self._t: tuple[int, ...] = tuple(parameters_of(machine).tolist())

    def times(self, op: Op, place: Place) -> Times:
        """What a DMA instruction takes.

        Raises:
            UnmaskError: a size of 0, or a format that the machine has not.
        """
        t, transfer = self._t, transfer_of(op, self._machine)
        ranges = list(ranges_of(transfer))
        asked = sum(r.count * r.size for r in ranges)
        beats = sum(r.count * r.pieces(t[kernels.BEAT]) for r in ranges)
        if t[kernels.PACE]:
            beat = t[kernels.BEAT]
            asking = sum(r.count * max(1.0, r.pieces(beat) * beat / t[kernels.PACE]) for r in ranges)
            return Times(round(asking), 0, t[kernels.LATENCY] // kernels.TICKS, 0, beats * beat, asked)
        moved = sum(r.count * r.pieces(t[kernels.BURST_BYTES]) for r in ranges) * t[kernels.BURST_BYTES]
        transfer, write = transfer._replace(address=0, scale_address=0), op.row.engine is Engine.STORE
        found = _stream(t, transfer, place, write) if transfer.rows == 1 else _probe(t, transfer, place, write, _COPIES)
        service, latency, window = max(1, round(found.service)), round(found.latency), round(found.window)
        return Times(max(1, round(beats / t[kernels.PORTS])), service, latency, window, moved, asked)


class Served(NamedTuple):
    """How DRAM serves a DMA instruction among its like, cycles.

    Attributes:
        service: from the end of one to the end of the next, when they follow each other at once.
        latency: of one alone, but for its service.
        window: from the moment in which all has been asked for to the end, when the memory is busy.
    """

    service: float
    latency: float
    window: float


def _stream(memory: tuple[int, ...], transfer: Transfer, place: Place, write: bool) -> Served:
    """A transfer of consecutive bytes, whose rate depends on its chunks and on where these lie among AXI bursts."""
    elements, scales = place.elements % memory[kernels.REQUEST], place.scales % memory[kernels.REQUEST]
    chunk, scale_chunk = (transfer.chunk, transfer.scale_chunk) if transfer.scale_size else (2**14, 0)
    many = _STREAM_BYTES // chunk
    whole = Transfer(0, 0, 1, many * chunk, many * scale_chunk, 0, 0, chunk, scale_chunk, 0)
    start = Place(elements, _SCALES_AT + scales, whole.size, whole.scale_size)
    steady = _probe(memory, whole, start, write, _COPIES)
    first = _probe(memory, _beginning(transfer), start, write, 1)
    rate = steady.service / whole.size
    latency = first.latency - rate * min(transfer.size, _LATENCY_BYTES)
    return Served(rate * transfer.size, max(latency, 0), min(steady.window, rate * transfer.size + max(latency, 0)))


def _beginning(transfer: Transfer) -> Transfer:
    """At most the first `_LATENCY_BYTES` of consecutive bytes."""
    if transfer.size <= _LATENCY_BYTES:
        return transfer
    chunks = max(1, _LATENCY_BYTES // transfer.chunk)
    if not transfer.scale_size:
        return transfer._replace(size=_LATENCY_BYTES, chunk=_LATENCY_BYTES)
    return transfer._replace(size=min(chunks * transfer.chunk, transfer.size), scale_size=min(chunks * transfer.scale_chunk, transfer.scale_size))


@lru_cache(maxsize=4096)
def _probe(memory: tuple[int, ...], transfer: Transfer, place: Place, write: bool, copies: int) -> Served:
    """Try transfers that follow each other on the memory's model, on banks of which each has another row open and an age of its refresh."""
    t = np.array(memory, np.int64)
    op = np.zeros(kernels.COLUMNS, np.int64)
    op[kernels.ADDRESS0 : kernels.COLUMNS] = transfer
    state, start = _in_use(t), 4 * memory[kernels.REFI] // kernels.TICKS
    elements, scales = place.elements, place.scales
    ready, first, _ = kernels.transfer(t, state, op, elements, scales, write, start)
    alone, end = first - start, first
    for _ in range(copies - 1):
        elements += place.to_next
        scales += place.to_next_scales
        ready, end, _ = kernels.transfer(t, state, op, elements, scales, write, ready)
    service = (end - first) / (copies - 1) if copies > 1 else 0.0
    return Served(service, max(alone - service, 0), end - ready)


def _in_use(t: I64) -> kernels.Memory:
    """A memory that has been in use for a while."""
    memory = kernels.idle(t)
    start = 4 * t[kernels.REFI]
    memory.row[:] = -1
    memory.refreshed[:] = start - (np.arange(len(memory.row)) * _SPREAD % 1024) * t[kernels.REFI] // 1024
    if t[kernels.ALL_BANKS]:
        memory.due[:] = start + (np.arange(len(memory.due)) * _SPREAD % 1024) * t[kernels.REFI] // 1024
    return memory

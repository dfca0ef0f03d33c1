"""Transfers in closed form: what a DMA instruction asks of the memory, and at which rates the memory serves.

A tile that is contiguous on both sides is one row. A row of MX elements goes in chunks, scales first; every range is cut into AXI bursts,
whole beats each, and these into bursts of the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import gcd
from typing import NamedTuple

from unmask.isa.encoding import Op
from unmask.isa.table import REGISTER_COUNT, Cost
from unmask.machine import _kernels
from unmask.machine.access import Access, accesses
from unmask.machine.config import Machine
from unmask.machine.dram import parameters
from unmask.machine.memory import Dram

CHUNK_BLOCKS = 256
"""MX blocks whose scales and elements are fetched together."""
_ALIGNMENT = 64
"""Bytes: where the compiler lets regions of HBM begin."""
_NO_REGISTERS = (0,) * REGISTER_COUNT


class Range(NamedTuple):
    """`count` ranges of `size` bytes that start at multiples of `grain`."""

    count: int
    size: int
    grain: int

    def pieces(self, unit: int) -> float:
        """How many aligned pieces of `unit` bytes the ranges touch, on average over where they may start."""
        grain = min(self.grain, unit)
        return self.count * (-(-self.size // grain) * grain + unit - grain) / unit


class Transfer(NamedTuple):
    """Time and traffic of a DMA instruction, cycles and bytes.

    Attributes:
        asking: until the last beat has been asked for, if nothing stalls.
        service: of the memory's pins; 0 of an ideal memory, whose ports are never shared.
        latency: from the last byte at the pins to its place.
        window: by how much asking is ahead of the end, where the memory is slower.
        moved: bytes, whole beats or bursts.
        asked: bytes that the instruction names.
    """

    asking: int
    service: int
    latency: int
    window: int
    moved: float
    asked: int


def _ranges(op: Op, machine: Machine) -> Iterator[Range]:
    touched = accesses(op, _NO_REGISTERS, machine)
    hbm = [access for access in touched if access.space == "hbm"]
    if op.row.cost is Cost.GATHER:
        yield Range(int(op.operands["rows"]), hbm[0].cols, gcd(hbm[0].row_stride, _ALIGNMENT))
        return
    if all(_contiguous(access) for access in touched):
        hbm = [Access(a.space, a.start, 1, a.rows * a.cols, a.rows * a.cols, a.write) for a in hbm]
    if len(hbm) == 1:
        [access] = hbm
        yield Range(access.rows, access.cols, gcd(access.row_stride, _ALIGNMENT))
        return
    elements, scales = hbm
    whole, rest = divmod(scales.cols, CHUNK_BLOCKS)
    for access, per_block in ((scales, 1), (elements, elements.cols // scales.cols)):
        grain = gcd(gcd(access.row_stride, CHUNK_BLOCKS * per_block), _ALIGNMENT)
        if whole:
            yield Range(access.rows * whole, CHUNK_BLOCKS * per_block, grain)
        if rest:
            yield Range(access.rows, rest * per_block, grain)


def _contiguous(access: Access) -> bool:
    return access.rows == 1 or access.row_stride == access.cols


class Pins:
    """The memory of a machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine, hbm = machine, machine.hbm
        self._beat, self._dram = hbm.beat_bytes, isinstance(hbm, Dram)
        if not isinstance(hbm, Dram):
            self._rate, self._latency = hbm.bytes_per_cycle, hbm.latency
            return
        t, ticks = parameters(hbm, machine.clock_ghz).tolist(), _kernels.TICKS
        self._ports, self._request, self._burst = hbm.ports, hbm.beat_bytes * hbm.burst_beats, hbm.figures.burst_bytes
        self._outstanding = {False: t[_kernels.READS], True: t[_kernels.WRITES]}
        lost = (t[_kernels.RFC] + t[_kernels.RP]) / t[_kernels.REFI] if t[_kernels.ALL_BANKS] else 0.0
        self._channel_rate = self._burst * ticks / t[_kernels.BURST] * (1 - lost)
        self._channels, self._interleave = t[_kernels.CHANNELS], t[_kernels.INTERLEAVE]
        self._latency = round((t[_kernels.RCD] + t[_kernels.CL] + t[_kernels.LATENCY]) / ticks)

    def transfer(self, op: Op) -> Transfer:
        """What a DMA instruction takes."""
        ranges = list(_ranges(op, self._machine))
        asked = sum(r.count * r.size for r in ranges)
        beats = sum(r.pieces(self._beat) for r in ranges)
        if not self._dram:
            moved = beats * self._beat
            return Transfer(max(1, round(moved / self._rate)), 0, self._latency, 0, moved, asked)
        moved = sum(r.pieces(self._burst) for r in ranges) * self._burst
        bursts = sum(r.pieces(self._request) for r in ranges)
        write = any(access.write for access in accesses(op, _NO_REGISTERS, self._machine) if access.space == "hbm")
        touched = min(self._channels, sum(r.pieces(self._interleave) for r in ranges))
        asking = beats / self._ports
        service = moved / touched / self._channel_rate
        outstanding = self._outstanding[write]
        stalls = max(bursts / outstanding - 1, 0) * (self._latency + self._interleave / self._channel_rate)
        share = min(1.0, outstanding / bursts)
        return Transfer(
            max(1, round(max(asking, stalls))), max(1, round(service)), self._latency, round(service * share) + self._latency, moved, asked
        )

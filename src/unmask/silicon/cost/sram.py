"""On-chip memories as banks of CACTI: energy of an access, leakage and area.

A memory is as many banks as its width and the machine ask for (`Sram.vector_banks`), and more where one would be larger than the largest
that CACTI was asked about. Between two capacities figures are interpolated, in logarithms. `sram.json` has the points; bench/sram_cost.py
makes it.
"""

from __future__ import annotations

import json
import math
from functools import cache
from importlib import resources
from typing import NamedTuple

from unmask.machine.config import Machine
from unmask.numerics import mx
from unmask.silicon.cost.table import Scaling

MEMORIES = ("vector", "matrix", "float", "integer", "program")
WORD_BITS = 32
INSTRUCTION_BITS = 128
BF16_BITS = 16
Ports = tuple[int, int, int]
"""Ports that read and write, that only read, that only write."""
PORTS: dict[str, tuple[Ports, ...]] = {
    "vector": ((0, 2, 1), (0, 3, 2), (0, 4, 3), (0, 4, 3)),
    "matrix": ((1, 0, 0), (0, 1, 1)),
    "float": ((0, 2, 2),),
    "integer": ((0, 4, 1), (0, 4, 2), (0, 4, 2)),
    "program": ((0, 1, 1),),
}
"""Ports by how many engines may use a memory at once, 1 first: the most that any so many need. Of the vector SRAM, the load engine writes,
the store engine reads, the matrix engine does both, the vector engine reads two operands and writes one."""


class Bank(NamedTuple):
    """A bank at CACTI's node: picojoules of an access to `bits` bits, milliwatts, square millimetres."""

    bits: int
    read_pj: float
    write_pj: float
    leakage_mw: float
    area_mm2: float


class Sram(NamedTuple):
    """A memory at the node of the table: femtojoules per bit read or written, watts, square millimetres."""

    read_fj: float
    write_fj: float
    leakage_w: float
    area_mm2: float


@cache
def _points(memory: str, ports: Ports) -> dict[int, dict[int, Bank]]:
    """Banks by the bits of a row and capacity in bytes."""
    found: dict[int, dict[int, Bank]] = {}
    for point in json.loads((resources.files("unmask.silicon.cost") / "sram.json").read_text("utf-8"))["points"]:
        if point["memory"] == memory and tuple(point["ports"]) == ports:
            leakage = point["leakage_mw"] + point["gate_leakage_mw"]
            bank = Bank(point["bits"], point["read_pj"], point["write_pj"], leakage, point["area_mm2"])
            found.setdefault(point["bits"], {})[point["bytes"]] = bank
    return found


def bank_of(memory: str, ports: Ports, bits: int, capacity: float) -> Bank:
    """A bank of a capacity in bytes, of the narrowest row that holds `bits` bits, or of the widest there is.

    Below the smallest capacity it is the smallest; the caller cuts memories into banks no larger than the largest.
    """
    rows = _points(memory, ports)
    sizes = rows[min((width for width in rows if width >= bits), default=max(rows))]
    below = max((size for size in sizes if size <= capacity), default=min(sizes))
    above = min((size for size in sizes if size >= capacity), default=max(sizes))
    low, high = sizes[below], sizes[above]
    if above <= below:
        return low
    share = math.log(capacity / below) / math.log(above / below)
    return Bank(low.bits, *(first * (last / first) ** share for first, last in zip(low[1:], high[1:], strict=True)))


def largest_bank(memory: str) -> int:
    """Bytes of the largest bank there are figures of."""
    return max(size for sizes in _points(memory, PORTS[memory][-1]).values() for size in sizes)


def memory_of(memory: str, capacity: int, width: int, bank_bits: int, scaling: Scaling, *, depth_banks: int = 1, users: int = 0) -> Sram:
    """A memory.

    Args:
        memory: one of `MEMORIES`.
        capacity: bytes.
        width: bits that a port gives in a cycle.
        bank_bits: bits of a row of a bank.
        scaling: from CACTI's node.
        depth_banks: banks that its depth is split into, at least.
        users: engines that may use it at once (`PORTS`); 0 for all.
    """
    # A fraction of a bank stands for a smaller one at its price per byte, so that more capacity never costs less.
    banks = max(math.ceil(width / bank_bits) * depth_banks, capacity / largest_bank(memory))
    bank = bank_of(memory, PORTS[memory][users - 1], bank_bits, capacity / banks)
    per_bit = 1e3 * scaling.energy / bank.bits
    return Sram(
        bank.read_pj * per_bit,
        bank.write_pj * per_bit,
        banks * bank.leakage_mw * 1e-3 * scaling.leakage,
        banks * bank.area_mm2 * scaling.area,
    )


def block_bits(name: str) -> int:
    """Bits of an MX block in the matrix SRAM, its scale included."""
    return mx.BLOCK * mx.format_named(name).element.bits + 8


def memories_of(machine: Machine, scaling: Scaling) -> dict[str, Sram]:
    """The on-chip memories of a machine by name."""
    vector, array, sram = machine.vector, machine.matrix, machine.sram
    formats = machine.formats
    # Each row of the array takes a vector of its own from the matrix SRAM in every cycle.
    weights = array.rows * array.mlen // mx.BLOCK * max(block_bits(formats.weights), block_bits(formats.kv))
    wide = max(_points("matrix", PORTS["matrix"][-1]))
    sizes = {
        "vector": (sram.vector_kib * 1024, vector.vlen * BF16_BITS, vector.granule * BF16_BITS),
        "matrix": (sram.matrix_kib * 1024, weights, wide),
        "float": (sram.float_words * WORD_BITS // 8, WORD_BITS, WORD_BITS),
        "integer": (sram.integer_words * WORD_BITS // 8, vector.integer_lanes * WORD_BITS, WORD_BITS),
        "program": (machine.sequencer.program_words * INSTRUCTION_BITS // 8, INSTRUCTION_BITS, INSTRUCTION_BITS),
    }
    banks = {name: getattr(sram, f"{name}_banks", 1) for name in MEMORIES}
    return {
        name: memory_of(name, *sizes[name], scaling, depth_banks=banks[name], users=sram.scarce_ports.get(name, 0)) for name in MEMORIES
    }

"""Cycles of an instruction, by its cost class: the one place where operands become time."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from unmask.errors import UnmaskError
from unmask.isa.encoding import Op
from unmask.isa.table import REGISTER_COUNT, Cost
from unmask.machine.access import Access, accesses, check_sizes
from unmask.machine.config import Machine
from unmask.machine.memory import Ideal

_NO_REGISTERS = (0,) * REGISTER_COUNT


class Cycles(NamedTuple):
    """Time and traffic of one instruction.

    Attributes:
        occupancy: cycles during which its engine takes no other instruction.
        latency: further cycles until its last result is in place.
        hbm_bytes: bytes moved over the HBM port, whole beats.
    """

    occupancy: int
    latency: int
    hbm_bytes: int = 0


def _ceil(value: int, divisor: int) -> int:
    return -(-value // divisor)


def _operand(op: Op, name: str) -> int:
    return int(op.operands[name])


def _single(op: Op, machine: Machine) -> Cycles:
    return Cycles(1, 0)


def _matrix(op: Op, machine: Machine) -> Cycles:
    array = machine.matrix
    tiles = _ceil(_operand(op, "m"), array.blen) * _ceil(_operand(op, "n"), array.blen)
    occupancy = _ceil(tiles, array.rows) * _ceil(_operand(op, "k"), array.mlen) * array.blen
    skew = 2 * array.blen
    adder_tree = (array.mlen // array.blen - 1).bit_length()
    return Cycles(occupancy, skew + adder_tree + array.latency)


def _ideal(op: Op, machine: Machine) -> Ideal:
    if not isinstance(machine.hbm, Ideal):
        raise UnmaskError(f"{op.name}: its cycles depend on its addresses; machine {machine.name} has DRAM, which the cycle reading times")
    return machine.hbm


def _transfer(beats: int, memory: Ideal) -> Cycles:
    size = beats * memory.beat_bytes
    return Cycles(max(1, _ceil(size, memory.bytes_per_cycle)), memory.latency, size)


def _beats(access: Access, memory: Ideal) -> int:
    if access.row_stride == access.cols:
        return _ceil(access.rows * access.cols, memory.beat_bytes)
    return access.rows * _ceil(access.cols, memory.beat_bytes)


def _dma(op: Op, machine: Machine) -> Cycles:
    memory = _ideal(op, machine)
    return _transfer(sum(_beats(a, memory) for a in accesses(op, _NO_REGISTERS, machine) if a.space == "hbm"), memory)


def _gather(op: Op, machine: Machine) -> Cycles:
    memory = _ideal(op, machine)
    row = next(a for a in accesses(op, _NO_REGISTERS, machine) if a.space == "hbm").cols
    return _transfer(_operand(op, "rows") * _ceil(row, memory.beat_bytes), memory)


def _tile(op: Op, machine: Machine) -> int:
    return _operand(op, "rows") * _ceil(_operand(op, "cols"), machine.vector.vlen)


def _lanes(op: Op, machine: Machine) -> Cycles:
    return Cycles(_tile(op, machine), machine.vector.latency)


def _function(op: Op, machine: Machine) -> Cycles:
    return Cycles(_tile(op, machine), machine.vector.function_latency)


def _noise(op: Op, machine: Machine) -> Cycles:
    return Cycles(_tile(op, machine), machine.vector.noise_latency)


def _reduce(op: Op, machine: Machine) -> Cycles:
    return Cycles(_tile(op, machine), machine.vector.reduce_latency)


def _scalar(op: Op, machine: Machine) -> Cycles:
    return Cycles(_operand(op, "count"), machine.vector.scalar_latency)


def _scalar_function(op: Op, machine: Machine) -> Cycles:
    return Cycles(_operand(op, "count") * machine.vector.scalar_interval, machine.vector.scalar_function_latency)


def _integer(op: Op, machine: Machine) -> Cycles:
    return Cycles(_ceil(_operand(op, "count"), machine.vector.integer_lanes), machine.vector.latency)


def _sample(op: Op, machine: Machine) -> Cycles:
    # Noise, and beside it the exponential of what it leaves untouched; then the trees of the maximum and the sum.
    return Cycles(_tile(op, machine), machine.vector.noise_latency + machine.vector.reduce_latency)


def _rows(op: Op, machine: Machine) -> Cycles:
    return Cycles(_operand(op, "rows"), machine.vector.latency)


def _top_k(op: Op, machine: Machine) -> Cycles:
    # The scores stream in through an insertion sorter, one per cycle; then the mask streams out.
    return Cycles(2 * _operand(op, "count"), machine.vector.latency)


_RULES: dict[Cost, Callable[[Op, Machine], Cycles]] = {
    Cost.SEQUENCER: _single,
    Cost.SYNC: _single,
    Cost.DMA: _dma,
    Cost.GATHER: _gather,
    Cost.MATRIX: _matrix,
    Cost.LANES: _lanes,
    Cost.FUNCTION: _function,
    Cost.NOISE: _noise,
    Cost.REDUCE: _reduce,
    Cost.SCALAR: _scalar,
    Cost.SCALAR_FUNCTION: _scalar_function,
    Cost.INTEGER: _integer,
    Cost.TOPK: _top_k,
    Cost.ROWS: _rows,
    Cost.SAMPLE: _sample,
}


def cost_of(op: Op, machine: Machine) -> Cycles:
    """Cycles and HBM traffic of one instruction on a machine; they depend on its operands alone, never on values.

    Raises:
        UnmaskError: no rule for its cost class, a size of 0, or a DMA instruction of a machine with DRAM, whose time depends on addresses.
    """
    rule = _RULES.get(op.row.cost)
    if rule is None:
        raise UnmaskError(f"{op.name}: cost class {op.row.cost.name} has no rule")
    check_sizes(op)
    return rule(op, machine)

"""Cycles of an instruction, by its cost class: the one place where operands become time.

DMA instructions have no rule here: their time depends on addresses (`unmask.machine.dma`, `unmask.machine.dram`).
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import NamedTuple

from unmask.errors import UnmaskError
from unmask.isa.encoding import Op
from unmask.isa.table import STRIDE_UNIT, Cost, Engine
from unmask.machine.access import check_sizes
from unmask.machine.config import Machine
from unmask.machine.dma import is_dma
from unmask.numerics.mx import BLOCK


class Cycles(NamedTuple):
    """Time of one instruction.

    Attributes:
        occupancy: cycles during which its engine takes no other instruction.
        latency: further cycles until its last result is in place.
        gap: cycles after `occupancy` in which its engine takes none but another instruction with a gap.
    """

    occupancy: int
    latency: int
    gap: int = 0


def _ceil(value: int, divisor: int) -> int:
    return -(-value // divisor)


def _operand(op: Op, name: str) -> int:
    return int(op.operands[name])


def _single(op: Op, machine: Machine) -> Cycles:
    return Cycles(1, 0)


def adder_levels(machine: Machine) -> int:
    """Levels of the adder tree over the sub-arrays of a row of the array."""
    return (machine.matrix.mlen // machine.matrix.blen - 1).bit_length()


def matrix_cycles(m: int, n: int, k: int, transposed: bool, machine: Machine) -> Cycles:
    """Cycles of an M_MM of [m, k] by [n, k], or by [k, n] transposed.

    The rows of the array share the left operand's vector, so they work on neighbouring columns of one row of tiles. A transposed tile needs
    all 32 rows of its blocks before the first of its columns is known: a beat of 32 cycles at least, and 32 more until the first. Rows of a
    tile that is not transposed would overtake these columns on their way into the array: they wait as long.
    """
    array = machine.matrix
    beat = max(array.blen, BLOCK) if transposed else array.blen
    groups = _ceil(m, array.blen) * _ceil(n, array.blen * array.rows)
    gap = BLOCK * transposed
    return Cycles(groups * _ceil(k, array.mlen) * beat, 2 * array.blen + gap + adder_levels(machine) + array.latency, gap)


def _matrix(op: Op, machine: Machine) -> Cycles:
    m, n, k = (_operand(op, name) for name in ("m", "n", "k"))
    return matrix_cycles(m, n, k, bool(_operand(op, "transposed")), machine)


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


def _top_k_row(op: Op, machine: Machine) -> Cycles:
    # A pass of the tree of the maximum per column kept; the passes of a row depend on each other, rows follow each other.
    latency = machine.vector.reduce_latency
    return Cycles(_operand(op, "k") * max(_tile(op, machine), latency), latency)


def _scan(op: Op, machine: Machine) -> int:
    # The weights of all rows, a vector per cycle, however many rows it holds.
    return _ceil(_operand(op, "span") * _operand(op, "b_stride") * STRIDE_UNIT, machine.vector.vlen)


def _expert_tiles(op: Op, machine: Machine) -> Cycles:
    return Cycles(_scan(op, machine) + 2 * _operand(op, "tiles"), machine.vector.latency)


def _gather_rows(op: Op, machine: Machine) -> Cycles:
    return Cycles(_scan(op, machine) + _tile(op, machine), machine.vector.latency)


def _scatter_add(op: Op, machine: Machine) -> Cycles:
    return Cycles(_scan(op, machine) + _tile(op, machine), 2 * machine.vector.latency)


_RULES: dict[Cost, Callable[[Op, Machine], Cycles]] = {
    Cost.SEQUENCER: _single,
    Cost.SYNC: _single,
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
    Cost.TOPK_ROW: _top_k_row,
    Cost.EXPERT_TILES: _expert_tiles,
    Cost.GATHER_ROWS: _gather_rows,
    Cost.SCATTER_ADD: _scatter_add,
}


def cost_of(op: Op, machine: Machine) -> Cycles:
    """Cycles of an instruction that moves nothing to or from HBM; they depend on its operands alone, never on values or addresses.

    Raises:
        UnmaskError: no rule for its cost class, a size of 0, or a DMA instruction, whose time depends on addresses.
    """
    if is_dma(op):
        raise UnmaskError(f"{op.name}: its cycles depend on its addresses: the cycle reading times it")
    rule = _RULES.get(op.row.cost)
    if rule is None:
        raise UnmaskError(f"{op.name}: cost class {op.row.cost.name} has no rule")
    check_sizes(op)
    return rule(op, machine)


def operations_of(op: Op) -> int:
    """What an instruction computes: two operations per product of the matrix engine, one per element of the vector engine."""
    if op.row.engine is Engine.MATRIX:
        return 2 * prod(_operand(op, name) for name in ("m", "n", "k"))
    if op.row.engine is not Engine.VECTOR:
        return 0
    return prod(_operand(op, name) for name in ("rows", "cols", "count") if name in op.operands)

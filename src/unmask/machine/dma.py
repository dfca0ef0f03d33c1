"""DMA instructions as ranges of HBM: the order in which the load and the store engine ask for bytes.

A tile that is contiguous in HBM and in its SRAM (as it always is in the matrix and the integer SRAM) is one row. A row is one range of
bytes; in MX it is a chunk of at most `CHUNK_BLOCKS` blocks after the other, a range of scales and a range of elements each: a load, which
multiplies elements by them, takes the scales first, a store, which finds them in the elements, writes them last. L_GATHER, which has to
read ids first, asks for its first range `GATHER_LEAD` cycles later than it would otherwise, and has the next row's address in time then.
"""

from __future__ import annotations

from typing import NamedTuple

from unmask.isa.encoding import Op
from unmask.isa.table import INSTRUCTIONS, REGISTER_COUNT, Cost
from unmask.machine.access import accesses
from unmask.machine.config import Machine

CHUNK_BLOCKS = 256
"""MX blocks of 32 elements whose scales are asked for together: what the engines keep of them."""
GATHER_LEAD = 5
"""Cycles by which L_GATHER asks later than other loads: read an id, keep it, multiply it by the stride, add the table's address, ask."""
_REGISTER_NUMBERS = range(REGISTER_COUNT)


class Transfer(NamedTuple):
    """What a DMA instruction moves; sizes and strides in bytes of HBM.

    Attributes:
        address, scale_address: registers that hold where its elements and its scales begin; of L_GATHER, its table and its ids.
        rows: of the tile, after contiguous ones have become one.
        size, scale_size: of a row; no scales, 0, unless it is MX.
        stride, scale_stride: from row to row; of L_GATHER, of its table.
        chunk, scale_chunk: the most bytes of a range.
        limit: rows of L_GATHER's table, of which its ids choose; 0 for all others.
        lead: cycles from its start to the first range.
    """

    address: int
    scale_address: int
    rows: int
    size: int
    scale_size: int
    stride: int
    scale_stride: int
    chunk: int
    scale_chunk: int
    limit: int
    lead: int = 0


_MOVING = frozenset(row.name for row in INSTRUCTIONS if row.cost in (Cost.DMA, Cost.GATHER))


def is_dma(op: Op) -> bool:
    """Whether an instruction moves bytes to or from HBM."""
    return op.name in _MOVING


def transfer_of(op: Op, machine: Machine) -> Transfer:
    """What a DMA instruction moves.

    Raises:
        UnmaskError: a size of 0, or a format that the machine has not.
    """
    # With registers that hold their own numbers, addresses are the numbers of the registers they come from.
    touched = accesses(op, _REGISTER_NUMBERS, machine)
    elements, *others = (access for access in touched if access.space == "hbm")
    if op.row.cost is Cost.GATHER:
        rows, ids, limit = int(op.operands["rows"]), int(op.operands["ids"]), int(op.operands["limit"])
        return Transfer(elements.start, ids, rows, elements.cols, 0, elements.row_stride, 0, elements.cols, 0, limit, GATHER_LEAD)
    rows, size, scale_size = elements.rows, elements.cols, others[0].cols if others else 0
    [tile] = (access for access in touched if access.space != "hbm")
    if rows > 1 and elements.row_stride == elements.cols and tile.row_stride == tile.cols:
        rows, size, scale_size = 1, rows * size, rows * scale_size
    if not others:
        return Transfer(elements.start, 0, rows, size, 0, elements.row_stride, 0, size, 0, 0)
    [scales] = others
    chunk = elements.cols // scales.cols * CHUNK_BLOCKS
    return Transfer(elements.start, scales.start, rows, size, scale_size, elements.row_stride, scales.row_stride, chunk, CHUNK_BLOCKS, 0)

"""The port by which a matrix unit, of this project or of another, is driven."""

from __future__ import annotations

from typing import Any

from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from unmask.machine.config import Machine
from unmask.rtl.dma import Shape
from unmask.rtl.faults import BITS as FAULT_BITS
from unmask.rtl.matrix.sram import MatrixWrite
from unmask.rtl.sram import SramRead, SramWrite

PREFIX = "matrix_"
"""Of the ports' names."""


def matrix_ports(machine: Machine, entry: data.StructLayout, load: Shape) -> dict[str, Any]:
    """Ports of an engine that drives a matrix unit.

    Ports:
        matrix_instruction: an M_MM with the values of its registers, `entry`; it starts in the cycle in which it is taken. Semaphores are
            dealt with. `ready` says that the unit takes one like the payload. A SYNC is not offered, but waits for `ready` too.
        matrix_retire: strobe in the last cycle before the end of the oldest instruction under way; its signals follow.
        matrix_fault: what is wrong with that instruction, `unmask.rtl.faults.Fault`; stays until `matrix_stop`.
        matrix_stop: forget what is under way; `ready` from the next cycle on.
        matrix_a: reads the left operand: `mlen` elements of the vector SRAM. matrix_dst: writes the result: `rows` x `blen` elements.
        matrix_load: the MX blocks that L_MAT brings.
    """
    array = machine.matrix
    bits = ceil_log2(machine.vector_elements // machine.vector.granule)
    return {
        "matrix_instruction": Out(stream.Signature(entry)),
        "matrix_retire": In(1),
        "matrix_fault": In(FAULT_BITS),
        "matrix_stop": Out(1),
        "matrix_a": In(SramRead(bits, 16, array.mlen)),
        "matrix_dst": In(SramWrite(bits, 16, array.rows * array.blen)),
        "matrix_load": Out(MatrixWrite.of(load)),
    }

"""The cycle reading's DRAM, served to an engine that runs in RTL."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unmask.errors import UnmaskError
from unmask.isa.encoding import decode
from unmask.isa.table import Engine
from unmask.machine import _kernels as kernels
from unmask.machine.config import Machine
from unmask.machine.dma import is_dma, transfer_of
from unmask.machine.dram import parameters_of

I64 = NDArray[np.int64]
_ROOM = 1 << 16
"""AXI bursts of one instruction: 256 MiB of the longest."""


class DramServer:
    """Says of every DMA instruction that starts when its AXI bursts are asked for and done: the model that the cycle reading calls.

    Like that, it serves an instruction whole when it starts, and of two that start at once the load first.
    """

    def __init__(self, machine: Machine) -> None:
        """A memory that has not been asked for anything."""
        self._machine, self._t = machine, parameters_of(machine)
        self._rows: I64 = np.zeros((0, kernels.COLUMNS), np.int64)
        self._memory = kernels.idle(self._t, _ROOM)

    def begin(self, words: NDArray[np.uint64]) -> None:
        """A program starts, uint64 [instructions, 2]: a memory that has not been asked for anything."""
        self._memory = kernels.idle(self._t, _ROOM)
        self._rows = np.zeros((len(words), kernels.COLUMNS), np.int64)
        for row, word in zip(self._rows, words, strict=True):
            try:
                [op] = decode(word[None])
                if is_dma(op):
                    row[kernels.ADDRESS0 : kernels.LEAD + 1] = transfer_of(op, self._machine)
            except UnmaskError:
                # An instruction that faults asks for nothing.
                continue

    def __call__(self, engine: int, pc: int, cycle: int, memory: int, scales: int, integers: NDArray[np.int32]) -> I64:
        """A DMA instruction starts.

        Args:
            engine: load or store.
            pc: its number in the program.
            cycle: from the start of the first instruction.
            memory, scales: byte addresses of its elements and its scales; of L_GATHER, of its table, and of its row numbers in the integer
                SRAM.
            integers: the integer SRAM.

        Returns:
            int64 [bursts, 3]: first byte, cycle of the request on the bus, cycle of the last beat or of the response.

        Raises:
            UnmaskError: it has too many bursts to write down.
        """
        from unmask.rtl.load import WRITING
        from unmask.rtl.store import ENDING
        from unmask.rtl.walker import ASKING

        write = engine == Engine.STORE
        self._memory.bursts[0] = 0
        row = self._rows[pc]
        gathers = row[kernels.LIMIT] > 0
        gathered = rows_chosen(integers, scales, row[kernels.ROWS], row[kernels.LIMIT]) if gathers else np.zeros(0, np.int64)
        kernels.transfer(self._t, self._memory, row, memory, scales, write, cycle, gathered)
        count = int(self._memory.bursts[0])
        if count == _ROOM:
            raise UnmaskError(f"instruction {pc} moves its bytes in more than {_ROOM - 1} bursts")
        served = self._memory.served[:count].copy()
        served[:, 1] = served[:, 1] // kernels.TICKS + ASKING
        served[:, 2] = served[:, 2] // kernels.TICKS - (ENDING if write else WRITING)
        return served


def rows_chosen(integers: NDArray[np.int32], start: int, rows: int, limit: int) -> I64:
    """The rows of a table that L_GATHER chooses; of a number that is a fault, at which the engine stops asking, any."""
    numbers = np.zeros(rows, np.int64)
    there = integers[start : start + rows]
    numbers[: len(there)] = there
    return np.where((numbers < 0) | (numbers >= limit), 0, numbers)

"""Which rows of tables a program on the RTL chooses, heard as its instructions start."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unmask.isa.program import Program
from unmask.isa.table import Engine
from unmask.rtl.lockstep.bench import Ask
from unmask.rtl.lockstep.dram import I64, rows_chosen

_NO_BURSTS = np.zeros((0, 3), np.int64)


class GatheredRows:
    """Hears of DMA instructions before the memory does, as `unmask.rtl.lockstep.bench.Ask`."""

    def __init__(self, memory: Ask | None) -> None:
        """Before no program has begun.

        Args:
            memory: is told of the instructions then; None: one with times of its own.
        """
        self._memory = memory
        self._gathers: dict[int, tuple[int, int]] = {}
        self._rows: list[I64] = []

    def begin(self, program: Program) -> None:
        """A program starts: nothing is chosen yet."""
        ops = enumerate(program.ops)
        self._gathers = {pc: (int(op.operands["rows"]), int(op.operands["limit"])) for pc, op in ops if op.name == "L_GATHER"}
        self._rows = []

    @property
    def rows(self) -> I64:
        """All rows that were chosen, in the order of execution."""
        return np.concatenate([np.zeros(0, np.int64), *self._rows])

    def __call__(self, engine: int, pc: int, cycle: int, memory: int, scales: int, integers: NDArray[np.int32]) -> I64:
        """A DMA instruction starts; see `unmask.rtl.lockstep.dram.DramServer`."""
        if engine == Engine.LOAD and pc in self._gathers:
            self._rows.append(rows_chosen(integers, scales, *self._gathers[pc]))
        return _NO_BURSTS if self._memory is None else self._memory(engine, pc, cycle, memory, scales, integers)

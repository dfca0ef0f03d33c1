"""What runs a program on values: the functional reading, or hardware in simulation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from unmask.isa.program import Program
from unmask.machine.config import Machine


class Executor(Protocol):
    """A machine with a program's data in its HBM, ready to run the program any number of times."""

    @property
    def gathered(self) -> NDArray[np.int64]:
        """The rows that L_GATHERs chose in the last run, in the order of execution, for `unmask.machine.cycle.time_program`."""
        ...

    def write(self, region: str, content: NDArray[np.generic]) -> None:
        """Put an array's bytes at the start of a named HBM region; raises as `Program.write`."""
        ...

    def read(self, region: str, dtype: str) -> NDArray[np.generic]:
        """A copy of a named HBM region as a flat array of `dtype`."""
        ...

    def run(self, entry: str) -> None:
        """Run an entry of the program from its first instruction to HALT.

        Raises:
            MachineFault: names the instruction that stopped the machine.
        """
        ...


Executing = Callable[[Program, Machine], Executor]
"""Loads a program into a machine."""

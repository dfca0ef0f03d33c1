"""A program on the hardware in simulation, as the functional reading runs it on values alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unmask.errors import UnmaskError
from unmask.isa.encoding import decode
from unmask.isa.program import ONLY_ENTRY, Program
from unmask.machine.config import Machine
from unmask.machine.cycle import time_program
from unmask.machine.memory import Dram
from unmask.machine.state import MachineFault
from unmask.rtl.faults import Fault
from unmask.rtl.lockstep.bench import FAULT, TIMEOUT, Bench
from unmask.rtl.lockstep.dram import DramServer
from unmask.rtl.lockstep.gathered import GatheredRows
from unmask.rtl.lockstep.names import instructions_of
from unmask.rtl.lockstep.runner import delays_of

_PATIENCE = 4
"""The engine has run away after so many times the cycles that an entry should take."""


def require_instructions(program: Program, unit: str) -> None:
    """Check that a unit runs all of a program's instructions.

    Raises:
        UnmaskError: names the first that it does not run, or there is no such unit.
    """
    known = instructions_of(unit)
    for index, op in enumerate(program.ops):
        if op.name not in known:
            raise UnmaskError(f"instruction {index} of the program is {op.name}, which the unit {unit!r} of the hardware does not run")


class Run(NamedTuple):
    """A run of an entry: what the CYCLES register said, modulo 2^32."""

    entry: str
    cycles: int


class RtlMachine:
    """An `unmask.machine.executor.Executor`: a Verilated engine, a host that writes its registers, and HBM.

    The SRAMs keep what they hold from one run to the next, as those of the functional reading do.

    Attributes:
        program: that was loaded. runs: in order. seconds: that they took, of wall time.
    """

    def __init__(
        self, program: Program, machine: Machine, library: Path, watch: Callable[[int, float], None] = lambda cycles, seconds: None
    ) -> None:
        """Load a program.

        Args:
            library: of `unmask.rtl.lockstep.build.harness`, for the machine.
            watch: called now and then with the cycles and the seconds of all runs so far; what it raises ends the run.

        Raises:
            UnmaskError: the program was compiled without weights, the memory is faster than the engines, the library cannot be loaded.
        """
        if not program.about.get("weights", True):
            raise UnmaskError("the program was compiled from an architecture, without weights: it can be timed, not run")
        self.program, self._machine, self._watch = program, machine, watch
        self._dram = DramServer(machine) if isinstance(machine.hbm, Dram) else None
        self._gathered = GatheredRows(self._dram)
        self._bench = Bench(library, delays_of(machine), ask=self._gathered, timed=self._dram is not None)
        self._hbm = program.image()
        self._bench.attach(self._hbm)
        self._loaded: str | None = None
        self._limits: dict[str, int] = {}
        self.runs: list[Run] = []
        self.seconds = 0.0

    @property
    def cycles(self) -> int:
        """Of all runs."""
        return sum(run.cycles for run in self.runs)

    @property
    def gathered(self) -> NDArray[np.int64]:
        """See `unmask.machine.executor.Executor`."""
        return self._gathered.rows

    def write(self, region: str, content: NDArray[np.generic]) -> None:
        """Put an array's bytes at the start of a named HBM region; raises as `Program.write`."""
        self.program.write(self._hbm, region, content)

    def read(self, region: str, dtype: str) -> NDArray[np.generic]:
        """A copy of a named HBM region as a flat array of `dtype`."""
        return self.program.read(self._hbm, region, dtype)

    def run(self, entry: str = ONLY_ENTRY) -> None:
        """Run an entry of the program from its first instruction to HALT.

        Raises:
            MachineFault: names the instruction that stopped the hardware.
            UnmaskError: there is no such entry, or the hardware does not come to an end.
        """
        part = self.program.entry(entry)
        if entry != self._loaded:
            self._bench.load(part.words)
        self._loaded = None  # what ends a run before its time leaves a new engine
        if entry not in self._limits:
            self._limits[entry] = _PATIENCE * time_program(part, self._machine).cycles + 10_000
        if self._dram is not None:
            self._dram.begin(part.words)
        self._gathered.begin(part)
        started, before = time.perf_counter(), (self.cycles, self.seconds)

        def watch(cycles: int) -> None:
            self._watch(before[0] + cycles, before[1] + time.perf_counter() - started)

        outcome = self._bench.run(len(self.runs), record=False, timeout=self._limits[entry], watch=watch)
        self.seconds += time.perf_counter() - started
        if outcome.status == FAULT:
            [op] = decode(part.words[outcome.pc][None])
            raise MachineFault(f"instruction {outcome.pc} ({op.name}): fault {Fault(outcome.code).name.lower()} of the hardware")
        if outcome.status == TIMEOUT:
            raise UnmaskError(f"entry {entry}: the hardware has not come to an end after {self._limits[entry]:,} cycles")
        self._loaded = entry
        self.runs.append(Run(entry, outcome.cycles))

    def close(self) -> None:
        """Give the engine's memory back."""
        self._bench.close()

"""The functional reading: runs a program on real values, instruction by instruction, each one over whole tiles."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from unmask.errors import UnmaskError
from unmask.isa.encoding import Op
from unmask.isa.program import ONLY_ENTRY, Program
from unmask.isa.table import Kind
from unmask.machine.config import Machine
from unmask.machine.semantics import SEMANTICS
from unmask.machine.sequencer import REGISTER_INSTRUCTIONS, execute
from unmask.machine.state import MachineFault, State

_CONTROL = frozenset({"HALT", "LOOP", "END", "SEM_SET"})


def _bind(op: Op) -> Callable[[State], None]:
    """The instruction as a function of the state, its operands looked up once."""
    if op.name == "SYNC":
        return lambda state: None
    if op.name in REGISTER_INSTRUCTIONS:
        return lambda state: execute(op, state.registers, lambda address: int(state.words(address, 1)[0]))
    run = SEMANTICS.get(op.name)
    if run is None:
        raise UnmaskError(f"instruction {op.name} has no functional semantics")
    constants = {spec.name: op.operands[spec.name] for spec in op.row.fields if spec.kind is not Kind.REGISTER}
    registers = [(spec.name, int(op.operands[spec.name])) for spec in op.row.fields if spec.kind is Kind.REGISTER]

    def call(state: State) -> None:
        values = state.registers
        run(state, **constants, **{name: values[number] for name, number in registers})

    return call


class FunctionalMachine:
    """A machine with a program's data in its HBM, ready to run the program any number of times.

    Semaphores order engines in time, not values: the program order of the instructions is one of the orders that they allow
    (`unmask.machine.hazards` checks that all others give the same values), so this reading does not look at them.
    """

    def __init__(self, program: Program, machine: Machine) -> None:
        """Load a program.

        Raises:
            UnmaskError: it was compiled without weights, or needs more memory than the machine has.
        """
        if not program.about.get("weights", True):
            raise UnmaskError("the program was compiled from an architecture, without weights: it can be timed, not run")
        self.program = program
        self.state = State(machine, program.hbm_bytes)
        for name, content in program.data.items():
            self.write(name, content)
        self._entries = {
            name: [(op, None if op.name in _CONTROL else _bind(op)) for op in program.entry(name).ops] for name in program.entries
        }

    def write(self, region: str, content: NDArray[np.generic]) -> None:
        """Put an array's bytes at the start of a named HBM region; raises as `Program.write`."""
        self.program.write(self.state.hbm, region, content)

    def read(self, region: str, dtype: str) -> NDArray[np.generic]:
        """A copy of a named HBM region as a flat array of `dtype`."""
        return self.program.read(self.state.hbm, region, dtype)

    @property
    def gathered(self) -> NDArray[np.int64]:
        """See `unmask.machine.executor.Executor`."""
        return np.concatenate([np.zeros(0, np.int64), *self.state.gathered])

    def run(self, entry: str = ONLY_ENTRY) -> None:
        """Run an entry of the program from its first instruction to HALT.

        Raises:
            MachineFault: names the instruction that stopped the machine.
            UnmaskError: there is no such entry.
        """
        if entry not in self._entries:
            raise UnmaskError(f"the program has no entry {entry!r}; there are {', '.join(self._entries)}")
        self.state.gathered.clear()
        with np.errstate(all="ignore"):  # infinities and NaN are values of the machine
            self._run(self._entries[entry])

    def _run(self, ops: list[tuple[Op, Callable[[State], None] | None]]) -> None:
        pc, loops = 0, []
        while True:
            op, call = ops[pc]
            if call is not None:
                try:
                    call(self.state)
                except MachineFault as fault:
                    raise MachineFault(f"instruction {pc} ({op.name}): {fault}") from None
            elif op.name == "HALT":
                return
            elif op.name == "LOOP":
                loops.append([pc, int(op.operands["count"])])
            elif op.name == "END":
                loops[-1][1] -= 1
                if loops[-1][1]:
                    pc = loops[-1][0]
                else:
                    loops.pop()
            pc += 1

"""What a program should do: the values that instructions leave, from the functional reading, and their cycles, from the cycle reading."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from unmask.isa.encoding import Op
from unmask.isa.program import Program
from unmask.isa.table import STRIDE_UNIT
from unmask.machine.access import Access, accesses
from unmask.machine.config import Machine
from unmask.machine.cycle import Trace, time_program
from unmask.machine.functional import FunctionalMachine
from unmask.machine.sequencer import REGISTER_BITS, REGISTER_INSTRUCTIONS
from unmask.machine.state import State
from unmask.numerics import bf16, mx

I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]
Watch = Callable[[Op, Sequence[int], Sequence[Access], State], None]
"""Called with an instruction, the registers, what it touches, and the state, before it is executed."""


class Space(IntEnum):
    """The memories that an instruction's results can be seen in; the harness numbers them so too."""

    VECTOR = 0
    FLOAT = 1
    INTEGER = 2
    REGISTER = 3
    HBM = 4
    MATRIX = 5
    """Elements of the matrix SRAM; SCALES: of its blocks."""
    SCALES = 6


@dataclass(frozen=True)
class Expected:
    """A program's execution, instruction by instruction.

    Attributes:
        trace: pc, engine, start and end of every executed instruction, in program order.
        instruction, space, address, value: one entry per location that an instruction may write: the number of the executed instruction,
            int64; `Space`; address in the memory's units; bit pattern after it, uint64.
        cycles: of the program.
    """

    trace: Trace
    instruction: I64
    space: I64
    address: I64
    value: U64
    cycles: int


class _Watched(FunctionalMachine):
    """The functional reading, every instruction between two calls."""

    def __init__(self, program: Program, machine: Machine, before: Callable[[Op, State], None], after: Callable[[], None]) -> None:
        super().__init__(program, machine)

        def watched(op: Op, call: Callable[[State], None]) -> Callable[[State], None]:
            def run(state: State) -> None:
                before(op, state)
                call(state)
                after()

            return run

        for entry in self._entries.values():
            entry[:] = [(op, None if call is None else watched(op, call)) for op, call in entry]


class _Recorder:
    """Collects what every executed instruction leaves."""

    def __init__(self, machine: Machine, watch: Watch | None) -> None:
        self._machine, self._watch = machine, watch
        self._writes: list[Access] = []
        self._op: Op | None = None
        self.count = 0
        self.rows: list[tuple[int, int, I64 | int, I64 | int]] = []
        self.state: State | None = None

    def before(self, op: Op, state: State) -> None:
        touches = accesses(op, state.registers, self._machine)
        if self._watch is not None:
            self._watch(op, state.registers, touches, state)
        self._op, self.state = op, state
        self._writes = [a for a in touches if a.write]

    def after(self) -> None:
        op, state = self._op, self.state
        assert op is not None
        assert state is not None
        if op.name in REGISTER_INSTRUCTIONS:
            number = int(op.operands["rd"])
            self.rows.append((self.count, Space.REGISTER, number, state.registers[number] & ((1 << REGISTER_BITS) - 1)))
        for access in self._writes:
            if access.space == "vector":
                window = state.tile(access.start, access.rows, access.cols, access.row_stride // STRIDE_UNIT)
                self.rows.append((self.count, Space.VECTOR, _locations(access), bf16.to_bits(window).astype(np.int64).ravel()))
            elif access.space == "float":
                words = state.scalars(access.start, access.cols).view(np.uint32).astype(np.int64)
                self.rows.append((self.count, Space.FLOAT, _locations(access), words))
            elif access.space == "integer":
                words = state.words(access.start, access.cols).view(np.uint32).astype(np.int64)
                self.rows.append((self.count, Space.INTEGER, _locations(access), words))
            elif access.space == "matrix":
                codes, scales = state.blocks(access.start, access.rows, access.cols)
                elements = np.arange(access.start * mx.BLOCK, access.start * mx.BLOCK + codes.size)
                self.rows.append((self.count, Space.MATRIX, elements, codes.astype(np.int64).ravel()))
                blocks = np.arange(access.start, access.start + scales.size)
                self.rows.append((self.count, Space.SCALES, blocks, scales.astype(np.int64).ravel()))
            elif access.space == "hbm":
                window8 = state.bytes(access.start, access.rows, access.cols, access.row_stride)
                self.rows.append((self.count, Space.HBM, _locations(access), window8.astype(np.int64).ravel()))
        self.count += 1


def _locations(access: Access) -> I64:
    rows = np.arange(access.rows, dtype=np.int64)[:, None] * access.row_stride
    return np.asarray((access.start + rows + np.arange(access.cols)).ravel())


_UNWATCHED = frozenset({"HALT", "LOOP", "END", "SEM_SET"})
"""What the functional reading does not call: instructions that leave nothing."""


def expect(program: Program, machine: Machine, parameters: dict[int, int], watch: Watch | None = None) -> Expected:
    """Run a program in both readings.

    Args:
        program: of one entry.
        parameters: what S_LD finds in the integer SRAM.
        watch: sees the state before every instruction that has operands or results.

    Raises:
        UnmaskError: as the two readings; `MachineFault` where the program stops in a fault.
    """
    recorder = _Recorder(machine, watch)
    reading = _Watched(program, machine, recorder.before, recorder.after)
    reading.run(next(iter(program.entries)))
    rows_chosen = reading.state.gathered
    gathered = np.concatenate(rows_chosen) if rows_chosen else None
    timing = time_program(program, machine, parameters=parameters, gathered=gathered, trace=True)
    trace = timing.trace
    assert trace is not None
    seen = np.array([op.name not in _UNWATCHED for op in program.ops])
    numbers = np.flatnonzero(seen[trace.pc])
    rows = recorder.rows
    sizes = [np.size(address) for _, _, address, _ in rows]

    def column(parts: list[I64 | int]) -> I64:
        return np.concatenate([np.atleast_1d(np.asarray(p, np.int64)) for p in parts]) if parts else np.zeros(0, np.int64)

    return Expected(
        trace,
        numbers[np.repeat(np.array([row[0] for row in rows], np.int64), sizes)],
        np.repeat(np.array([row[1] for row in rows], np.int64), sizes),
        column([row[2] for row in rows]),
        column([row[3] for row in rows]).astype(np.uint64),
        timing.cycles,
    )

"""What goes in and out of the sampling engine while it runs programs: its ports, and those of its memory macros, cycle by cycle.

The RTL runs in the lockstep test bench, its memories being models in place of the macros, and writes every port to a file before each
clock edge.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unmask.errors import UnmaskError
from unmask.machine.config import Machine
from unmask.rtl.lockstep.generator import Case
from unmask.silicon.gates import Bits, Gates, Port

if TYPE_CHECKING:
    from unmask.isa.program import Program

# A program has run away after so many times the cycles that it should take.
_PATIENCE = 4
_FILE = "ports.txt"


@dataclass(frozen=True)
class Recording:
    """[cycles, bits] of a netlist's inputs and of its outputs, in the order of `Gates.inputs` and `Gates.outputs`, and what was run."""

    inputs: Bits
    outputs: Bits
    what: str

    def after_reset(self, ports: Sequence[Port]) -> int:
        """The first cycle before which there was a reset; 0 if the netlist has none.

        Args:
            ports: of the inputs.

        Raises:
            UnmaskError: there was no reset.
        """
        start = 0
        for port in ports:
            if port.name == "rst":
                held = np.flatnonzero(self.inputs[:, start])
                if not len(held):
                    raise UnmaskError("a recording without a reset")
                return int(held[0]) + 1
            start += len(port.nets)
        return 0


@dataclass(frozen=True)
class Run:
    """A program, and what PyTorch says it leaves in regions of its memory, INT32."""

    case: Case
    leaves: Mapping[str, NDArray[np.int32]] = field(default_factory=dict)


def record(machine: Machine, runs: Sequence[Run], what: str, gates: Gates) -> Recording:
    """Run programs on the RTL of a machine's sampling engine.

    Args:
        machine: with the ideal memory.
        runs: the programs; what: in words.
        gates: the netlist whose ports are recorded.

    Raises:
        UnmaskError: the engine can't be built or run, lacks ports of the netlist, does not do what the functional and the cycle reading
            say, or leaves other results than PyTorch.
    """
    from unmask.rtl.engine import SamplingEngine
    from unmask.rtl.lockstep.build import build, ports_header, taps_of
    from unmask.rtl.lockstep.compare import compare
    from unmask.rtl.lockstep.reference import expect
    from unmask.rtl.lockstep.runner import Job, delays_of, execute, image, outcomes
    from unmask.silicon.bench import recording_bench

    engine = SamplingEngine(machine, trace=True, black_box=True)
    text = recording_bench(engine, gates.inputs, gates.outputs, _FILE)
    program = build(text, ports_header(engine.shape.beat_bytes, engine.engines, taps_of(machine, engine))).resolve()
    cases = [run.case for run in runs]
    expected = [expect(case.program, machine, case.parameters) for case in cases]
    patience = [_PATIENCE * each.cycles + 10_000 for each in expected]
    jobs = [Job(case.program.words, image(case.program), most) for case, most in zip(cases, patience, strict=True)]
    # The bench writes to the folder that it is started in.
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        log = execute(program, jobs, delays_of(machine))
        rows = Path(_FILE).read_text().split()
    found = compare(expected, log, outcomes(log, len(jobs)), [True] * len(jobs))
    if found.value_mismatches or found.cycle_mismatches:
        raise UnmaskError(f"the RTL differs from the readings in {found.value_mismatches} values and {found.cycle_mismatches} cycles")
    for number, run in enumerate(runs):
        _check(run.case.program, log[log["program"] == number], run.leaves)
    widths = [sum(len(port.nets) for port in side) for side in (gates.inputs, gates.outputs)]
    return Recording(_unpacked(rows[0::2], widths[0]), _unpacked(rows[1::2], widths[1]), what)


def _check(program: Program, log: NDArray[Any], leaves: Mapping[str, NDArray[np.int32]]) -> None:
    """Compare what the RTL wrote with what PyTorch leaves."""
    from unmask.rtl.lockstep.reference import Space
    from unmask.rtl.lockstep.runner import image

    memory = image(program)
    writes = log[log["kind"] == Space.HBM]
    # Of equal addresses numpy keeps the last.
    memory[writes["address"].astype(np.int64)] = writes["value"].astype(np.uint8)
    for name, expected in leaves.items():
        region = program.regions[name]
        found = memory[region.address : region.address + region.size].view("<i4")
        if not np.array_equal(found, expected):
            raise UnmaskError(f"the RTL leaves {found.tolist()} in {name}, PyTorch {expected.tolist()}")


def _unpacked(rows: list[str], width: int) -> Bits:
    """Hexadecimal numbers as bits, lowest first."""
    if unknown := next((row for row in rows if not re.fullmatch("[0-9a-f]+", row)), None):
        raise UnmaskError(f"the test bench wrote {unknown[:40]!r}: expected a hexadecimal number")
    size = -(-width // 8)
    packed = np.frombuffer(bytes.fromhex("".join(row.zfill(2 * size) for row in rows)), np.uint8).reshape(len(rows), size)
    return np.unpackbits(packed[:, ::-1], axis=1, bitorder="little")[:, :width]

"""What goes in and out of the sampling engine while it runs programs: its ports, and those of its memory macros, cycle by cycle.

The RTL runs in Icarus, with models of the memories in place of the macros, and every port is written to a file before each clock edge.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unmask.errors import UnmaskError
from unmask.machine.config import Machine
from unmask.machine.cycle import time_program
from unmask.machine.functional import FunctionalMachine
from unmask.machine.memory import Ideal
from unmask.rtl.lockstep.generator import Case
from unmask.silicon.bench import PORTS, REPORT, bench, rtl_verilog
from unmask.silicon.gates import Bits, Gates, Port, places_of
from unmask.silicon.tools import run as tool

if TYPE_CHECKING:
    from unmask.isa.program import Program
    from unmask.silicon.blocks import Design

# A program has run away after so many times the cycles that it should take.
_PATIENCE = 4
# The status register after a run that ended in HALT.
_DONE = 2


BUSY = "busy"
"""The output of an engine that says so while it runs a program."""


@dataclass(frozen=True)
class Recording:
    """What went in and out.

    Attributes:
        inputs, outputs: [cycles, bits], in the order of `Gates.inputs` and `Gates.outputs`.
        what: was run.
        running: [cycles] in which the unit is at work, if its `BUSY` does not say so.
    """

    inputs: Bits
    outputs: Bits
    what: str
    running: NDArray[np.bool_] | None = None

    def column(self, ports: Sequence[Port], name: str) -> NDArray[np.uint8] | None:
        """[cycles], the lowest bit of a port; None if there is no such port.

        Args:
            ports: of the inputs, or of the outputs.
        """
        place = places_of(ports).get(name)
        if place is None:
            return None
        side = self.inputs if ports[0].direction == "input" else self.outputs
        return np.asarray(side[:, place.start], np.uint8)

    def busy(self, ports: Sequence[Port]) -> NDArray[np.bool_]:
        """[cycles] in which the unit is at work: all, of a netlist that does not say so.

        Args:
            ports: of the outputs.
        """
        if self.running is not None:
            return self.running
        said = self.column(ports, BUSY)
        return np.ones(len(self.outputs), np.bool_) if said is None else said.astype(np.bool_)

    def after_reset(self, ports: Sequence[Port]) -> int:
        """The first cycle before which there was a reset; 0 if the netlist has none.

        Args:
            ports: of the inputs.

        Raises:
            UnmaskError: there was no reset.
        """
        reset = self.column(ports, "rst")
        if reset is None:
            return 0
        held = np.flatnonzero(reset)
        if not len(held):
            raise UnmaskError("a recording without a reset")
        return int(held[0]) + 1


@dataclass(frozen=True)
class Run:
    """A program, and what PyTorch says it leaves in regions of its memory, INT32."""

    case: Case
    leaves: Mapping[str, NDArray[np.int32]] = field(default_factory=dict)


def record(
    machine: Machine, runs: Sequence[Run], what: str, gates: Gates, folder: Path, whole: Design | None = None, place: Sequence[str] = ()
) -> Recording:
    """Run programs on the RTL of a machine's sampling engine, or of its NPU.

    Args:
        machine: with the ideal memory.
        runs: the programs; what: in words.
        gates: the netlist whose ports are recorded.
        folder: for the files, which lie in one of their own within it until the recording has succeeded.
        whole: the design that runs, if the netlist is not all of it.
        place: the instances that lead from there to the netlist's unit.

    Raises:
        UnmaskError: the engine can't be run, lacks ports of the netlist, leaves other results than the functional reading or PyTorch, or
            takes other cycles than the cycle reading.
    """
    from unmask.rtl.lockstep.runner import delays_of

    if not isinstance(machine.hbm, Ideal):
        raise UnmaskError(f"machine {machine.name} has DRAM: a recording is of a machine with the ideal memory")
    folder.mkdir(parents=True, exist_ok=True)
    # Others may be recording there, too.
    folder = Path(tempfile.mkdtemp(dir=folder))
    programs = [run.case.program for run in runs]
    beat, timings, sizes = machine.hbm.beat_bytes, [], []
    for number, run in enumerate(runs):
        words = np.ascontiguousarray(run.case.program.words, "<u8").view("<u4").reshape(-1)
        memory = run.case.program.image()
        _write_hex(folder / f"program_{number}.hex", words.view(np.uint8), 4)
        _write_hex(folder / f"memory_{number}.hex", memory, beat)
        timings.append(time_program(run.case.program, machine, parameters=run.case.parameters).cycles)
        sizes.append((len(words), memory.size, _PATIENCE * timings[-1] + 10_000))
    design = whole or gates.design
    rtl, modules = rtl_verilog(design)
    text = bench(design, modules, gates.inputs, gates.outputs, beat, delays_of(machine), sizes, place)
    (folder / "bench.v").write_text("\n".join([rtl, text]))
    tool("iverilog", ["-g2005", "-s", "bench", "-o", "bench.vvp", "bench.v"], folder)
    tool("vvp", ["-n", "bench.vvp"], folder)
    for number, (line, cycles) in enumerate(zip((folder / REPORT).read_text().splitlines(), timings, strict=True)):
        status, pc, taken = map(int, line.split())
        if status != _DONE or taken != cycles % 2**32:
            raise UnmaskError(f"program {number}: status {status:#x} at {pc} after {taken} cycles, expected {_DONE:#x} after {cycles}")
    for number, (run, program) in enumerate(zip(runs, programs, strict=True)):
        _check(f"program {number}", program, machine, _read_hex(folder / f"left_{number}.hex", beat), run.leaves)
    rows = (folder / PORTS).read_text().split()
    widths = [sum(len(port.nets) for port in side) for side in (gates.inputs, gates.outputs)]
    shutil.rmtree(folder)
    return Recording(_unpacked(rows[0::2], widths[0]), _unpacked(rows[1::2], widths[1]), what)


def _check(name: str, program: Program, machine: Machine, left: NDArray[np.uint8], leaves: Mapping[str, NDArray[np.int32]]) -> None:
    """Compare the memory that the RTL left with that of the functional reading, and with what PyTorch leaves in regions of it."""
    reading = FunctionalMachine(program, machine)
    reading.run(next(iter(program.entries)))
    expected = reading.state.hbm
    if (wrong := np.flatnonzero(left[: expected.size] != expected)).size:
        raise UnmaskError(f"{name}: the RTL differs from the functional reading in {wrong.size} bytes of memory, the first at {wrong[0]}")
    for region_name, theirs in leaves.items():
        region = program.regions[region_name]
        found = left[region.address : region.address + region.size].view("<i4")
        if not np.array_equal(found, theirs):
            raise UnmaskError(f"{name}: the RTL leaves {found.tolist()} in {region_name}, PyTorch {theirs.tolist()}")


def _write_hex(path: Path, content: NDArray[np.uint8], size: int) -> None:
    """Words of so many bytes, the lowest byte first in memory and last in the file, filled up with zeros."""
    words = np.zeros((-(-content.size // size), size), np.uint8)
    words.reshape(-1)[: content.size] = content
    path.write_text("\n".join([*(row[::-1].tobytes().hex() for row in words), ""]))


def _read_hex(path: Path, size: int) -> NDArray[np.uint8]:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("//")]
    return np.frombuffer(bytes.fromhex("".join(lines)), np.uint8).reshape(-1, size)[:, ::-1].reshape(-1).copy()


def _unpacked(rows: list[str], width: int) -> Bits:
    """Hexadecimal numbers as bits, lowest first."""
    if unknown := next((row for row in rows if not re.fullmatch("[0-9a-f]+", row)), None):
        raise UnmaskError(f"the test bench wrote {unknown[:40]!r}: expected a hexadecimal number")
    size = -(-width // 8)
    packed = np.frombuffer(bytes.fromhex("".join(row.zfill(2 * size) for row in rows)), np.uint8).reshape(len(rows), size)
    return np.unpackbits(packed[:, ::-1], axis=1, bitorder="little")[:, :width]

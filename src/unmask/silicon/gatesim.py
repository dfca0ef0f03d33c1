"""A mapped netlist against its RTL, every output in every cycle after reset."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.machine.config import Machine
from unmask.silicon import icarus
from unmask.silicon.gates import Bits, Gates, Port, places_of
from unmask.silicon.liberty import Library
from unmask.silicon.measure import random_inputs
from unmask.silicon.recording import Recording
from unmask.silicon.reference import rtl_outputs
from unmask.silicon.sizing import sized
from unmask.silicon.synthesis import synthesize
from unmask.silicon.units import unit_named

# The cycles of reset that random inputs begin with.
RESET = 4
# Data of a memory macro's write port (`unmask.silicon.blocks`), whose mask has a bit for so many.
_WRITE_DATA = re.compile(r"__w\d+_data$")
# Cycles after which registers without a reset, which load in every other cycle or so, hold what came in.
SETTLE = 100
# Power-up states of the flip-flops that are tried.
POWER_UPS = 2


@dataclass(frozen=True)
class Comparison:
    """A netlist and its RTL.

    Attributes:
        cycles, compared: cycles that were run and output bits that were compared, of all power-up states: all but the data of a memory
            macro's write port where its mask is off.
        mismatches: bits that differ; an unknown value of the four-valued simulation is one.
        first: where the first one is, or nothing.
        simulators: what ran the netlist.
        inputs: what was run.
    """

    unit: str
    vlen: int
    library: str
    cells: int
    cycles: int
    compared: int
    mismatches: int
    first: str
    simulators: list[str]
    inputs: str
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def compare(
    name: str,
    machine: Machine,
    library: Library,
    clock_ps: float,
    cache: Path,
    *,
    cycles: int,
    seed: int = 0,
    with_icarus: bool = False,
    quick: bool = False,
    recorded: Callable[[Gates], Recording] | None = None,
) -> Comparison:
    """Run a unit's netlist, from several random states of its flip-flops, on what its RTL was run on.

    Args:
        name: of the unit; machine: that it is built for; clock_ps: what it is mapped for; cache: folder of results.
        cycles: of random inputs, if nothing is recorded.
        seed: of the inputs and the power-up states.
        with_icarus: run it in Icarus too, from unknown states.
        quick: map it with little effort.
        recorded: makes the recording of a run of the RTL for the netlist's ports.

    Raises:
        UnmaskError: an unknown unit, a tool that is missing or fails; a unit that can't be simulated by itself and nothing recorded.
    """
    started = time.perf_counter()
    unit = unit_named(name)
    netlist = synthesize(unit.build(machine), name, library, clock_ps, cache, flat=unit.flat, quick=quick)
    if not quick:
        netlist = sized(netlist, clock_ps)
    gates = Gates(netlist)
    if recorded is None:
        start, inputs = RESET + SETTLE, f"{cycles} cycles of random inputs"
        stimulus = random_inputs(gates, cycles + start, seed, RESET)
        expected = rtl_outputs(unit.build(machine), gates.inputs, gates.outputs, stimulus[RESET:])[SETTLE:]
    else:
        run = recorded(gates)
        start, inputs = run.after_reset(gates.inputs), run.what
        stimulus, expected = run.inputs, run.outputs[start:]
    runs = {f"levels, power-up state {index}": gates.run(stimulus, seed=seed + index)[0] for index in range(POWER_UPS)}
    if with_icarus:
        runs["icarus"] = icarus.simulate(netlist, gates, stimulus, netlist.folder / "icarus")
    mismatches, first, cared = 0, "", _cared(gates.outputs, expected)
    for simulator, seen in runs.items():
        wrong = (seen[start:] != expected) & cared
        mismatches += int(np.count_nonzero(wrong))
        if not first and wrong.any():
            cycle, bit = (int(index[0]) for index in np.nonzero(wrong))
            port, position = _port_of(gates, bit)
            values = f"{seen[start + cycle, bit]}, RTL {expected[cycle, bit]}"
            first = f"{port} bit {position} in cycle {cycle} after reset, {simulator}: {values}"
    return Comparison(
        unit=name,
        vlen=machine.vector.vlen,
        library=library.name,
        cells=netlist.cells,
        cycles=len(expected) * len(runs),
        compared=int(np.count_nonzero(cared)) * len(runs),
        mismatches=mismatches,
        first=first,
        simulators=list(runs),
        inputs=inputs,
        seconds=time.perf_counter() - started,
    )


def _cared(outputs: Sequence[Port], expected: Bits) -> NDArray[np.bool_]:
    """[cycles, bits] of the outputs that mean something: not the data of a macro's write port where its mask is off.

    There is what a table without a reset holds before it is written, which the RTL calls 0.
    """
    cared = np.ones(expected.shape, np.bool_)
    places = places_of(outputs)
    for port in outputs:
        masks = places.get(port.name.removesuffix("data") + "mask")
        if _WRITE_DATA.search(port.name) and masks is not None:
            mask = expected[:, masks]
            cared[:, places[port.name]] = np.repeat(mask, len(port.nets) // mask.shape[1], axis=1)
    return cared


def _port_of(gates: Gates, bit: int) -> tuple[str, int]:
    """The output port, and the bit in it, of a column of the outputs."""
    for port in gates.outputs:
        if bit < len(port.nets):
            return port.name, bit
        bit -= len(port.nets)
    raise IndexError(bit)

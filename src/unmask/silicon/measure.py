"""Area, timing and power of a unit, in one record."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unmask.machine.config import Machine
from unmask.silicon.gates import Bits, Gates, places_of
from unmask.silicon.liberty import Library
from unmask.silicon.places import TREES, Places, part_of
from unmask.silicon.recording import Recording
from unmask.silicon.sizing import sized
from unmask.silicon.synthesis import Netlist, synthesize
from unmask.silicon.timing import Analysis, analyse
from unmask.silicon.units import unit_named

SIZES = "other sizes"
"""What the area of gates that `unmask.silicon.sizing` has changed is more than that of the gates before is called among the blocks."""
# Cycles of random inputs where no run was recorded, and those before counting starts.
RANDOM_CYCLES, WARM_UP = 1024, 64


@dataclass(frozen=True)
class BlockFigures:
    """Part of a unit that is mapped by itself, without the blocks inside it; and `TREES` and `SIZES`, which lie between them.

    Attributes:
        instances: how often it stands in the unit. cells, area_um2: of one. macro_bits: of a memory macro.
        wns_ps: worst slack of the paths that end in it, wherever they start; None where none does.
        power_mw: of all its instances.
    """

    name: str
    instances: int
    cells: int
    area_um2: float
    macro_bits: int
    wns_ps: float | None
    power_mw: float


@dataclass(frozen=True)
class Part:
    """An instance, with all that is in it but other parts; the top module's own cells have no name."""

    name: str
    area_um2: float
    power_mw: float


@dataclass(frozen=True)
class Measurement:
    """A unit in standard cells, before layout: no wires, an ideal clock without a tree, no memory macros.

    Attributes:
        area_um2: of standard cells, in the library's unit of area.
        wns_ps: worst slack; below 0 the clock is missed.
        critical: from where to where the worst path goes, and through how many cells.
        power_mw: at the activity: internal_mw inside cells, switching_mw on their outputs, leakage_mw; clock_mw of it in clock pins, clock
            gates and gated clocks, registers_mw in flip-flops, their clock pins included.
        clock_gates: number of them. clocked: share of the flip-flops' clock pulses that were not stopped.
        activity, cycles: what the power is at, and of how many cycles: of an engine, those in which a program runs.
        macro_bits: of memories that are not in area, timing and power.
        seconds: what the measurement took.
    """

    unit: str
    vlen: int
    lanes: int
    clock_ps: float
    library: str
    cells: int
    registers: int
    area_um2: float
    area_um2_per_lane: float
    wns_ps: float | None
    critical: str
    power_mw: float
    power_mw_per_lane: float
    internal_mw: float
    switching_mw: float
    leakage_mw: float
    registers_mw: float
    clock_mw: float
    clock_gates: int
    clocked: float
    activity: str
    cycles: int
    macro_bits: int
    seconds: float
    parts: list[Part]
    blocks: list[BlockFigures]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def measure(
    name: str, machine: Machine, library: Library, clock_ps: float, cache: Path, recorded: Callable[[Gates], Recording] | None = None
) -> Measurement:
    """Synthesize a unit, time it, and add up its power.

    Args:
        name: of the unit.
        machine: that it is built for.
        clock_ps: period, picoseconds.
        cache: folder of results.
        recorded: makes the recording of a run of the RTL for the netlist's ports, which power is at; by default random inputs.

    Raises:
        UnmaskError: an unknown unit, a tool that is missing or fails, a stimulus that does not fit.
    """
    started = time.perf_counter()
    unit = unit_named(name)
    netlist = sized(synthesize(unit.build(machine), name, library, clock_ps, cache, flat=unit.flat), clock_ps)
    gates = Gates(netlist)
    if recorded is None:
        stimulus, activity = random_inputs(gates, RANDOM_CYCLES), f"{RANDOM_CYCLES} cycles of random inputs"
        counted = np.ones(RANDOM_CYCLES, np.bool_)
    else:
        run = recorded(gates)
        stimulus, activity, counted = run.inputs, run.what, run.busy(gates.outputs)
    _, toggles = gates.run(stimulus, skip=WARM_UP, only=counted)
    cycles = int(np.count_nonzero(counted[WARM_UP + 1 :]))
    rates = toggles / max(cycles, 1)
    analysis = analyse(netlist, gates, clock_ps, netlist.folder / f"{clock_ps:g}", rates)
    lanes, path, power, places = unit.lanes(machine), analysis.critical, analysis.power, Places(netlist)
    return Measurement(
        unit=name,
        vlen=machine.vector.vlen,
        lanes=lanes,
        clock_ps=clock_ps,
        library=netlist.library.name,
        cells=netlist.cells,
        registers=netlist.registers,
        area_um2=netlist.area,
        area_um2_per_lane=netlist.area / lanes,
        wns_ps=path.slack_ps if path else None,
        critical=f"{path.start} to {path.end}, {path.levels} cells" if path else "no path",
        power_mw=power.total_mw,
        power_mw_per_lane=power.total_mw / lanes,
        internal_mw=power.internal_mw,
        switching_mw=power.switching_mw,
        leakage_mw=power.leakage_mw,
        registers_mw=power.registers_mw,
        clock_mw=power.clock_mw,
        clock_gates=len(gates.clock_gates),
        clocked=gates.clocked(rates),
        activity=activity,
        cycles=cycles,
        macro_bits=netlist.macro_bits,
        seconds=time.perf_counter() - started,
        parts=_parts(gates, analysis, unit.opened),
        blocks=_blocks(netlist, gates, places, analysis),
    )


def random_inputs(gates: Gates, cycles: int, seed: int = 0, reset: int = 4) -> Bits:
    """[cycles, bits] of a netlist's inputs: a reset of some cycles, then random bits."""
    places = places_of(gates.inputs)
    width = sum(len(port.nets) for port in gates.inputs)
    bits = np.random.default_rng(seed).integers(0, 2, (cycles, width), dtype=np.uint8)
    if "rst" in places:
        bits[:, places["rst"].start] = np.arange(cycles) < reset
    return bits


def _parts(gates: Gates, analysis: Analysis, opened: frozenset[str]) -> list[Part]:
    areas: dict[str, float] = {}
    watts: dict[str, float] = {}
    for (name, kind, _), own in zip(gates.instances, analysis.power.cells_mw, strict=True):
        part = part_of(name, opened)
        areas[part] = areas.get(part, 0.0) + gates.library.cells[kind].area
        watts[part] = watts.get(part, 0.0) + float(own)
    return [Part(name, area, watts[name]) for name, area in sorted(areas.items(), key=lambda item: -item[1])]


def _blocks(netlist: Netlist, gates: Gates, places: Places, analysis: Analysis) -> list[BlockFigures]:
    owners = [places.block_of(name) for name, _, _ in gates.instances]
    watts = dict.fromkeys([TREES, *(block.name for block in netlist.blocks)], 0.0)
    for owner, own in zip(owners, analysis.power.cells_mw, strict=True):
        watts[owner] += float(own)
    slacks: dict[str, float] = {}
    for position, slack in analysis.slacks_ps.items():
        slacks[owners[position]] = min(slack, slacks.get(owners[position], slack))
    figures = [
        (block.name, block.instances, sum(block.cells.values()), block.area(netlist.library), block.bits) for block in netlist.blocks
    ]
    figures.append((TREES, 1, sum(netlist.trees.values()), netlist.area_of_trees, 0))
    found = [BlockFigures(*each, slacks.get(each[0]), watts[each[0]]) for each in figures]
    return [*found, BlockFigures(SIZES, 1, 0, netlist.area_of_sizes, 0, None, 0.0)]

"""The energy of what was counted: the sum over events of their prices, what idle parts of the clock take, and leakage times time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

from unmask.machine.config import MATRIX_FORMATS, Machine
from unmask.machine.memory import Dram
from unmask.silicon.cost.area import area_of, logic_area_of, port_bytes
from unmask.silicon.cost.events import Counts
from unmask.silicon.cost.sram import memories_of
from unmask.silicon.cost.table import Costs, Interface

FEMTO, PICO, NANO = 1e-15, 1e-12, 1e-9
PARTS = (
    "sequencer",
    "load",
    "store",
    "matrix",
    "vector",
    "vector_sram",
    "matrix_sram",
    "float_sram",
    "integer_sram",
    "program_sram",
    "wires",
    "memory_interface",
    "hbm",
    "idle_clock",
    "leakage",
)
"""Where energy goes: what an engine computes, what a memory's accesses take, the way between them, the die's side of the DRAM and the DRAM,
the clock of what does nothing, and leakage. `hbm` is off the die."""
IDEAL = "hbm2e"
"""What an ideal memory, which is no technology, is priced as."""


@dataclass(frozen=True)
class Energy:
    """Joules of a run.

    Attributes:
        seconds: how long it took.
        by_part: by one of `PARTS`.
        by_phase: of the phases, without what time alone takes (`idle_clock`, `leakage`).
    """

    seconds: float
    by_part: Mapping[str, float]
    by_phase: Mapping[str, float]

    @property
    def total_j(self) -> float:
        """All of it."""
        return sum(self.by_part.values())

    @property
    def power_w(self) -> float:
        """On average over the run."""
        return self.total_j / self.seconds


def interface_of(machine: Machine, costs: Costs) -> Interface:
    """Prices of the machine's memory technology; those of `IDEAL` where the memory is an ideal one."""
    return costs.memory[machine.hbm.device if isinstance(machine.hbm, Dram) else IDEAL]


def prices_of(machine: Machine, costs: Costs) -> dict[str, dict[str, float]]:
    """Joules of an event, by its name and by the part that takes them."""
    logic = costs.layout.energy * FEMTO
    vector, matrix, dma = costs.vector.energy_fj, costs.matrix, costs.dma
    prices = {f"vector.{name}": {"vector": value * logic} for name, value in vector.model_dump().items()} | {"vector.busy": {}}
    product = max(costs.multiplier(machine.formats.activations, form).energy_fj for form in machine.formats.stored[:MATRIX_FORMATS])
    # Multipliers that take a wide format too take as much for a narrow one, by bench/mac_cost.py --pairs mxint8:mxfp4+mxint8.
    prices |= {f"matrix.mac.{form}": {"matrix": product * logic} for form in machine.formats.stored}
    for name in ("tail", "quantize", "round"):
        prices[f"matrix.{name}"] = {"matrix": getattr(matrix, f"{name}_fj") * logic}
    interface = interface_of(machine, costs)
    for engine in ("load", "store"):
        prices[f"{engine}.element"] = {engine: dma.element_fj * logic}
        prices[f"{engine}.hbm_bytes"] = {
            engine: dma.byte_fj * logic,
            "memory_interface": 8 * interface.phy_pj * PICO,
            "hbm": 8 * interface.device_pj * PICO,
        }
    prices["sequencer.instruction"] = {"sequencer": costs.sequencer.instruction_fj * logic}
    # From a memory to its engine and back: half the side of a square that both fill.
    areas = area_of(machine, costs)
    engines = {"vector": areas["vector"], "matrix": areas["matrix"]}
    for name, sram in memories_of(machine, costs.sram).items():
        millimetres = sqrt(areas[f"{name}_sram"] + engines.get(name, 0.0)) / 2
        for kind, energy in (("read", sram.read_fj), ("write", sram.write_fj)):
            prices[f"{name}_sram.{kind}"] = {f"{name}_sram": energy * FEMTO, "wires": millimetres * costs.wires.bit_mm_fj * FEMTO}
    return prices


def energy_of(counts: Counts, costs: Costs) -> Energy:
    """The energy of counted events by a table of prices.

    Every event costs what `prices_of` says, whatever the values; a cycle in which a lane does nothing costs what its clock gates leave, one
    in which a multiplier does nothing the share of its clock that they would leave, and so does every cycle of what stands in an engine
    once; leakage goes on all the time. What a gate-level power run measures is this for its events, with `layout.ungated` = 1
    (bench/gate_energy.py).

    Args:
        counts: of one or several runs.
        costs: the table.
    """
    machine = counts.machine
    prices = prices_of(machine, costs)
    parts: Counter[str] = Counter(dict.fromkeys(PARTS, 0.0))  # type: ignore[arg-type]
    phases: dict[str, float] = {}
    for (phase, event), number in counts.events.items():
        for part, price in prices[event].items():
            parts[part] += number * price  # type: ignore[assignment]
            phases[phase] = phases.get(phase, 0.0) + number * price
    seconds = counts.cycles * NANO / machine.clock_ghz
    clocks = sum(idle_of(counts, costs).values())
    parts["idle_clock"] = clocks  # type: ignore[assignment]
    parts["leakage"] = leakage_of(machine, costs) * seconds  # type: ignore[assignment]
    return Energy(seconds, dict(parts), phases)


def leakage_of(machine: Machine, costs: Costs) -> float:
    """Watts that the die takes whatever it does."""
    logic = sum(logic_area_of(machine, costs).values()) * costs.layout.leakage_nw_um2 * NANO
    return logic + sum(memory.leakage_w for memory in memories_of(machine, costs.sram).values())


def idle_of(counts: Counts, costs: Costs) -> dict[str, float]:
    """Joules of clocks by engine: of lanes and multipliers in the cycles in which they do nothing, of the rest in all."""
    machine, totals, clock, dma = counts.machine, counts.totals, costs.vector.clock_fj, costs.dma
    vector, cycles, bytes_ = machine.vector, counts.cycles, port_bytes(machine)
    products = sum(number for event, number in totals.items() if event.startswith("matrix.mac."))
    lanes = max(vector.vlen * cycles - totals.get("vector.busy", 0), 0) * costs.vector.idle_fj
    once = clock.scalar + clock.control + vector.integer_lanes * clock.integer + vector.sorter * clock.sorter
    ungated = {
        "matrix": max(machine.peak_multiplies * cycles - products, 0) * _widest_multiplier(machine, costs),
        "vector": cycles * once,
        "load": cycles * (dma.load_fj + bytes_ * dma.load_byte_fj),
        "store": cycles * (dma.store_fj + bytes_ * dma.store_byte_fj),
        "sequencer": cycles * costs.sequencer.idle_fj,
    }
    found = {engine: energy * costs.layout.ungated for engine, energy in ungated.items()}
    found["vector"] += lanes
    return {engine: energy * costs.layout.energy * FEMTO for engine, energy in found.items()}


def _widest_multiplier(machine: Machine, costs: Costs) -> float:
    """Femtojoules of a cycle without a product, of the multiplier that the machine's formats ask for."""
    formats = machine.formats
    return max(costs.multiplier(formats.activations, form).idle_fj for form in (formats.weights, formats.kv))

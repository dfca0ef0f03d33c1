"""The area of a machine's die, block by block."""

from __future__ import annotations

from unmask.machine.config import Machine
from unmask.machine.memory import Dram, Ideal
from unmask.numerics import mx
from unmask.silicon.cost.sram import memories_of
from unmask.silicon.cost.table import Costs

UM2_PER_MM2 = 1e6


def port_bytes(machine: Machine) -> float:
    """Bytes per cycle of the ports of either DMA engine."""
    return machine.hbm.bytes_per_cycle if isinstance(machine.hbm, Ideal) else machine.hbm.ports * machine.hbm.beat_bytes


def logic_area_of(machine: Machine, costs: Costs) -> dict[str, float]:
    """Square micrometres of the cells of each engine, before layout."""
    vector, array, formats = machine.vector, machine.matrix, machine.formats
    per_lane = costs.vector.area_um2
    lanes = per_lane.lane + per_lane.noise + per_lane.max + per_lane.window
    multiplier = max(costs.multiplier(formats.activations, form).area_um2 for form in (formats.weights, formats.kv))
    # A pass of `blen` cycles leaves `blen` x `blen` sums of each block in `mlen / blen` sub-arrays of a row: `mlen` or more a cycle.
    tails = array.rows * array.mlen * max(array.blen // mx.BLOCK, 1)
    return {
        "sequencer": costs.sequencer.area_um2,
        "dma": 2 * port_bytes(machine) * costs.dma.area_um2,
        "matrix": machine.peak_multiplies * multiplier + tails * costs.matrix.tail_um2 + array.mlen * costs.matrix.quantize_um2,
        "vector": vector.vlen * lanes
        + vector.sorter * per_lane.sorter
        + per_lane.scalar
        + per_lane.control
        + vector.integer_lanes * per_lane.integer
        + vector.accumulators * per_lane.accumulator,
    }


def area_of(machine: Machine, costs: Costs) -> dict[str, float]:
    """Square millimetres by block: engines at the utilization of a floorplan, memories, and the interface to the DRAM.

    An ideal memory has no interface. Nothing is counted for what the model does not have: a host interface, power delivery, test.
    """
    logic = {name: area / UM2_PER_MM2 / costs.layout.utilization for name, area in logic_area_of(machine, costs).items()}
    memories = {f"{name}_sram": memory.area_mm2 for name, memory in memories_of(machine, costs.sram).items()}
    interface = machine.hbm.devices * costs.memory[machine.hbm.device].area_mm2 if isinstance(machine.hbm, Dram) else 0.0
    return {**logic, **memories, "memory_interface": interface}

"""The most that a machine can take: every unit busy in every cycle, the memory at its data sheet's bandwidth."""

from __future__ import annotations

from unmask.machine.config import Machine
from unmask.numerics import mx
from unmask.silicon.cost.energy import energy_of
from unmask.silicon.cost.events import Counts
from unmask.silicon.cost.sram import BF16_BITS, INSTRUCTION_BITS, block_bits
from unmask.silicon.cost.table import Costs

CYCLES = 1000
_INSTRUCTIONS = {"V_SAMPLE": (("function", "noise", "max", "window"), 1, 0), "V_ADD": (("lane",), 2, 1)}
"""What takes most of the lanes, and of their memory: parts that work, vectors read and written."""


def busiest(machine: Machine, costs: Costs) -> Counts:
    """Events of some cycles in which the array multiplies, the lanes sample or add, and memories and DRAM give all they can."""
    return max((_busy(machine, costs, name) for name in _INSTRUCTIONS), key=lambda counts: energy_of(counts, costs).total_j)


def _busy(machine: Machine, costs: Costs, instruction: str) -> Counts:
    parts, reads, writes = _INSTRUCTIONS[instruction]
    array, vector, formats = machine.matrix, machine.vector, machine.formats
    form = max((formats.weights, formats.kv), key=lambda name: costs.multiplier(formats.activations, name).energy_fj)
    events = {
        f"matrix.mac.{form}": machine.peak_multiplies,
        "matrix.tail": machine.peak_multiplies // min(array.blen, mx.BLOCK),
        "matrix.quantize": array.mlen,
        **{f"vector.{name}": vector.vlen for name in (*parts, "busy")},
        "vector_sram.read": (reads * vector.vlen + array.mlen) * BF16_BITS,
        "vector_sram.write": writes * vector.vlen * BF16_BITS,
        "matrix_sram.read": array.rows * array.mlen // mx.BLOCK * block_bits(form),
        "load.hbm_bytes": machine.memory_gbps / machine.clock_ghz,
        "sequencer.instruction": 1,
        "program_sram.read": INSTRUCTION_BITS,
    }
    return Counts(machine, CYCLES, {("peak", event): round(number * CYCLES) for event, number in events.items()})


def peak_power_of(machine: Machine, costs: Costs) -> float:
    """Watts of `busiest`: what has to be supplied and cooled, to be set beside a GPU's board power."""
    return energy_of(busiest(machine, costs), costs).power_w

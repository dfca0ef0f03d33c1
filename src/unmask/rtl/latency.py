"""How long the vector engine's instructions take: the figures of the cycle reading, and nowhere else."""

from __future__ import annotations

from unmask.errors import UnmaskError
from unmask.isa.encoding import Op
from unmask.isa.row import Cost, Kind
from unmask.isa.table import INSTRUCTIONS
from unmask.machine.config import Machine
from unmask.machine.costs import cost_of
from unmask.rtl.topk import MASK_REGISTERS

SHORTEST = 3
"""A cycle to read, one to write, and one between the two."""


def shortest(cost: Cost) -> int:
    """The least latency that hardware can have, cycles: `SHORTEST`, but for masks, whose last entry has further registers to pass."""
    return SHORTEST - 1 + MASK_REGISTERS if cost is Cost.TOPK else SHORTEST


def latency_of(cost: Cost, machine: Machine) -> int:
    """Cycles from the end of an instruction's occupancy to its end, for a cost class of the vector engine.

    Raises:
        UnmaskError: the machine's is shorter than any hardware's.
    """
    row = next(row for row in INSTRUCTIONS if row.cost is cost)
    operands = {spec.name: 0.0 if spec.kind in (Kind.FP32, Kind.BF16) else 1 for spec in row.fields}
    cycles = cost_of(Op(row.name, operands), machine).latency
    if cycles < (least := shortest(cost)):
        raise UnmaskError(f"machine {machine.name}: {cost.name.lower()} latency {cycles}: expected at least {least} for hardware")
    return cycles

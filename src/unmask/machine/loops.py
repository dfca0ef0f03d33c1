"""Which loops may be skipped by the cycle reading once their iterations repeat, and on which registers their time depends.

An iteration's time depends on the state of queues, engines and semaphores and, before an ideal memory, on where in a beat its transfers
begin: on the low bits of some registers, which follow from their own low bits alone unless a word of the integer SRAM is loaded. DRAM also
depends on rows, buses and refresh, which do not repeat with a loop: there only loops that move nothing may be skipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unmask.isa.encoding import Op
from unmask.isa.table import Cost
from unmask.machine.config import Machine
from unmask.machine.dma import is_dma, transfer_of
from unmask.machine.memory import Ideal

_FREE = frozenset({"S_LD", "HALT"})
"""Instructions whose loops are walked: a loaded word is as free as the address it is at; a loop that halts has no other iteration."""


def skippable(ops: Sequence[Op], ends: Mapping[int, int], machine: Machine) -> dict[int, int]:
    """The loops that may be skipped: by the index of their END, the registers that their time depends on, a bit each.

    Args:
        ends: index of the END of every LOOP.
    """
    found = {}
    for start, end in ends.items():
        body = ops[start + 1 : end]
        registers = _addresses(body, machine)
        if registers is not None and not any(op.name in _FREE for op in body):
            found[end] = sum(1 << number for number in _closure(body, registers))
    return found


def _addresses(body: Sequence[Op], machine: Machine) -> set[int] | None:
    """Registers that transfers begin at, or None if their time depends on more than the low bits of these."""
    transfers = [(op, transfer_of(op, machine)) for op in body if is_dma(op)]
    if not transfers:
        return set()
    memory = machine.hbm
    if not isinstance(memory, Ideal) or memory.beat_bytes & (memory.beat_bytes - 1):
        return None
    registers = set()
    for op, transfer in transfers:
        if op.row.cost is Cost.GATHER and transfer.stride % memory.beat_bytes:
            return None
        registers.add(transfer.address)
        if transfer.scale_size:
            registers.add(transfer.scale_address)
    return registers


def _closure(body: Sequence[Op], registers: set[int]) -> set[int]:
    """These registers and all from which the body's instructions compute them."""
    known = set(registers)
    while True:
        sources = {int(op.operands[name]) for op in body if op.operands.get("rd") in known for name in ("rs", "rt") if name in op.operands}
        if sources <= known:
            return known
        known |= sources

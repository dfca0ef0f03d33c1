"""Ports of the on-chip memories: which of those that have too few an instruction touches, and who knows of none.

A memory with a port for each engine that uses it never makes one wait. Where it has fewer (`Sram.scarce_ports`), an engine holds a port
from the start of an instruction that touches the memory to its end; load, store and matrix, which are pipelined, as long as any such
instruction is under way. An instruction starts only when its engine has, or can have, a port of every memory that it touches. Of several
that could start in a cycle the first of load, store, matrix and vector does, then the next if a port is left.
"""

from __future__ import annotations

from unmask.errors import UnmaskError
from unmask.isa.encoding import Op
from unmask.isa.table import REGISTER_COUNT
from unmask.machine.access import accesses
from unmask.machine.config import PORT_USERS, Machine

_NO_REGISTERS = (0,) * REGISTER_COUNT


def touches(op: Op, machine: Machine) -> int:
    """The memories of `Sram.scarce_ports` that an engine's instruction touches, a bit each, in their order.

    Raises:
        UnmaskError: what `unmask.machine.access.accesses` raises.
    """
    scarce = machine.sram.scarce_ports
    if not scarce:
        return 0
    spaces = {access.space for access in accesses(op, _NO_REGISTERS, machine)}
    return sum(1 << number for number, memory in enumerate(scarce) if memory in spaces)


def require_all_ports(machine: Machine, reason: str) -> None:
    """Check that no engine of a machine ever waits for a port.

    Raises:
        UnmaskError: names the field, the ports that are wanted, and `reason`, who wants them.
    """
    for memory, ports in machine.sram.scarce_ports.items():
        users = PORT_USERS[memory]
        names = ", ".join(engine.name.lower() for engine in users)
        raise UnmaskError(f"machine {machine.name}: sram.{memory}_ports {ports}: expected {len(users)} ({names}): {reason}")

"""A machine as it is built for the test bench."""

from __future__ import annotations

from unmask.errors import UnmaskError
from unmask.machine.config import Machine
from unmask.machine.memory import Ideal


def bench_machine(machine: Machine, vlen: int | None = None) -> Machine:
    """A machine with as many lanes as asked for, and a memory of a beat per cycle.

    Raises:
        UnmaskError: the lanes do not fit the machine's other sizes, or its memory is DRAM.
    """
    if not isinstance(machine.hbm, Ideal):
        raise UnmaskError(f"machine {machine.name} has DRAM: the test bench knows the ideal memory only")
    described = machine.model_dump()
    if vlen is not None:
        described["vector"]["vlen"] = vlen
        described["vector"]["granule"] = min(vlen, machine.vector.granule)
    described["hbm"]["bytes_per_cycle"] = machine.hbm.beat_bytes
    try:
        return Machine.model_validate(described)
    except ValueError as error:
        raise UnmaskError(f"vlen {vlen}: {' '.join(str(error).split())}") from None

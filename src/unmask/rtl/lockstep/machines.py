"""A machine as it is built for the test bench."""

from __future__ import annotations

from unmask.errors import UnmaskError
from unmask.machine.config import Machine
from unmask.machine.memory import Dram, Ideal


def bench_machine(machine: Machine, vlen: int | None = None) -> Machine:
    """A machine with as many lanes as asked for, and an ideal memory of a beat per cycle or DRAM behind one port.

    Raises:
        UnmaskError: the lanes do not fit the machine's other sizes, or its memory has more than one port.
    """
    if isinstance(machine.hbm, Dram) and machine.hbm.ports != 1:
        raise UnmaskError(f"machine {machine.name}: hbm.ports {machine.hbm.ports}: expected 1, the one wide port of the hardware")
    described = machine.model_dump()
    if vlen is not None:
        described["vector"]["vlen"] = vlen
        described["vector"]["granule"] = min(vlen, machine.vector.granule)
    if isinstance(machine.hbm, Ideal):
        described["hbm"]["bytes_per_cycle"] = machine.hbm.beat_bytes
    try:
        return Machine.model_validate(described)
    except ValueError as error:
        raise UnmaskError(f"vlen {vlen}: {' '.join(str(error).split())}") from None

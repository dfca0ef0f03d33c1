"""Why the engine stopped: the codes that its status register reports."""

from __future__ import annotations

from enum import IntEnum


class Fault(IntEnum):
    """One code per cause; the program counter beside it names the instruction."""

    NONE = 0
    OPCODE = 1
    """No instruction of this engine, or a SYNC of an engine that is not there."""
    UNDERFLOW = 2
    """A wait for a semaphore that no earlier instruction signals."""
    OVERFLOW = 3
    """A signal that a 16-bit semaphore cannot count."""
    RESET = 4
    """SEM_SET of a semaphore that still has tokens or waiters."""
    LOOP = 5
    """Loops nested too deeply, or END without LOOP."""
    PROGRAM = 6
    """The program counter left the instruction memory."""
    SIZE = 7
    """A size of 0, or more entries or rows than a unit has."""
    ADDRESS = 8
    """An address outside its memory."""
    ALIGNMENT = 9
    """An address that is no multiple of the granule, or data in HBM that cannot be brought to one."""
    FORMAT = 10
    """An MX format that the machine does not have."""
    MEMORY = 11
    """An error response of the memory."""


BITS = max(Fault).bit_length()

"""Which instructions a unit runs: those that random programs are made of."""

from __future__ import annotations

from unmask.errors import UnmaskError

UNITS = ("sampler",)


def instructions_of(unit: str) -> frozenset[str]:
    """Names of the instructions that a unit runs.

    Raises:
        UnmaskError: there is no such unit.
    """
    from unmask.rtl.engine import SAMPLER_INSTRUCTIONS

    if unit not in UNITS:
        raise UnmaskError(f"unknown unit {unit!r}: expected one of {', '.join(UNITS)}")
    return SAMPLER_INSTRUCTIONS

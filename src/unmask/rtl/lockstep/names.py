"""Which instructions a unit runs: those that random programs are made of."""

from __future__ import annotations

from unmask.errors import UnmaskError

UNITS = ("sampler", "vector", "npu")
"""The sampling engine, the same with everything that runs without a matrix engine, and the whole machine."""


def instructions_of(unit: str) -> frozenset[str]:
    """Names of the instructions that a unit runs.

    Raises:
        UnmaskError: there is no such unit.
    """
    from unmask.rtl.engine import MATRIX_INSTRUCTIONS, SAMPLER_INSTRUCTIONS, VECTOR_INSTRUCTIONS

    if unit not in UNITS:
        raise UnmaskError(f"unknown unit {unit!r}: expected one of {', '.join(UNITS)}")
    return {
        "sampler": SAMPLER_INSTRUCTIONS,
        "vector": VECTOR_INSTRUCTIONS,
        "npu": VECTOR_INSTRUCTIONS | MATRIX_INSTRUCTIONS,
    }[unit]

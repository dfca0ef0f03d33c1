"""Which instructions a unit runs: those that random programs are made of."""

from __future__ import annotations

from unmask.errors import UnmaskError
from unmask.isa.routing import ROUTING
from unmask.isa.table import INSTRUCTIONS, Engine

_OF_NETWORKS = frozenset(
    {"L_MAT", "L_GATHER", "V_SILU", "V_XEXP", "V_RECIP", "V_POW2", "V_CUT", "V_RED_SUM_GE", "V_COL_ABSMAX", "F_RSQRT"}
) | {row.name for row in ROUTING}
"""What networks and their guides need and sampling does not."""
UNITS = ("sampler",)


def instructions_of(unit: str) -> frozenset[str]:
    """Names of the instructions that a unit runs.

    Raises:
        UnmaskError: there is no such unit.
    """
    if unit not in UNITS:
        raise UnmaskError(f"unknown unit {unit!r}: expected one of {', '.join(UNITS)}")
    return frozenset(row.name for row in INSTRUCTIONS if row.engine is not Engine.MATRIX and row.name not in _OF_NETWORKS)

"""Which operands of a vector engine's instruction are words of the float and the integer SRAM, and through which port they pass.

A tile instruction has one word per row, the others one per entry. Ports of the integer SRAM's reads are `integer_lanes` words wide, for
the integer unit; other instructions use the first word.
"""

from __future__ import annotations

from typing import NamedTuple


class Words(NamedTuple):
    """Names of operands by port: float reads, float writes, integer reads, integer writes.

    Attributes:
        running_only: they are read only by an instruction with running = 1.
    """

    float_reads: tuple[str, ...] = ()
    float_writes: tuple[str, ...] = ()
    integer_reads: tuple[str, ...] = ()
    integer_writes: tuple[str, ...] = ()
    running_only: bool = False


_UNARY = Words(("a",), ("dst",))
_BINARY = Words(("a", "b"), ("dst",))
_RESULT = Words((), ("dst",))

WORDS: dict[str, Words] = {
    "V_SUB_F": Words(("f",)),
    "V_MUL_F": Words(("f",)),
    "V_EXP_WIN": Words(("f",)),
    "V_DROP": Words(integer_reads=("index",)),
    "V_CUT": Words(integer_reads=("key",)),
    "V_RED_SUM": _RESULT,
    "V_RED_SUM_GE": Words((), ("dst",), ("key",)),
    "V_RED_SUM_WIN": Words(("f",), ("dst",)),
    "V_RED_MAX": Words(("dst",), ("dst",), running_only=True),
    "V_RED_MAX_IDX": Words(("dst",), ("dst", "picked"), (), ("index",), running_only=True),
    "V_SAMPLE_END": Words((), ("dst",), (), ("index",)),
    "F_FILL": _RESULT,
    "F_ADD_I": _UNARY,
    "F_MUL_I": _UNARY,
    "F_SUB": _BINARY,
    "F_MUL": _BINARY,
    "F_EXP": _UNARY,
    "F_RECIP": _UNARY,
    "F_RSQRT": _UNARY,
    "F_UNIFORM": _RESULT,
    "F_LOG": _UNARY,
    "F_GUMBEL": _UNARY,
    "F_EXP_WIN": Words(("a", "f"), ("dst",)),
    "F_FROM_INT": Words((), ("dst",), ("a",)),
    "F_LT": Words(("a", "b"), (), (), ("dst",)),
    "I_SET_BIT_GT": Words(("a", "b"), (), ("dst",), ("dst",)),
    "I_EQ_I": Words((), (), ("a",), ("dst",)),
    "I_FILL": Words((), (), (), ("dst",)),
    "V_SELECT_INT": Words((), (), ("mask", "a", "b"), ("dst",)),
    "V_TOPK_MASK": Words(("f",), (), ("eligible",), ("dst",)),
    "V_THRESHOLD_MASK": Words(("f",), (), ("eligible",), ("dst",)),
    "V_BARS_MASK": Words(("f", "bars"), (), ("eligible",), ("dst",)),
}
"""Instructions that are not listed touch neither."""

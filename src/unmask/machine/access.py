"""What an instruction reads and writes: ranges of the memories, from its operands and the registers at dispatch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from unmask.errors import UnmaskError
from unmask.isa.encoding import Op
from unmask.isa.table import BF16_BYTES, INSTRUCTIONS, INT32_BYTES, STRIDE_UNIT, Engine, Kind
from unmask.machine.config import MATRIX_FORMATS, Machine
from unmask.numerics import mx

_SIZES = frozenset({"rows", "cols", "count", "m", "n", "k", "limit", "period", "span", "tiles"})

_INTEGERS = {
    row.name: tuple((spec.name, spec.kind is Kind.REGISTER) for spec in row.fields if spec.kind not in (Kind.FP32, Kind.BF16))
    for row in INSTRUCTIONS
}
"""Operands but the floating-point constants, which address nothing, and whether each is a register, by instruction."""

_NOT_ZERO = {
    row.name: tuple(spec.name for spec in row.fields if spec.name in _SIZES and spec.kind is Kind.UNSIGNED) for row in INSTRUCTIONS
}

Space = Literal["vector", "matrix", "float", "integer", "accumulators", "hbm"]


class Access(NamedTuple):
    """`rows` ranges of `cols` locations, `row_stride` apart, in the units of the memory.

    Units: vector SRAM, BF16 elements; matrix SRAM, MX blocks; float and integer SRAM, words; row accumulators, rows; HBM, bytes. A stride
    of 0 is one row, touched `rows` times.
    """

    space: Space
    start: int
    rows: int
    cols: int
    row_stride: int
    write: bool


class _Operands:
    """An instruction's operands by name, registers replaced by their values."""

    def __init__(self, op: Op, regs: Sequence[int], machine: Machine) -> None:
        self._values = {
            name: int(regs[int(op.operands[name])]) if register else int(op.operands[name]) for name, register in _INTEGERS[op.name]
        }
        self._op, self._machine = op, machine

    def __getitem__(self, name: str) -> int:
        return self._values[name]

    def tile(self, name: str, write: bool = False, rows: str = "rows", cols: str = "cols") -> Access:
        """A tile of the vector SRAM whose address is operand `name` and whose stride is operand `name`_stride."""
        return Access("vector", self[name], self[rows], self[cols], self[f"{name}_stride"] * STRIDE_UNIT, write)

    def words(self, space: Space, name: str, count: str, write: bool = False) -> Access:
        """`count` consecutive words of the float or the integer SRAM."""
        return Access(space, self[name], 1, self[count], self[count], write)

    def matrix(self, name: str, rows: int, cols: int, write: bool = False) -> Access:
        """`rows` rows of `cols` elements in the matrix SRAM; rows are whole blocks and follow each other."""
        blocks = -(-cols // mx.BLOCK)
        return Access("matrix", self[name], rows, blocks, blocks, write)

    def hbm_rows(self, name: str, write: bool = False) -> Access:
        """BF16 rows in HBM."""
        return Access("hbm", self[name], self["rows"], self["cols"] * BF16_BYTES, self[f"{name}_stride"], write)

    def hbm_words(self, name: str, write: bool = False) -> Access:
        """INT32 words in HBM."""
        size = self["count"] * INT32_BYTES
        return Access("hbm", self[name], 1, size, size, write)

    def hbm_mx(self, name: str, write: bool = False) -> list[Access]:
        """MX rows in HBM: the elements at operand `name`, the scales at operand `scales`."""
        blocks, stride = -(-self["cols"] // mx.BLOCK), self[f"{name}_stride"]
        size = mx.BLOCK * mx.format_named(operand_format(self._op, self._machine)).element.bits // 8
        return [
            Access("hbm", self[name], self["rows"], blocks * size, stride * size, write),
            Access("hbm", self["scales"], self["rows"], blocks, stride, write),
        ]


def operand_format(op: Op, machine: Machine) -> str:
    """Name of the MX format that the operand `format` of a load or a store chooses.

    Raises:
        UnmaskError: the machine has no format of that number, or the matrix engine knows none.
    """
    number = int(op.operands["format"])
    names = machine.formats.stored[:MATRIX_FORMATS] if op.name == "L_MAT" else machine.formats.stored
    if number >= len(names):
        third = ", 2 (logits)" if len(names) > MATRIX_FORMATS else ""
        raise UnmaskError(f"{op.name}: format {number}: expected 0 (weights), 1 (KV cache){third}")
    return names[number]


def _load_gather(o: _Operands) -> list[Access]:
    # Which rows the ids choose is a matter of values; any row of the table may be read.
    table = Access("hbm", o["table"], o["limit"], o["cols"] * BF16_BYTES, o["table_stride"], False)
    return [table, o.words("integer", "ids", "rows"), o.tile("dst", write=True)]


def _matmul(o: _Operands) -> list[Access]:
    right = o.matrix("b", o["k"], o["n"]) if o["transposed"] else o.matrix("b", o["n"], o["k"])
    return [o.tile("a", rows="m", cols="k"), right, o.tile("dst", write=True, rows="m", cols="n")]


def _reduce_sum(o: _Operands) -> list[Access]:
    sums = Access("accumulators", 0, 1, o["rows"], o["rows"], False)
    return [o.tile("a"), *([sums] if o["running"] else []), sums._replace(write=True), o.words("float", "dst", "rows", write=True)]


def _reduce_max(o: _Operands) -> list[Access]:
    return [o.tile("a"), *_results(o, o.words("float", "dst", "rows"))]


def _reduce_max_index(o: _Operands) -> list[Access]:
    results = (o.words("float", "dst", "rows"), o.words("integer", "index", "rows"), o.words("float", "picked", "rows"))
    return [o.tile("a"), o.tile("b"), *_results(o, *results)]


def _results(o: _Operands, *results: Access) -> list[Access]:
    """Results of a reduction, which also reads them when it continues from them."""
    return [*(results if o["running"] else ()), *(result._replace(write=True) for result in results)]


def _reduce_sum_above(o: _Operands) -> list[Access]:
    return [o.tile("b"), o.words("integer", "key", "rows"), *_reduce_sum(o)]


def _sums(first: int, count: int, write: bool) -> Access:
    return Access("accumulators", first, 1, count, count, write)


def _reduce_window(o: _Operands) -> list[Access]:
    sums = _sums(0, o["rows"], False)
    reads = [o.tile("a"), o.words("float", "f", "rows"), *([sums] if o["running"] else [])]
    return [*reads, sums._replace(write=True), o.words("float", "dst", "rows", write=True)]


def _sample(o: _Operands) -> list[Access]:
    sums = _sums(o["first"], o["rows"], False)
    return [o.tile("a"), *([sums] if o["running"] else []), sums._replace(write=True)]


def _sample_end(o: _Operands) -> list[Access]:
    results = [o.words("float", "dst", "count", write=True), o.words("integer", "index", "count", write=True)]
    return [_sums(o["first"], o["count"], False), *results]


def _reduce_columns(o: _Operands) -> list[Access]:
    return [o.tile("a"), *_results(o, Access("vector", o["dst"], 1, o["cols"], o["cols"], False))]


def _drop(o: _Operands) -> list[Access]:
    return [o.words("integer", "index", "rows"), o.tile("dst"), o.tile("dst", write=True)]


def _cut(o: _Operands) -> list[Access]:
    return [o.tile("a"), o.words("integer", "key", "rows"), o.tile("dst", write=True)]


def _tile1(o: _Operands) -> list[Access]:
    return [o.tile("a"), o.tile("dst", write=True)]


def _tile2(o: _Operands) -> list[Access]:
    return [o.tile("a"), o.tile("b"), o.tile("dst", write=True)]


def _tile_scalar(o: _Operands) -> list[Access]:
    return [o.tile("a"), o.words("float", "f", "rows"), o.tile("dst", write=True)]


def _float1(o: _Operands) -> list[Access]:
    return [o.words("float", "a", "count"), o.words("float", "dst", "count", write=True)]


def _float2(o: _Operands) -> list[Access]:
    return [o.words("float", "a", "count"), o.words("float", "b", "count"), o.words("float", "dst", "count", write=True)]


def _float_result(o: _Operands) -> list[Access]:
    return [o.words("float", "dst", "count", write=True)]


def _mask(o: _Operands) -> list[Access]:
    return [o.words("float", "f", "count"), o.words("integer", "eligible", "count"), o.words("integer", "dst", "count", write=True)]


def _bars_mask(o: _Operands) -> list[Access]:
    return [o.words("float", "bars", "count"), *_mask(o)]


def _set_bit(o: _Operands) -> list[Access]:
    words = o.words("integer", "dst", "count")
    return [o.words("float", "a", "count"), o.words("float", "b", "count"), words, words._replace(write=True)]


def _select(o: _Operands) -> list[Access]:
    reads = [o.words("integer", name, "count") for name in ("mask", "a", "b")]
    return [*reads, o.words("integer", "dst", "count", write=True)]


def _weights(o: _Operands) -> Access:
    """What an expert's column holds of all rows' weights."""
    return Access("vector", o["b"] + o["expert"], o["span"], 1, o["b_stride"] * STRIDE_UNIT, False)


def _rows_of_tile(o: _Operands, name: str, rows: str, write: bool = False) -> Access:
    return Access("vector", o[name], o[rows], o["cols"], o["stride"] * STRIDE_UNIT, write)


def _expert_tiles(o: _Operands) -> list[Access]:
    list_of_pairs = Access("integer", o["dst"], 1, 2 * o["tiles"], 2 * o["tiles"], True)
    return [o.tile("b", rows="span"), list_of_pairs]


def _gather_rows(o: _Operands) -> list[Access]:
    # Which rows the weights choose is a matter of values; any may be read, and by V_SCATTER_ADD written.
    return [_weights(o), _rows_of_tile(o, "a", "span"), _rows_of_tile(o, "dst", "rows", write=True)]


def _scatter_add(o: _Operands) -> list[Access]:
    total = _rows_of_tile(o, "dst", "span")
    return [_weights(o), _rows_of_tile(o, "a", "rows"), total, total._replace(write=True)]


_RULES: dict[str, Callable[[_Operands], list[Access]]] = {
    "S_LD": lambda o: [Access("integer", o["a"], 1, 1, 1, False)],
    "SYNC": lambda o: [],
    "L_VEC": lambda o: [o.hbm_rows("src"), o.tile("dst", write=True)],
    "L_MAT": lambda o: [*o.hbm_mx("src"), o.matrix("dst", o["rows"], o["cols"], write=True)],
    "L_INT": lambda o: [o.hbm_words("src"), o.words("integer", "dst", "count", write=True)],
    "L_GATHER": _load_gather,
    "L_MX": lambda o: [*o.hbm_mx("src"), o.tile("dst", write=True)],
    "ST_VEC": lambda o: [o.tile("src"), o.hbm_rows("dst", write=True)],
    "ST_MX": lambda o: [o.tile("src"), *o.hbm_mx("dst", write=True)],
    "ST_INT": lambda o: [o.words("integer", "src", "count"), o.hbm_words("dst", write=True)],
    "M_MM": _matmul,
    "V_ADD": _tile2,
    "V_SUB": _tile2,
    "V_MUL": _tile2,
    "V_SUB_F": _tile_scalar,
    "V_MUL_F": _tile_scalar,
    "V_MUL_I": _tile1,
    "V_FILL": lambda o: [o.tile("dst", write=True)],
    "V_EXP": _tile1,
    "V_SILU": _tile1,
    "V_GUMBEL": _tile1,
    "V_XEXP": _tile1,
    "V_RECIP": _tile1,
    "V_POW2": _tile1,
    "V_DROP": _drop,
    "V_CUT": _cut,
    "V_RED_SUM": _reduce_sum,
    "V_RED_SUM_GE": _reduce_sum_above,
    "V_COL_ABSMAX": _reduce_columns,
    "V_RED_MAX": _reduce_max,
    "V_RED_MAX_IDX": _reduce_max_index,
    "F_FILL": _float_result,
    "F_ADD_I": _float1,
    "F_MUL_I": _float1,
    "F_SUB": _float2,
    "F_MUL": _float2,
    "F_EXP": _float1,
    "F_RECIP": _float1,
    "F_RSQRT": _float1,
    "F_UNIFORM": _float_result,
    "F_LOG": _float1,
    "F_GUMBEL": _float1,
    "F_FROM_INT": lambda o: [o.words("integer", "a", "count"), o.words("float", "dst", "count", write=True)],
    "F_LT": lambda o: [*_float2(o)[:2], o.words("integer", "dst", "count", write=True)],
    "I_EQ_I": lambda o: [o.words("integer", "a", "count"), o.words("integer", "dst", "count", write=True)],
    "I_FILL": lambda o: [o.words("integer", "dst", "count", write=True)],
    "I_SET_BIT_GT": _set_bit,
    "V_TOPK_MASK": _mask,
    "V_THRESHOLD_MASK": _mask,
    "V_BARS_MASK": _bars_mask,
    "V_SELECT_INT": _select,
    "V_EXP_WIN": _tile_scalar,
    "V_RED_SUM_WIN": _reduce_window,
    "V_SAMPLE": _sample,
    "V_SAMPLE_END": _sample_end,
    "V_TOPK_ROW": _tile2,
    "V_EXPERT_TILES": _expert_tiles,
    "V_GATHER_ROWS": _gather_rows,
    "V_SCATTER_ADD": _scatter_add,
    "F_EXP_WIN": lambda o: [o.words("float", "a", "count"), o.words("float", "f", "count"), o.words("float", "dst", "count", write=True)],
}


def check_sizes(op: Op) -> None:
    """Check that an instruction does something.

    Raises:
        UnmaskError: names the operand that is 0.
    """
    for name in _NOT_ZERO[op.name]:
        if op.operands[name] == 0:
            raise UnmaskError(f"{op.name}: {name} is 0: expected at least 1")


def accesses(op: Op, regs: Sequence[int], machine: Machine) -> list[Access]:
    """Every location that an instruction reads or writes, reads first.

    Args:
        op: any instruction of the table; those of the sequencer other than S_LD touch no memory.
        regs: the values of the 32 registers when the sequencer dispatches the instruction.
        machine: gives the element formats.

    Raises:
        UnmaskError: no rule for the instruction, a size of 0, or a format that the machine has not.
    """
    check_sizes(op)
    rule = _RULES.get(op.name)
    if rule is None:
        if op.row.engine is Engine.SEQUENCER:
            return []
        raise UnmaskError(f"{op.name}: no rule says what it reads and writes")
    return rule(_Operands(op, regs, machine))

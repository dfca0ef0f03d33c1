"""The instructions of a mixture of experts: who goes to which expert, and rows gathered for it and scattered back.

A *tile* of an expert is up to so many rows that it takes. docs/decisions/0008-expert-routing.md says why there are always equally many.
"""

from __future__ import annotations

from unmask.isa.row import STRIDE_UNIT, Cost, Engine, Instruction, imm, reg

_ROWS = imm("rows", 14, "rows")
_STRIDE = f"row stride of {{}}, in units of {STRIDE_UNIT} elements"
_TAKEN = (
    "the rows of the expert's tile are those whose weight in column `expert` of b is not 0, in ascending order, without the first `skip` "
    "of them, and no more than `rows`"
)
_MOVE = (
    reg("b", "vector SRAM address of the weights, a row per row that there is and a column per expert"),
    reg("expert", "number of the expert"),
    reg("skip", "rows of the expert that other tiles hold"),
    imm("rows", 14, "rows of a tile"),
    imm("span", 14, "rows that there are"),
    imm("cols", 16, "columns"),
    imm("stride", 12, _STRIDE.format("dst and a")),
    imm("b_stride", 12, _STRIDE.format("b")),
)

ROUTING: tuple[Instruction, ...] = (
    Instruction(
        "V_TOPK_ROW",
        0x90,
        Engine.VECTOR,
        Cost.TOPK_ROW,
        (
            reg("dst", "vector SRAM address of the result"),
            reg("a", "vector SRAM address of the values"),
            reg("b", "vector SRAM address of what is ranked"),
            imm("k", 8, "how many of a row to keep"),
            _ROWS,
            imm("cols", 16, "columns"),
            imm("dst_stride", 12, _STRIDE.format("dst")),
            imm("a_stride", 12, _STRIDE.format("a")),
            imm("b_stride", 12, _STRIDE.format("b")),
        ),
        "in every row: dst = a at the k columns (all, if there are fewer) where b is highest, ties to the lowest column, and 0 elsewhere; "
        "a NaN of b counts as minus infinity",
    ),
    Instruction(
        "V_EXPERT_TILES",
        0x91,
        Engine.VECTOR,
        Cost.EXPERT_TILES,
        (
            reg("dst", "integer SRAM address of the list, two words per tile"),
            reg("b", "vector SRAM address of the weights, a row per row that there is and a column per expert"),
            imm("span", 14, "rows that there are"),
            imm("cols", 16, "columns: experts"),
            imm("b_stride", 12, _STRIDE.format("b")),
            imm("rows", 14, "rows of a tile"),
            imm("tiles", 14, "tiles in the list"),
        ),
        "list the tiles of the experts, ascending: for an expert that c rows of b give a weight other than 0, the pairs (expert, 0), "
        "(expert, rows), ... below c, and (expert, 0) if c is 0; what is left of the list holds (last expert, span), tiles without rows; a "
        "list that is too short is a fault",
    ),
    Instruction(
        "V_GATHER_ROWS",
        0x92,
        Engine.VECTOR,
        Cost.GATHER_ROWS,
        (reg("dst", "vector SRAM address of the tile"), reg("a", "vector SRAM address of the rows that there are"), *_MOVE),
        "row i of dst = the i-th row of the expert's tile, from a; 0 in rows beyond the last: " + _TAKEN,
    ),
    Instruction(
        "V_SCATTER_ADD",
        0x93,
        Engine.VECTOR,
        Cost.SCATTER_ADD,
        (reg("dst", "vector SRAM address of the rows that there are, changed"), reg("a", "vector SRAM address of the tile"), *_MOVE),
        "the i-th row of the expert's tile in dst += row i of a * its weight, product and sum rounded to BF16: " + _TAKEN,
    ),
)

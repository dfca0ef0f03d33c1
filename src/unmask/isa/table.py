"""The instruction table: the only place where an instruction's name, encoding, engine and cost class are stated.

The encoder, the assembler, the disassembler and the manual page are derived from the rows of `INSTRUCTIONS`; the functional semantics
(`unmask.machine.semantics`) and the memories touched (`unmask.machine.access`) are one function per row, keyed by its name.

A row says what an instruction is called, which engine runs it, how its time is computed, which operands it has and what it does.

An instruction word has 128 bits: the opcode (8), four semaphore names (two to wait for, two to signal; 6 bits each, 63 for none) and 96
bits of operands, packed from the least significant bit in the order of the row's fields.
"""

from __future__ import annotations

from unmask.isa.routing import ROUTING
from unmask.isa.row import (
    BF16_BYTES,
    INT32_BYTES,
    NO_SEMAPHORE,
    OPERAND_BITS,
    REGISTER_COUNT,
    STRIDE_UNIT,
    Cost,
    Engine,
    Field,
    Instruction,
    Kind,
    imm,
    reg,
)
from unmask.isa.streaming import STREAMING

__all__ = [
    "BF16_BYTES",
    "BY_NAME",
    "BY_OPCODE",
    "INSTRUCTIONS",
    "INT32_BYTES",
    "NO_SEMAPHORE",
    "OPERAND_BITS",
    "REGISTER_COUNT",
    "STRIDE_UNIT",
    "Cost",
    "Engine",
    "Field",
    "Instruction",
    "Kind",
]

ORDERED = (
    "ordered(x) of a BF16 is an unsigned 16-bit number: its bits with the sign bit flipped if x is positive or a zero of either sign "
    "(0x8000), all bits inverted if negative, 0 if NaN"
)
"""Said of every instruction that compares BF16 values as integers."""

_ROWS = imm("rows", 14, "rows")
_COLS = imm("cols", 20, "columns")
_COUNT = imm("count", 14, "entries")
_FORMAT = imm("format", 2, "0 weights, 1 KV cache: which of the machine's MX formats")
_MEMORY_FORMAT = imm("format", 2, "0 weights, 1 KV cache, 2 logits: which of the machine's MX formats; 2 is a fault where logits are BF16")
_RUNNING = imm("running", 1, "1 continues from the values already there")


def _stride(operand: str) -> Field:
    return imm(f"{operand}_stride", 12, f"row stride of {operand}, in units of {STRIDE_UNIT} elements")


def _vector(meaning: str = "vector SRAM address of the result") -> Field:
    return reg("dst", meaning)


_A = reg("a", "vector SRAM address of the first operand")
_TILE2 = (_vector(), _A, reg("b", "vector SRAM address of the second operand"), _ROWS, _COLS, _stride("dst"), _stride("a"), _stride("b"))
_TILE1 = (_vector(), _A, _ROWS, _COLS, _stride("dst"), _stride("a"))
_TILE_F = (_vector(), _A, reg("f", "float SRAM address of one scalar per row"), _ROWS, _COLS, _stride("dst"), _stride("a"))
_F_DST, _F_A = reg("dst", "float SRAM address of the result"), reg("a", "float SRAM address of the first operand")
_F2 = (_F_DST, _F_A, reg("b", "float SRAM address of the second operand"), _COUNT)
_F1 = (_F_DST, _F_A, _COUNT)
_I_DST, _I_A = reg("dst", "integer SRAM address of the result"), reg("a", "integer SRAM address of the first operand")
_MASK = (
    _I_DST,
    reg("f", "float SRAM address of the scores"),
    reg("eligible", "integer SRAM address of the eligibility, 0 or 1"),
)
_RD, _RS = reg("rd", "register written"), reg("rs", "register read")
_HBM = "HBM byte address of "
_NOISE = (reg("seed", "seed of the noise"), reg("step", "denoising step"), reg("position", "canvas position of the first row"))

_S, _L, _ST, _M, _V = Engine.SEQUENCER, Engine.LOAD, Engine.STORE, Engine.MATRIX, Engine.VECTOR

INSTRUCTIONS: tuple[Instruction, ...] = (
    # Sequencer
    Instruction("HALT", 0x00, _S, Cost.SEQUENCER, (), "Stop once every engine has drained."),
    Instruction("S_LI", 0x01, _S, Cost.SEQUENCER, (_RD, Field("value", 48, Kind.SIGNED, "constant")), "rd = value"),
    Instruction("S_ADDI", 0x02, _S, Cost.SEQUENCER, (_RD, _RS, Field("value", 48, Kind.SIGNED, "constant")), "rd = rs + value"),
    Instruction("S_ADD", 0x03, _S, Cost.SEQUENCER, (_RD, _RS, reg("rt", "register read")), "rd = rs + rt"),
    Instruction("S_MULI", 0x04, _S, Cost.SEQUENCER, (_RD, _RS, Field("value", 32, Kind.SIGNED, "constant")), "rd = rs * value"),
    Instruction("S_XORI", 0x05, _S, Cost.SEQUENCER, (_RD, _RS, imm("value", 48, "constant")), "rd = rs ^ value"),
    Instruction("S_LD", 0x06, _S, Cost.SEQUENCER, (_RD, reg("a", "integer SRAM address")), "rd = int_sram[a]"),
    Instruction(
        "LOOP",
        0x07,
        _S,
        Cost.SEQUENCER,
        (imm("count", 32, "iterations, at least 1"),),
        "Run the instructions up to the matching END `count` times.",
    ),
    Instruction("END", 0x08, _S, Cost.SEQUENCER, (), "Close the innermost LOOP: one cycle, whether it jumps back or not."),
    Instruction(
        "SEM_SET",
        0x09,
        _S,
        Cost.SEQUENCER,
        (imm("semaphore", 6, "semaphore"), imm("value", 16, "count")),
        "Set a semaphore's count: the credits that a ring of buffers starts with.",
    ),
    Instruction(
        "SYNC",
        0x0A,
        _S,
        Cost.SYNC,
        (imm("engine", 3, "engine that runs this instruction, in its own order"),),
        "Do nothing but wait and signal.",
    ),
    # Load engine
    Instruction(
        "L_VEC",
        0x10,
        _L,
        Cost.DMA,
        (_vector(), reg("src", _HBM + "the tile"), _ROWS, _COLS, _stride("dst"), imm("src_stride", 24, "row stride in HBM, bytes")),
        "vector[dst] = hbm[src], BF16, rows x cols",
    ),
    Instruction(
        "L_MAT",
        0x11,
        _L,
        Cost.DMA,
        (
            reg("dst", "matrix SRAM address, in MX blocks"),
            reg("src", _HBM + "the elements"),
            reg("scales", _HBM + "the scales"),
            _ROWS,
            _COLS,
            imm("src_stride", 20, "row stride in HBM, MX blocks"),
            _FORMAT,
        ),
        "matrix[dst] = hbm[src], MX elements and scales, rows x cols; columns are padded with zeros to whole blocks",
    ),
    Instruction(
        "L_INT",
        0x12,
        _L,
        Cost.DMA,
        (reg("dst", "integer SRAM address"), reg("src", _HBM + "INT32 words"), _COUNT),
        "int_sram[dst] = hbm[src], INT32, count words",
    ),
    Instruction(
        "L_GATHER",
        0x13,
        _L,
        Cost.GATHER,
        (
            _vector(),
            reg("table", _HBM + "the table"),
            reg("ids", "integer SRAM address of one row number per row"),
            _ROWS,
            imm("cols", 16, "columns"),
            _stride("dst"),
            imm("table_stride", 20, "row stride of the table, bytes"),
            imm("limit", 18, "rows in the table; a larger or negative id is a fault"),
        ),
        "row r of vector[dst] = row int_sram[ids + r] of the BF16 table",
    ),
    Instruction(
        "L_MX",
        0x14,
        _L,
        Cost.DMA,
        (
            _vector(),
            reg("src", _HBM + "the elements"),
            reg("scales", _HBM + "the scales"),
            _ROWS,
            _COLS,
            _stride("dst"),
            imm("src_stride", 20, "row stride in HBM, MX blocks"),
            _MEMORY_FORMAT,
        ),
        "vector[dst] = hbm[src], MX elements times their scales, each product rounded to BF16, rows x cols",
    ),
    # Store engine
    Instruction(
        "ST_VEC",
        0x20,
        _ST,
        Cost.DMA,
        (
            reg("src", "vector SRAM address of the tile"),
            reg("dst", _HBM + "the result"),
            _ROWS,
            _COLS,
            _stride("src"),
            imm("dst_stride", 24, "row stride in HBM, bytes"),
        ),
        "hbm[dst] = vector[src], BF16, rows x cols",
    ),
    Instruction(
        "ST_MX",
        0x21,
        _ST,
        Cost.DMA,
        (
            reg("src", "vector SRAM address of the tile"),
            reg("dst", _HBM + "the elements"),
            reg("scales", _HBM + "the scales"),
            _ROWS,
            _COLS,
            _stride("src"),
            imm("dst_stride", 20, "row stride in HBM, MX blocks"),
            _MEMORY_FORMAT,
        ),
        "hbm[dst] = vector[src] packed to MX blocks of 32 along the columns",
    ),
    Instruction(
        "ST_INT",
        0x22,
        _ST,
        Cost.DMA,
        (reg("src", "integer SRAM address"), reg("dst", _HBM + "INT32 words"), _COUNT),
        "hbm[dst] = int_sram[src], INT32, count words",
    ),
    # Matrix engine
    Instruction(
        "M_MM",
        0x30,
        _M,
        Cost.MATRIX,
        (
            _vector("vector SRAM address of the result, BF16 [m, n]"),
            reg("a", "vector SRAM address of the left operand, BF16 [m, k]"),
            reg("b", "matrix SRAM address of the right operand, MX [n, k], or [k, n] with transposed = 1"),
            imm("m", 14, "rows of the result"),
            imm("n", 16, "columns of the result"),
            imm("k", 20, "length of the dot products"),
            _stride("dst"),
            _stride("a"),
            imm("transposed", 1, "1 reads b down its columns; each 32 x 32 tile is re-blocked to one scale"),
            _FORMAT,
        ),
        "dst = a b^T: rows of a quantized to the activation format, exact 64-bit accumulation, one rounding to BF16",
    ),
    # Vector engine: tiles of BF16
    Instruction("V_ADD", 0x40, _V, Cost.LANES, _TILE2, "dst = a + b; a stride of 0 repeats one row"),
    Instruction("V_SUB", 0x41, _V, Cost.LANES, _TILE2, "dst = a - b; a stride of 0 repeats one row"),
    Instruction("V_MUL", 0x42, _V, Cost.LANES, _TILE2, "dst = a * b; a stride of 0 repeats one row"),
    Instruction("V_SUB_F", 0x43, _V, Cost.LANES, _TILE_F, "row r of dst = row r of a - bf16(float_sram[f + r])"),
    Instruction("V_MUL_F", 0x44, _V, Cost.LANES, _TILE_F, "row r of dst = row r of a * bf16(float_sram[f + r])"),
    Instruction("V_MUL_I", 0x45, _V, Cost.LANES, (*_TILE1, Field("value", 16, Kind.BF16, "factor")), "dst = a * value"),
    Instruction(
        "V_FILL",
        0x46,
        _V,
        Cost.LANES,
        (_vector(), _ROWS, _COLS, _stride("dst"), Field("value", 16, Kind.BF16, "constant")),
        "dst = value",
    ),
    Instruction("V_EXP", 0x47, _V, Cost.FUNCTION, _TILE1, "dst = exp(a)"),
    Instruction("V_SILU", 0x48, _V, Cost.FUNCTION, _TILE1, "dst = a / (1 + exp(-a))"),
    Instruction(
        "V_GUMBEL",
        0x49,
        _V,
        Cost.NOISE,
        (
            _vector(),
            _A,
            *_NOISE,
            reg("token", "vocabulary index of the first column"),
            reg("temperature", "BF16 bits of the temperature"),
            _ROWS,
            _COLS,
            _stride("dst"),
            _stride("a"),
        ),
        "dst = a + temperature * Gumbel noise of (seed, step, position + row, token + column)",
    ),
    Instruction("V_XEXP", 0x4A, _V, Cost.FUNCTION, _TILE1, "dst = a exp(a), rounded once; 0 at minus infinity"),
    Instruction("V_RECIP", 0x4B, _V, Cost.FUNCTION, _TILE1, "dst = 1 / a, correctly rounded; a zero gives an infinity of its sign"),
    Instruction(
        "V_POW2",
        0x4C,
        _V,
        Cost.FUNCTION,
        _TILE1,
        "dst = 2^floor(log2 |a|), its exponent clamped to [-126, 126] so that its reciprocal is a normal BF16 too; 1 where a is 0, "
        "infinite or NaN",
    ),
    Instruction(
        "V_DROP",
        0x4D,
        _V,
        Cost.ROWS,
        (
            _vector("vector SRAM address of the tile, changed in place"),
            reg("index", "integer SRAM address of one index per row"),
            reg("base", "index of the first column"),
            _ROWS,
            _COLS,
            _stride("dst"),
        ),
        "in row r of dst, column int_sram[index + r] - base becomes minus infinity if it lies in [0, cols)",
    ),
    Instruction(
        "V_CUT",
        0x4E,
        _V,
        Cost.LANES,
        (_vector(), _A, reg("key", "integer SRAM address of one key per row"), _ROWS, _COLS, _stride("dst"), _stride("a")),
        "dst = a where a is NaN or ordered(a) >= int_sram[key + r] in row r, else minus infinity; " + ORDERED,
    ),
    # Vector engine: reductions along rows
    Instruction(
        "V_RED_SUM",
        0x50,
        _V,
        Cost.REDUCE,
        (_F_DST, _A, _ROWS, _COLS, _stride("a"), _RUNNING),
        "float_sram[dst + r] = fp32(exact sum of row r); with running = 1 the row accumulators keep their previous content",
    ),
    Instruction(
        "V_RED_MAX",
        0x51,
        _V,
        Cost.REDUCE,
        (_F_DST, _A, _ROWS, _COLS, _stride("a"), _RUNNING),
        "float_sram[dst + r] = maximum of row r, and of its previous value with running = 1",
    ),
    Instruction(
        "V_RED_MAX_IDX",
        0x52,
        _V,
        Cost.REDUCE,
        (
            _F_DST,
            reg("index", "integer SRAM address of the index of the maximum"),
            reg("picked", "float SRAM address of the companion's value at the maximum"),
            _A,
            reg("b", "vector SRAM address of the companion"),
            reg("base", "index of the first column"),
            _ROWS,
            _COLS,
            _stride("a"),
            _stride("b"),
            _RUNNING,
        ),
        "per row: maximum of a to float_sram[dst], base + its lowest column to int_sram[index], b at that column to float_sram[picked]; "
        "with running = 1 only a strictly larger maximum replaces what is there",
    ),
    Instruction(
        "V_RED_SUM_GE",
        0x53,
        _V,
        Cost.REDUCE,
        (
            _F_DST,
            _A,
            reg("b", "vector SRAM address of what is compared"),
            reg("key", "integer SRAM address of one key per row"),
            reg("bit", "number of a bit, of which the low 5 bits count"),
            _ROWS,
            _COLS,
            _stride("a"),
            _stride("b"),
            _RUNNING,
        ),
        "float_sram[dst + r] = fp32(exact sum of row r of a over the columns where ordered(b) >= int_sram[key + r] | 2^bit); with "
        "running = 1 the row accumulators keep their previous content; an a_stride of 0 repeats one row; " + ORDERED,
    ),
    Instruction(
        "V_COL_ABSMAX",
        0x54,
        _V,
        Cost.REDUCE,
        (_vector("vector SRAM address of the result, one row"), _A, _ROWS, _COLS, _stride("a"), _RUNNING),
        "dst = maximum down each column of |a|, a NaN counting as 0, and of dst with running = 1, of which a NaN counts as 0 too",
    ),
    # Vector engine: scalars in the float SRAM
    Instruction("F_FILL", 0x60, _V, Cost.SCALAR, (_F_DST, _COUNT, Field("value", 32, Kind.FP32, "constant")), "dst = value"),
    Instruction("F_ADD_I", 0x61, _V, Cost.SCALAR, (*_F1, Field("value", 32, Kind.FP32, "addend")), "dst = a + value, FP32"),
    Instruction("F_MUL_I", 0x62, _V, Cost.SCALAR, (*_F1, Field("value", 32, Kind.FP32, "factor")), "dst = a * value, FP32"),
    Instruction("F_SUB", 0x63, _V, Cost.SCALAR, _F2, "dst = a - b, FP32"),
    Instruction("F_MUL", 0x64, _V, Cost.SCALAR, _F2, "dst = a * b, FP32"),
    Instruction("F_EXP", 0x65, _V, Cost.SCALAR_FUNCTION, _F1, "dst = exp(bf16(a)), a BF16 value"),
    Instruction("F_RECIP", 0x66, _V, Cost.SCALAR_FUNCTION, _F1, "dst = 1 / a, FP32, correctly rounded"),
    Instruction("F_RSQRT", 0x67, _V, Cost.SCALAR_FUNCTION, _F1, "dst = 1 / sqrt(a), FP32, correctly rounded"),
    Instruction(
        "F_UNIFORM",
        0x68,
        _V,
        Cost.SCALAR_FUNCTION,
        (_F_DST, *_NOISE, _COUNT),
        "dst = uniform draw in [0, 1) of (seed, step, position + entry), from words that no token's noise uses",
    ),
    Instruction("F_LOG", 0x69, _V, Cost.SCALAR_FUNCTION, _F1, "dst = natural logarithm of a, FP32, within 0.51 units of the last place"),
    Instruction(
        "F_GUMBEL",
        0x6A,
        _V,
        Cost.SCALAR_FUNCTION,
        (_F_DST, _F_A, *_NOISE, _COUNT),
        "dst = a + Gumbel noise of (seed, step, position + entry) rounded to FP32, the sum in FP32; its words are those of F_UNIFORM",
    ),
    Instruction(
        "F_FROM_INT",
        0x6B,
        _V,
        Cost.SCALAR,
        (_F_DST, reg("a", "integer SRAM address of the operand"), _COUNT),
        "dst = int_sram[a], rounded to FP32",
    ),
    Instruction(
        "F_LT",
        0x6C,
        _V,
        Cost.SCALAR,
        (reg("dst", "integer SRAM address of the result"), *_F2[1:]),
        "int_sram[dst] = 1 where a < b, else 0; 0 where either is NaN",
    ),
    # Vector engine: integers
    Instruction(
        "I_EQ_I",
        0x70,
        _V,
        Cost.INTEGER,
        (_I_DST, _I_A, _COUNT, Field("value", 32, Kind.SIGNED, "constant")),
        "dst = 1 where a = value, else 0",
    ),
    Instruction(
        "V_TOPK_MASK",
        0x71,
        _V,
        Cost.TOPK,
        (*_MASK, reg("k", "how many to choose"), _COUNT),
        "dst = 1 at the k eligible entries of highest score (all, if fewer are eligible), ties to the lowest index; else 0",
    ),
    Instruction(
        "I_FILL",
        0x73,
        _V,
        Cost.INTEGER,
        (_I_DST, reg("value", "the constant; its low 32 bits count"), _COUNT),
        "dst = value",
    ),
    Instruction(
        "I_SET_BIT_GT",
        0x74,
        _V,
        Cost.SCALAR,
        (
            reg("dst", "integer SRAM address of the words, changed in place"),
            _F_A,
            reg("b", "float SRAM address of the second operand"),
            reg("bit", "number of a bit, of which the low 5 bits count"),
            _COUNT,
        ),
        "dst = dst | 2^bit where float_sram[a] > float_sram[b], else unchanged: one step of a binary search from the top bit",
    ),
    Instruction(
        "V_THRESHOLD_MASK",
        0x75,
        _V,
        Cost.TOPK,
        (*_MASK, _COUNT, Field("value", 32, Kind.FP32, "threshold")),
        "dst = 1 at the eligible entry of highest score, ties to the lowest index, and at every eligible entry whose score is at least "
        "value; else 0; a NaN counts as minus infinity",
    ),
    Instruction(
        "V_BARS_MASK",
        0x76,
        _V,
        Cost.TOPK,
        (*_MASK, reg("bars", "float SRAM address of one bar per rank"), _COUNT),
        "rank the eligible entries by score, descending, ties to the lowest index: dst = 1 at those of the longest prefix of ranks j = 0, "
        "1, ... whose score is at least float_sram[bars + j], rank 0 whatever its bar; else 0; a NaN counts as minus infinity",
    ),
    Instruction(
        "V_SELECT_INT",
        0x72,
        _V,
        Cost.INTEGER,
        (_I_DST, reg("mask", "integer SRAM address of the mask"), _I_A, reg("b", "integer SRAM address of the second operand"), _COUNT),
        "dst = a where mask is not 0, else b",
    ),
    *STREAMING,
    *ROUTING,
)

BY_NAME: dict[str, Instruction] = {row.name: row for row in INSTRUCTIONS}
BY_OPCODE: dict[int, Instruction] = {row.opcode: row for row in INSTRUCTIONS}

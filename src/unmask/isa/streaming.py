"""The instructions of the sampling programs that stream: sums of exponentials without a maximum, and the sampler.

`unmask.numerics.window` defines weights, levels and window sums; docs/decisions/0007-single-pass-sampling.md says why.
"""

from __future__ import annotations

from unmask.isa.row import STRIDE_UNIT, Cost, Engine, Instruction, imm, reg

_ROWS, _COLS, _COUNT = imm("rows", 14, "rows"), imm("cols", 20, "columns"), imm("count", 14, "entries")
_A_STRIDE = imm("a_stride", 12, f"row stride of a, in units of {STRIDE_UNIT} elements")
_RUNNING = imm("running", 1, "1 continues from the values already there")
_A = reg("a", "vector SRAM address of the operand")
_TOP = reg("f", "float SRAM address of the rows' maxima, none below an element of its row")
_FIRST = reg("first", "number of the first row's accumulator")
_WEIGHT = "weight(x) is e^x with 8 significant bits and any exponent; level(x) is the floor of a 32nd of the exponent of its leading bit"

STREAMING: tuple[Instruction, ...] = (
    Instruction(
        "V_EXP_WIN",
        0x80,
        Engine.VECTOR,
        Cost.FUNCTION,
        (
            reg("dst", "vector SRAM address of the result"),
            _A,
            _TOP,
            _ROWS,
            _COLS,
            imm("dst_stride", 12, f"row stride of dst, in units of {STRIDE_UNIT} elements"),
            _A_STRIDE,
        ),
        "dst = weight(a) 2^(-32 (level(float_sram[f + r]) + 1)) in row r, 0 below 2^-126, NaN at infinity; " + _WEIGHT,
    ),
    Instruction(
        "V_RED_SUM_WIN",
        0x81,
        Engine.VECTOR,
        Cost.REDUCE,
        (reg("dst", "float SRAM address of the result"), _A, _TOP, _ROWS, _COLS, _A_STRIDE, _RUNNING),
        "adds what V_EXP_WIN made of a row to the row's window sum, two counters of 32 bits and carries at the level of its maximum: when "
        "the level rises by one the upper counter becomes the lower one, by more both are cleared; float_sram[dst + r] = fp32(the sum), "
        "NaN if it met a NaN or anything outside [0, 1), which add nothing; with running = 1 the sums keep their previous content",
    ),
    Instruction(
        "V_SAMPLE",
        0x82,
        Engine.VECTOR,
        Cost.SAMPLE,
        (
            _A,
            _FIRST,
            reg("token", "vocabulary index of the first column"),
            reg("seed", "seed of the noise"),
            reg("step", "denoising step"),
            reg("position", "canvas position of the first row"),
            imm("period", 14, "rows of a sequence, at least 1: positions start again after as many"),
            reg("temperature", "BF16 bits of the temperature; 0 for no noise"),
            _ROWS,
            _COLS,
            _A_STRIDE,
            _RUNNING,
        ),
        "per row, in its accumulators: the highest a + temperature * Gumbel noise of (seed, step, position + row mod period, "
        "token + column), its "
        "index token + column (the lowest of equals), a there, and the window sum of the weights of a; with running = 1 only a strictly "
        "higher score replaces what is there, and the sum continues; " + _WEIGHT,
    ),
    Instruction(
        "V_SAMPLE_END",
        0x83,
        Engine.VECTOR,
        Cost.SCALAR_FUNCTION,
        (
            reg("dst", "float SRAM address of the confidences"),
            reg("index", "integer SRAM address of the candidates"),
            _FIRST,
            _COUNT,
        ),
        "what V_SAMPLE left of each row: its index to int_sram[index + r], and weight(a there) times the reciprocal of the window sum, "
        "sum, reciprocal and product correctly rounded to FP32, to float_sram[dst + r]; NaN if the row held a NaN or plus infinity",
    ),
    Instruction(
        "F_EXP_WIN",
        0x84,
        Engine.VECTOR,
        Cost.SCALAR_FUNCTION,
        (reg("dst", "float SRAM address of the result"), reg("a", "float SRAM address of BF16 values"), _TOP, _COUNT),
        "dst = weight(a) 2^(-32 (level(float_sram[f + entry]) + 1)), FP32; see V_EXP_WIN",
    ),
)

"""Random instructions of every row of the table."""

import struct

from hypothesis import strategies as st

from unmask.isa.encoding import Op, Operand
from unmask.isa.table import NO_SEMAPHORE, Field, Instruction, Kind


def _fp32(bits: int) -> float:
    return float(struct.unpack("<f", struct.pack("<I", bits))[0])


def operand(spec: Field) -> st.SearchStrategy[Operand]:
    """Every value of a field but NaN, whose payload a Python float need not keep."""
    if spec.kind is Kind.FP32:
        return st.floats(width=32, allow_nan=False)
    if spec.kind is Kind.BF16:
        return st.integers(0, 0xFFFF).map(lambda bits: _fp32(bits << 16)).filter(lambda value: value == value)
    if spec.kind is Kind.SIGNED:
        return st.integers(-(1 << (spec.bits - 1)), (1 << (spec.bits - 1)) - 1)
    return st.integers(0, (1 << spec.bits) - 1)


def instruction(row: Instruction) -> st.SearchStrategy[Op]:
    semaphores = st.lists(st.integers(0, NO_SEMAPHORE - 1), max_size=2).map(tuple)
    operands = st.fixed_dictionaries({spec.name: operand(spec) for spec in row.fields})
    return st.builds(Op, st.just(row.name), operands, semaphores, semaphores)

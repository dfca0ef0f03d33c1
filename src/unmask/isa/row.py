"""What a row of the instruction table is made of: engines, cost classes, operands."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum


class Engine(IntEnum):
    """The engines, each with a queue of its own; the sequencer runs its instructions itself, in program order."""

    SEQUENCER = 0
    LOAD = 1
    STORE = 2
    MATRIX = 3
    VECTOR = 4


class Cost(IntEnum):
    """Cost classes: how the timing readings derive the cycles of an instruction from its operands."""

    SEQUENCER = 0
    SYNC = 1
    DMA = 2
    GATHER = 3
    MATRIX = 4
    LANES = 5
    FUNCTION = 6
    REDUCE = 7
    SCALAR = 8
    SCALAR_FUNCTION = 9
    INTEGER = 10
    TOPK = 11
    ROWS = 12
    SAMPLE = 13
    NOISE = 14
    TOPK_ROW = 15
    EXPERT_TILES = 16
    GATHER_ROWS = 17
    SCATTER_ADD = 18


class Kind(StrEnum):
    """What the bits of an operand mean."""

    REGISTER = "register"
    UNSIGNED = "unsigned"
    SIGNED = "signed"
    FP32 = "fp32"
    BF16 = "bf16"


@dataclass(frozen=True)
class Field:
    """One operand: its name, its width in bits, what the bits mean, and what the operand is for."""

    name: str
    bits: int
    kind: Kind
    meaning: str


@dataclass(frozen=True)
class Instruction:
    """One row of the table."""

    name: str
    opcode: int
    engine: Engine
    cost: Cost
    fields: tuple[Field, ...]
    effect: str


NO_SEMAPHORE = 63
OPERAND_BITS = 96
REGISTER_COUNT = 32
BF16_BYTES = 2
INT32_BYTES = 4
STRIDE_UNIT = 32
"""Row strides in the vector SRAM are counted in units of this many elements, the size of an MX block."""


def reg(name: str, meaning: str) -> Field:
    """A register operand."""
    return Field(name, 5, Kind.REGISTER, meaning)


def imm(name: str, bits: int, meaning: str) -> Field:
    """An unsigned constant."""
    return Field(name, bits, Kind.UNSIGNED, meaning)

"""Instruction words: where the table puts each operand, and what the sequencer hands to an engine."""

from __future__ import annotations

from collections.abc import Iterable

from amaranth.hdl import Module, Signal, Value, signed, unsigned
from amaranth.lib import data

from unmask.isa.row import NO_SEMAPHORE, OPERAND_BITS, Instruction, Kind
from unmask.isa.table import BY_NAME
from unmask.machine.sequencer import REGISTER_BITS

WORD_BITS = 128
OPCODE_BITS = 8
SEMAPHORE_NAME_BITS = NO_SEMAPHORE.bit_length()
HEADER_BITS = WORD_BITS - OPERAND_BITS
HEADER = data.StructLayout(
    {"opcode": OPCODE_BITS, **dict.fromkeys(("wait0", "wait1", "signal0", "signal1"), SEMAPHORE_NAME_BITS), "operands": OPERAND_BITS}
)
"""An instruction word."""
WAITS = data.StructLayout(dict.fromkeys(("wait0", "wait1"), SEMAPHORE_NAME_BITS))
"""What of it an engine needs to know when to start."""


def places(instruction: Instruction) -> dict[str, slice]:
    """The bits of each operand among the operand bits of the word."""
    result, shift = {}, 0
    for spec in instruction.fields:
        result[spec.name] = slice(shift, shift + spec.bits)
        shift += spec.bits
    return result


def register_operands(instruction: Instruction) -> list[str]:
    """Names of the operands that name registers, in the order in which an engine receives their values."""
    return [spec.name for spec in instruction.fields if spec.kind is Kind.REGISTER]


def dispatch_layout(names: Iterable[str], pc_bits: int) -> data.StructLayout:
    """What an engine's queue holds of an instruction.

    Args:
        names: the engine's instructions, which say how many register values one may need.
        pc_bits: width of the program counter.
    """
    registers = max((len(register_operands(BY_NAME[name])) for name in names), default=0)
    return data.StructLayout({"pc": pc_bits, "word": HEADER, "registers": data.ArrayLayout(REGISTER_BITS, registers)})


class Operands:
    """The operands of an instruction by name, whichever instruction it is: one multiplexer per name.

    Attributes:
        values: Signal by operand name; registers have their 48-bit value, constants their field, signed where the table says so. What an
            instruction does not have is 0.
    """

    def __init__(self, m: Module, entry: data.View, names: Iterable[str]) -> None:
        """Decode.

        Args:
            entry: a `dispatch_layout` of the same instructions.
        """
        instructions = [BY_NAME[name] for name in sorted(names)]
        shapes: dict[str, tuple[int, bool]] = {}
        for instruction in instructions:
            for spec in instruction.fields:
                bits = REGISTER_BITS if spec.kind is Kind.REGISTER else spec.bits
                width, sign = shapes.get(spec.name, (0, False))
                shapes[spec.name] = max(width, bits), sign or spec.kind is Kind.SIGNED
        self.values: dict[str, Signal] = {
            name: Signal(signed(width) if sign else unsigned(width), name=f"operand_{name}") for name, (width, sign) in shapes.items()
        }
        with m.Switch(entry.word.opcode):
            for instruction in instructions:
                where, registers = places(instruction), register_operands(instruction)
                with m.Case(instruction.opcode):
                    for spec in instruction.fields:
                        if spec.kind is Kind.REGISTER:
                            source: Value = entry.registers[registers.index(spec.name)]
                        else:
                            source = entry.word.operands[where[spec.name]]
                            if spec.kind is Kind.SIGNED:
                                source = source.as_signed()
                        m.d.comb += self.values[spec.name].eq(source)

    def __getitem__(self, name: str) -> Signal:
        return self.values[name]

"""Instructions as objects, as 128-bit words and as text: encoder, decoder, assembler, disassembler."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from unmask.errors import UnmaskError
from unmask.isa.table import BY_NAME, BY_OPCODE, NO_SEMAPHORE, Field, Instruction, Kind

Operand = int | float
_SEMAPHORE_BITS = 6
_HEADER_BITS = 8 + 4 * _SEMAPHORE_BITS


@dataclass(frozen=True)
class Op:
    """One instruction of a program: a row of the table with its operands and semaphores.

    Args:
        name: a name of `unmask.isa.table.INSTRUCTIONS`.
        operands: one value per field of the row; FP32 and BF16 constants as floats.
        wait: up to two semaphores; the engine takes one from each before it starts.
        signal: up to two semaphores; the engine adds one to each when it ends.
    """

    name: str
    operands: Mapping[str, Operand] = field(default_factory=dict)
    wait: tuple[int, ...] = ()
    signal: tuple[int, ...] = ()

    @property
    def row(self) -> Instruction:
        return BY_NAME[self.name]

    def __str__(self) -> str:
        return format_op(self)


def _float_bits(spec: Field, value: Operand, name: str) -> int:
    try:
        return int.from_bytes(struct.pack("<f", value), "little")
    except (OverflowError, struct.error):
        raise UnmaskError(f"{name}: operand {spec.name} = {value!r} is not a finite FP32 value") from None


def _to_bits(spec: Field, value: Operand, name: str) -> int:
    if spec.kind is Kind.FP32:
        return _float_bits(spec, value, name)
    if spec.kind is Kind.BF16:
        bits = _float_bits(spec, value, name)
        if bits & 0xFFFF:
            raise UnmaskError(f"{name}: operand {spec.name} = {value!r} is not a BF16 value")
        return bits >> 16
    low, high = (-(1 << (spec.bits - 1)), (1 << (spec.bits - 1)) - 1) if spec.kind is Kind.SIGNED else (0, (1 << spec.bits) - 1)
    if not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise UnmaskError(f"{name}: operand {spec.name} = {value!r} is not an integer in [{low}, {high}]")
    return int(value) & ((1 << spec.bits) - 1)


def _from_bits(spec: Field, bits: int) -> Operand:
    if spec.kind is Kind.FP32:
        return float(struct.unpack("<f", struct.pack("<I", bits))[0])
    if spec.kind is Kind.BF16:
        return float(struct.unpack("<f", struct.pack("<I", bits << 16))[0])
    if spec.kind is Kind.SIGNED and bits >> (spec.bits - 1):
        return bits - (1 << spec.bits)
    return bits


def encode_op(op: Op) -> int:
    """The 128-bit word of one instruction.

    Raises:
        UnmaskError: unknown name, missing or unknown operand, operand out of range, more than two waits or signals.
    """
    row = BY_NAME.get(op.name)
    if row is None:
        raise UnmaskError(f"unknown instruction {op.name!r}")
    if set(op.operands) != {spec.name for spec in row.fields}:
        raise UnmaskError(f"{op.name} takes the operands {[spec.name for spec in row.fields]}, not {list(op.operands)}")
    word, shift = row.opcode, 8
    for what, names in (("wait", op.wait), ("signal", op.signal)):
        if len(names) > 2 or any(not 0 <= name < NO_SEMAPHORE for name in names):
            raise UnmaskError(f"{op.name}: {what} names at most two semaphores in [0, {NO_SEMAPHORE - 1}], not {names}")
        for name in (*names, NO_SEMAPHORE, NO_SEMAPHORE)[:2]:
            word |= name << shift
            shift += _SEMAPHORE_BITS
    for spec in row.fields:
        word |= _to_bits(spec, op.operands[spec.name], op.name) << shift
        shift += spec.bits
    return word


def decode_op(word: int) -> Op:
    """The instruction of a 128-bit word.

    Raises:
        UnmaskError: unknown opcode.
    """
    row = BY_OPCODE.get(word & 0xFF)
    if row is None:
        raise UnmaskError(f"illegal opcode 0x{word & 0xFF:02x}")
    names = [(word >> (8 + i * _SEMAPHORE_BITS)) & NO_SEMAPHORE for i in range(4)]
    wait, signal = (tuple(n for n in pair if n != NO_SEMAPHORE) for pair in (names[:2], names[2:]))
    operands, shift = {}, _HEADER_BITS
    for spec in row.fields:
        operands[spec.name] = _from_bits(spec, (word >> shift) & ((1 << spec.bits) - 1))
        shift += spec.bits
    return Op(row.name, operands, wait, signal)


def encode(ops: Iterable[Op]) -> NDArray[np.uint64]:
    """Words of a program, uint64 [instructions, 2], low half first."""
    words = [encode_op(op) for op in ops]
    halves = [(word & (2**64 - 1), word >> 64) for word in words]
    return np.array(halves, dtype=np.uint64).reshape(-1, 2)


def decode(words: NDArray[np.uint64]) -> list[Op]:
    """Instructions of `encode`'s words."""
    return [decode_op(int(low) | int(high) << 64) for low, high in words]


def _format_value(spec: Field, value: Operand) -> str:
    return f"r{value}" if spec.kind is Kind.REGISTER else repr(value)


def format_op(op: Op) -> str:
    """One line of assembly: `NAME field=value ... wait=a,b signal=c`."""
    parts = [op.name, *(f"{spec.name}={_format_value(spec, op.operands[spec.name])}" for spec in op.row.fields)]
    parts += [f"{what}={','.join(map(str, names))}" for what, names in (("wait", op.wait), ("signal", op.signal)) if names]
    return " ".join(parts)


def disassemble(words: NDArray[np.uint64]) -> str:
    """A program as assembly text, loop bodies indented; `assemble` gives the same words back."""
    lines, depth = [], 0
    for op in decode(words):
        depth -= op.name == "END"
        lines.append("  " * max(depth, 0) + format_op(op))
        depth += op.name == "LOOP"
    return "\n".join(lines) + "\n"


def _parse_value(spec: Field, text: str, where: str) -> Operand:
    try:
        if spec.kind is Kind.REGISTER:
            if not text.startswith("r"):
                raise ValueError
            return int(text[1:])
        if spec.kind in (Kind.FP32, Kind.BF16):
            value = float(text)
            return value if not math.isnan(value) else math.nan
        return int(text, 0)
    except ValueError:
        raise UnmaskError(f"{where}: {spec.name}={text}: expected {'rN' if spec.kind is Kind.REGISTER else spec.kind.value}") from None


def _parse_line(text: str, where: str) -> Op:
    name, *words = text.split()
    row = BY_NAME.get(name.upper())
    if row is None:
        raise UnmaskError(f"{where}: unknown instruction {name!r}")
    specs = {spec.name: spec for spec in row.fields}
    operands: dict[str, Operand] = {}
    semaphores: dict[str, tuple[int, ...]] = {"wait": (), "signal": ()}
    for word in words:
        match = re.fullmatch(r"(\w+)=(\S+)", word)
        if not match:
            raise UnmaskError(f"{where}: expected field=value, not {word!r}")
        key, value = match.groups()
        if key in semaphores:
            if not re.fullmatch(r"\d+(,\d+)*", value):
                raise UnmaskError(f"{where}: {key}={value}: expected semaphore numbers")
            semaphores[key] = tuple(map(int, value.split(",")))
        elif key in specs:
            operands[key] = _parse_value(specs[key], value, where)
        else:
            raise UnmaskError(f"{where}: {row.name} has no operand {key!r}; it takes {list(specs)}")
    return Op(row.name, operands, semaphores["wait"], semaphores["signal"])


def assemble(text: str) -> NDArray[np.uint64]:
    """Words of assembly text; `#` starts a comment.

    Raises:
        UnmaskError: names the line and what is wrong with it.
    """
    words: list[NDArray[np.uint64]] = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.split("#")[0].strip()
        if not line:
            continue
        where = f"line {number}"
        op = _parse_line(line, where)
        try:
            words.append(encode([op]))
        except UnmaskError as error:
            raise UnmaskError(f"{where}: {error}") from None
    return np.concatenate(words) if words else np.zeros((0, 2), np.uint64)


def check_loops(ops: Sequence[Op]) -> dict[int, int]:
    """Index of the END of every LOOP.

    Raises:
        UnmaskError: unbalanced LOOP and END, a count of 0, or a program that does not end in HALT.
    """
    ends: dict[int, int] = {}
    stack: list[int] = []
    for index, op in enumerate(ops):
        if op.name == "LOOP":
            if op.operands["count"] == 0:
                raise UnmaskError(f"instruction {index}: LOOP of 0 iterations")
            stack.append(index)
        elif op.name == "END":
            if not stack:
                raise UnmaskError(f"instruction {index}: END without LOOP")
            ends[stack.pop()] = index
    if stack:
        raise UnmaskError(f"instruction {stack[-1]}: LOOP without END")
    if not ops or ops[-1].name != "HALT":
        raise UnmaskError("a program ends in HALT")
    return ends

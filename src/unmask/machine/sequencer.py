"""The sequencer's register arithmetic, for every reading that needs real addresses."""

from __future__ import annotations

from collections.abc import Callable, MutableSequence

from unmask.isa.encoding import Op

REGISTER_BITS = 48
REGISTER_INSTRUCTIONS = frozenset({"S_LI", "S_ADDI", "S_ADD", "S_MULI", "S_XORI", "S_LD"})
_SIGN = 1 << (REGISTER_BITS - 1)


def wrap(value: int) -> int:
    """`value` as the registers hold it: 48 bits, two's complement."""
    return ((value + _SIGN) & ((1 << REGISTER_BITS) - 1)) - _SIGN


def execute(op: Op, registers: MutableSequence[int], load_word: Callable[[int], int]) -> None:
    """Run one of `REGISTER_INSTRUCTIONS`.

    Args:
        registers: 32 integers, changed in place.
        load_word: the integer SRAM word at an address.

    """
    get = {name: int(value) for name, value in op.operands.items()}
    match op.name:
        case "S_LI":
            result = get["value"]
        case "S_ADDI":
            result = registers[get["rs"]] + get["value"]
        case "S_ADD":
            result = registers[get["rs"]] + registers[get["rt"]]
        case "S_MULI":
            result = registers[get["rs"]] * get["value"]
        case "S_XORI":
            result = registers[get["rs"]] ^ get["value"]
        case "S_LD":
            result = load_word(registers[get["a"]])
        case _:
            raise ValueError(f"{op.name} is no register instruction")
    registers[get["rd"]] = wrap(result)

"""When the registers of the datapath load: in the cycles in which a step of an instruction that uses them passes by."""

from __future__ import annotations

from collections.abc import Iterable

from amaranth.hdl import Cat, Const, Module, Signal, Value

from unmask.rtl.control import Control


def loads(m: Module, control: Control, registers: int, users: Iterable[tuple[Value, int]], name: str) -> Value:
    """Bits for the `loads` of a pipeline, each a register: known a cycle ahead, since a bit drives every lane.

    Args:
        registers: of the pipeline.
        users: whether the instruction under way uses it, and by how many cycles, 1 or more, a step's operands are at its inputs after the
            step was issued.
        name: of the bits.
    """
    users, bits = list(users), []
    for index in range(registers):
        passes: Value = Const(0, 1)
        for used, cycles in users:
            passes = passes | (used & control.at(cycles + index - 1)[0])
        bit = Signal(name=f"{name}_loads_{index + 1}")
        m.d.sync += bit.eq(passes)
        bits.append(bit)
    return Cat(*bits)

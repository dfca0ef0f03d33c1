"""A program under construction: instructions whose addresses move with the loops around them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from unmask.isa.encoding import Op, Operand
from unmask.isa.table import BY_NAME, REGISTER_COUNT, Engine, Kind
from unmask.machine.access import Access, accesses
from unmask.machine.config import Machine

ENGINES = (Engine.LOAD, Engine.STORE, Engine.VECTOR, Engine.MATRIX)
"""Those that there may be, besides the sequencer."""


class Address(NamedTuple):
    """What a register holds: `base`, plus a step per iteration of each loop around the instruction, outermost first."""

    base: int
    steps: tuple[int, ...] = ()


class Touch(NamedTuple):
    """Everything between two locations of a memory, over all iterations."""

    space: str
    low: int
    high: int
    write: bool


def conflict(first: Sequence[Touch], second: Sequence[Touch]) -> bool:
    """Whether two instructions touch a common location and one of them writes it."""
    return any(a.space == b.space and (a.write or b.write) and a.low < b.high and b.low < a.high for a in first for b in second)


@dataclass
class Node:
    """One instruction.

    Attributes:
        name: of the table.
        constants: values of the operands that are no registers.
        addresses: what its register operands hold.
        loops: iterations of the loops around it, outermost first.
        touches: from `touched`.
        registers: operands whose register is fixed: those an S_LD fills, and what register instructions name.
    """

    name: str
    constants: dict[str, Operand] = field(default_factory=dict)
    addresses: dict[str, Address] = field(default_factory=dict)
    loops: tuple[int, ...] = ()
    touches: list[Touch] = field(default_factory=list)
    registers: dict[str, int] = field(default_factory=dict)
    wait: list[int] = field(default_factory=list)
    signal: list[int] = field(default_factory=list)

    @property
    def engine(self) -> Engine:
        return Engine(int(self.constants["engine"])) if self.name == "SYNC" else BY_NAME[self.name].engine


@dataclass
class Loop:
    """A hardware loop.

    Attributes:
        sealed: its instructions order themselves by semaphores of negative numbers, which get names later.
        credits: what a sealed loop's semaphores start with.
    """

    count: int
    body: list[Node | Loop]
    sealed: bool = False
    credits: dict[int, int] = field(default_factory=dict)

    def nodes(self) -> Iterator[Node]:
        for item in self.body:
            if isinstance(item, Loop):
                yield from item.nodes()
            else:
                yield item


Item = Node | Loop


@dataclass
class Probe:
    """What an instruction does with each of its register operands, read off the rules of `unmask.machine.access`."""

    roles: dict[str, list[Access]]
    scalars: list[str]
    fixed: list[Access]


def probe(name: str, constants: dict[str, Operand], machine: Machine) -> Probe:
    """Roles of the register operands of an instruction with these constants; an access starts at 0 where its register points.

    Raises:
        UnmaskError: as `unmask.machine.access.accesses`.
    """
    registers = [spec.name for spec in BY_NAME[name].fields if spec.kind is Kind.REGISTER]
    # Every register points to a place of its own, by which its accesses are known.
    values = [(index + 1) << 32 for index in range(REGISTER_COUNT)]
    found = accesses(Op(name, {**constants, **{reg: index for index, reg in enumerate(registers)}}), values, machine)
    roles: dict[str, list[Access]] = {}
    fixed: list[Access] = []
    for access in found:
        index = (access.start >> 32) - 1
        if index < 0:
            fixed.append(access)
        else:
            roles.setdefault(registers[index], []).append(access._replace(start=access.start & 0xFFFFFFFF))
    return Probe(roles, [reg for reg in registers if reg not in roles], fixed)


def touched(node: Node, machine: Machine) -> list[Touch]:
    """What a node touches in all its iterations."""
    found = probe(node.name, node.constants, machine)
    result = [Touch(a.space, a.start, a.start + a.cols, a.write) for a in found.fixed]
    for name, accesses_ in found.roles.items():
        base, steps = node.addresses[name]
        reach = [step * (count - 1) for step, count in zip(steps, node.loops, strict=False)]
        low, high = base + sum(r for r in reach if r < 0), base + sum(r for r in reach if r > 0)
        for a in accesses_:
            result.append(Touch(a.space, low + a.start, high + a.start + (a.rows - 1) * a.row_stride + a.cols, a.write))
    return result

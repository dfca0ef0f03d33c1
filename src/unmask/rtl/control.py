"""The vector engine's control: the instruction under way, its steps, what is known of them some cycles later, and when it ends."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data

from unmask.isa.row import Cost
from unmask.isa.table import BY_NAME
from unmask.machine.config import Machine
from unmask.rtl.decode import Operands
from unmask.rtl.faults import Fault
from unmask.rtl.generator import TILES, Generator
from unmask.rtl.latency import latency_of

BY_ROW = frozenset({Cost.LANES, Cost.FUNCTION, Cost.NOISE, Cost.REDUCE, Cost.SAMPLE, Cost.ROWS})
"""Cost classes whose words of the float and integer SRAM go by rows; those of the others go by entries."""
_TILED = BY_ROW - {Cost.ROWS}
COLUMNS = "V_COL_ABSMAX"
"""The instruction that walks down columns; its result is a row of the vector SRAM."""


class Control:
    """State and decoding, built into the vector engine's module.

    Attributes:
        held: the operands of the instruction under way, registers.
        generator: its steps.
        latency: cycles by cost class.
    """

    def __init__(self, m: Module, machine: Machine, names: Iterable[str], entry: Any, begin: Value, stop: Value) -> None:
        """Decode what begins, and start the generator.

        Args:
            entry: the dispatched instruction; begin: it starts in this cycle (never a SYNC).
            stop: forget what is under way.
        """
        self.m, self.machine, self.names = m, machine, sorted(names)
        # Steps outlive a short instruction on the way to the places where a long one's are looked for.
        self._stop, self._forget = stop, stop | begin
        vector = machine.vector
        self.costs = {BY_NAME[name].cost for name in self.names}
        self.latency = {cost: latency_of(cost, machine) for cost in sorted(self.costs)}
        operands = Operands(m, entry, self.names)
        self.held = {name: Signal.like(value, name=f"held_{name}") for name, value in operands.values.items()}
        self._is = {name: Signal(name=f"is_{name.lower()}") for name in self.names}
        self._of = {cost: Signal(name=f"of_{cost.name.lower()}") for cost in self.costs}
        self.opcode = Signal.like(entry.word.opcode, name="held_opcode")
        with m.If(begin):
            m.d.sync += self.opcode.eq(entry.word.opcode)
            m.d.sync += [self.held[name].eq(value) for name, value in operands.values.items()]
            m.d.sync += [flag.eq(entry.word.opcode == BY_NAME[name].opcode) for name, flag in self._is.items()]
            for cost, flag in self._of.items():
                m.d.sync += flag.eq(self._matches(entry, (name for name in self.names if BY_NAME[name].cost is cost)))
        self.generator = self._steps(entry, begin, operands, vector.vlen)
        self._chain: list[tuple[Value, Value]] = [(self.generator.valid & ~stop, self.generator.now)]

    def is_(self, *names: str) -> Value:
        """Whether the instruction under way is one of these; those that the engine does not have never are."""
        return _any(self._is[name] for name in names if name in self._is)

    def of(self, *costs: Cost) -> Value:
        """Whether its cost class is one of these."""
        return _any(self._of[cost] for cost in costs if cost in self._of)

    def by_class(self, values: dict[Cost, Any]) -> Value:
        """One value per cost class, chosen by that of the instruction under way; 0 for the others."""
        chosen: Value | None = None
        for cost, value in values.items():
            if cost in self._of:
                part = Mux(self._of[cost], value, 0)
                chosen = part if chosen is None else chosen | part
        return Value.cast(0) if chosen is None else chosen

    def at(self, cycles: int) -> tuple[Value, data.View]:
        """The step that was issued that many cycles ago: whether there was one, and if so what is known of it."""
        while len(self._chain) <= cycles:
            valid, now = self._chain[-1]
            index = len(self._chain)
            later_valid, later = Signal(name=f"step_valid_{index}"), Signal(self.generator.layout, name=f"step_{index}")
            self.m.d.sync += later_valid.eq(valid & ~self._forget)
            with self.m.If(valid):
                self.m.d.sync += later.eq(now)
            self._chain.append((later_valid, later))
        valid, now = self._chain[cycles]
        return valid, data.View(self.generator.layout, Value.cast(now))

    def ends(self) -> Value:
        """Strobe in the last cycle of the instruction: `latency - 1` cycles after its last step's."""
        left, waiting = Signal(range(max(self.latency.values()) + 1)), Signal()
        with self.m.If(self.generator.last):
            self.m.d.sync += [waiting.eq(1), left.eq(self.by_class({cost: cycles - 2 for cost, cycles in self.latency.items()}))]
        with self.m.Elif(waiting):
            self.m.d.sync += [left.eq(left - 1), waiting.eq(left != 0)]
        with self.m.If(self._stop):
            self.m.d.sync += waiting.eq(0)
        return waiting & (left == 0)

    def _matches(self, entry: Any, names: Iterable[str]) -> Value:
        return _any(entry.word.opcode == BY_NAME[name].opcode for name in names)

    def _steps(self, entry: Any, begin: Value, operands: Operands, vlen: int) -> Generator:
        m, vector = self.m, self.machine.vector
        m.submodules.generator = generator = Generator(
            self.machine.vector_elements, vector.granule, vlen, vector.scalar_interval, columns=COLUMNS in self.names
        )

        def matches(*costs: Cost) -> Value:
            return self._matches(entry, (name for name in self.names if BY_NAME[name].cost in costs))

        def operand(name: str) -> Value:
            return operands.values.get(name, Value.cast(0))

        tiled, rows, masks = matches(*_TILED), matches(Cost.ROWS), matches(Cost.TOPK)
        m.d.comb += [
            generator.start.eq(begin),
            generator.stop.eq(self._stop),
            generator.rows.eq(Mux(tiled | rows, operand("rows"), Mux(masks, 2, 1))),
            generator.columns.eq(Mux(tiled, operand("cols"), Mux(rows, 1, operand("count")))),
            generator.step.eq(Mux(tiled, vlen, Mux(matches(Cost.INTEGER), vector.integer_lanes, 1))),
            generator.down.eq(self._matches(entry, {COLUMNS} & set(self.names))),
            generator.interval.eq(Mux(matches(Cost.SCALAR_FUNCTION), vector.scalar_interval, 1)),
        ]
        for tile in TILES:
            users = [name for name in self.names if any(spec.name == f"{tile}_stride" for spec in BY_NAME[name].fields)]
            if tile == "dst":
                users += {COLUMNS} & set(self.names)
            m.d.comb += [
                getattr(generator, f"{tile}_base").eq(operand(tile)),
                getattr(generator, f"{tile}_stride").eq(operand(f"{tile}_stride")),
                getattr(generator, f"{tile}_used").eq(self._matches(entry, users)),
            ]
        return generator

    def faults(self, outside: Value) -> Value:
        """The fault of the step issued now: an empty instruction, too many rows or entries, an address.

        outside: a word's address leaves its memory.
        """
        vector, generator = self.machine.vector, self.generator
        rows, count = self.held.get("rows", Value.cast(0)), self.held.get("count", Value.cast(0))
        first = self.held.get("first", Value.cast(0))
        by_row = self.of(*BY_ROW)
        empty = Mux(by_row, rows == 0, count == 0) | (self.of(*_TILED) & (self.held.get("cols", Value.cast(1)) == 0))
        sums = self.is_("V_RED_SUM", "V_RED_SUM_WIN", "V_RED_SUM_GE") & (rows > vector.accumulators)
        kept = self.is_("V_SAMPLE") & (first + rows > vector.accumulators)
        kept |= self.is_("V_SAMPLE_END") & (first + count > vector.accumulators)
        kept |= self.is_("V_SAMPLE") & (self.held.get("period", Value.cast(1)) == 0)
        sorted_ = self.is_("V_TOPK_MASK", "V_BARS_MASK") & (count > vector.sorter)
        wrong = Mux(
            empty | sums | kept | sorted_,
            Fault.SIZE,
            Mux(generator.misaligned, Fault.ALIGNMENT, Mux(generator.outside | outside, Fault.ADDRESS, Fault.NONE)),
        )
        return Mux(generator.valid, wrong, Fault.NONE)


def _any(flags: Iterable[Value]) -> Value:
    result = Value.cast(0)
    for flag in flags:
        result = result | flag
    return result[0] if len(result) > 1 else result

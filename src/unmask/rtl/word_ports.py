"""The vector engine's ports to the float and the integer SRAM: which operand is addressed, by row or by entry, and whether it fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from amaranth.hdl import Const, Module, Mux, Signal, Value

from unmask.isa.row import Cost
from unmask.rtl.control import BY_ROW, Control
from unmask.rtl.words import WORDS, Words

FLOAT_READS, FLOAT_WRITES = ("float_first", "float_second"), ("float_first_result", "float_second_result")
INTEGER_READS, INTEGER_WRITE = ("integer_first", "integer_second", "integer_third"), "integer_result"


class WordPorts:
    """Addresses of the instruction under way, built into the vector engine's module.

    Attributes:
        outside: an operand leaves its memory in the step issued now.
    """

    def __init__(self, m: Module, control: Control, ports: Any) -> None:
        """Choose the operand that each port addresses.

        Args:
            ports: has the ports as attributes.
        """
        self._m, self._control, self._ports = m, control, ports
        sram = control.machine.sram
        self._by_row = Signal(name="words_by_row")
        m.d.comb += self._by_row.eq(control.of(*BY_ROW))
        self._base: dict[str, Value] = {}
        self.outside: Value = Const(0, 1)
        groups: list[tuple[tuple[str, ...], Callable[[Words], tuple[str, ...]], int, bool]] = [
            (FLOAT_READS, lambda words: words.float_reads, sram.float_words, True),
            (FLOAT_WRITES, lambda words: words.float_writes, sram.float_words, False),
            (INTEGER_READS, lambda words: words.integer_reads, sram.integer_words, True),
            ((INTEGER_WRITE,), lambda words: words.integer_writes, sram.integer_words, False),
        ]
        _, now = control.at(0)
        for names, of, size, read in groups:
            for index, port in enumerate(names):
                users: dict[str, list[str]] = {}
                always: list[str] = []
                running: list[str] = []
                for name in control.names:
                    words = WORDS.get(name, Words())
                    if index < len(of(words)):
                        users.setdefault(of(words)[index], []).append(name)
                        (running if read and words.running_only else always).append(name)
                if not users:
                    continue
                base = Signal(max(len(control.held[operand]) for operand in users), name=f"{port}_base")
                for operand, instructions in users.items():
                    with m.If(control.is_(*instructions)):
                        m.d.comb += base.eq(control.held[operand])
                self._base[port] = base
                used = control.is_(*always) | (control.is_(*running) & control.held.get("running", Const(0, 1)))
                count = Mux(control.of(Cost.INTEGER), now.count, 1)
                offset = Mux(self._by_row, now.row, now.column)
                self.outside = self.outside | (used & ((base >= size) | (base[: size.bit_length()] + offset + count > size)))

    def address(self, port: str, cycles: int) -> Value:
        """The word of the step issued that many cycles ago."""
        _, now = self._control.at(cycles)
        return self._base[port] + Mux(self._by_row, now.row, now.column)

    def read(self, port: str, later: Sequence[tuple[Value, int]]) -> None:
        """Connect a read port.

        Args:
            later: conditions under which its address comes so many cycles after the step is issued; else it comes at once.
        """
        if port not in self._base:
            return
        m, signal = self._m, getattr(self._ports, port)
        m.d.comb += [signal.enable.eq(1), signal.address.eq(self.address(port, 0))]
        for condition, cycles in later:
            with m.If(condition):
                m.d.comb += signal.address.eq(self.address(port, cycles))

    def write(self, port: str, cost: Cost, cycles: int, condition: Value, value: Value) -> None:
        """Write one word per step, so many cycles after it is issued, when `condition` holds; for one cost class.

        The integer SRAM's port may be given several words, of which those of the step's entries are written.
        """
        if port not in self._base:
            return
        m, signal = self._m, getattr(self._ports, port)
        valid, now = self._control.at(cycles)
        mask = (Const(1, len(signal.mask) + 1) << now.count) - 1 if cost is Cost.INTEGER else Const(1, 1)
        with m.If(self._control.of(cost)):
            m.d.comb += [
                signal.address.eq(self.address(port, cycles)),
                signal.mask.eq(Mux(valid & condition, mask[: len(signal.mask)], 0)),
                signal.data.as_value().eq(value),
            ]

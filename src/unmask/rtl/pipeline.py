"""Registers of a datapath: where its latency, which the machine configuration states, turns into flip-flops."""

from __future__ import annotations

from contextlib import nullcontext

from amaranth.hdl import Module, Signal, Value, ValueLike
from amaranth.lib.wiring import In, Member


def delay(m: Module, value: ValueLike, cycles: int, name: str, loads: ValueLike | None = None) -> Value:
    """`value`, that many cycles later; reset to 0.

    loads: one bit per register, the first one's lowest: it takes what comes in the cycles in which its bit is 1, and holds it in others.
        Such registers have no reset: what they hold means nothing before it has come all the way.
    """
    result = Value.cast(value)
    for index in range(cycles):
        register = Signal(result.shape(), name=f"{name}_{index + 1}", reset_less=loads is not None)
        with nullcontext() if loads is None else m.If(Value.cast(loads)[index]):
            m.d.sync += register.eq(result)
        result = register
    return result


def load_bits(registers: int) -> int:
    """Width of a port with a bit per register of a pipeline; there is one bit without registers too."""
    return max(1, registers)


def loads_of(registers: int) -> Member:
    """A port with a bit per register of a pipeline; what is not connected lets all of them run."""
    return In(load_bits(registers), init=(1 << load_bits(registers)) - 1)


def strobe(m: Module, value: ValueLike, cycles: int, clear: ValueLike, name: str) -> Value:
    """A strobe, that many cycles later; `clear` forgets those on their way."""
    result = Value.cast(value)
    for index in range(cycles):
        register = Signal(name=f"{name}_{index + 1}")
        m.d.sync += register.eq(result & ~Value.cast(clear))
        result = register
    return result


class Pipeline:
    """A datapath without stalls, whose author marks the places where it may be cut, and whose user says how many registers it has.

    With fewer registers than places some places stay wires; with more, some places hold several, so that synthesis can move them.

    Its registers run in every cycle, or load when their user says so: a value that the user follows through the pipeline, cycle by cycle,
    with the bits of `loads` comes out as late and as it would otherwise, and nothing moves in between.

    Attributes:
        m: the module that the datapath is built in.
        places, registers: as given.
    """

    def __init__(self, m: Module, places: int, registers: int, name: str = "stage", loads: ValueLike | None = None) -> None:
        """Start at the inputs.

        Args:
            m: the module to add registers to.
            places: how often `cut` will be called.
            registers: cycles from the inputs to the outputs.
            name: prefix of the registers' names.
            loads: bit k is 1 in the cycles in which the registers load that are k + 1 cycles behind the inputs; by default all always do.

        Raises:
            ValueError: a negative number of registers, or registers without a place.
        """
        if registers < 0 or (registers and not places):
            raise ValueError(f"{registers} registers at {places} places")
        self.m, self.places, self.registers = m, places, registers
        self._name, self._passed = name, 0
        self._loads = None if loads is None else Value.cast(loads)

    def cut(self, *values: ValueLike) -> list[Value]:
        """The next place: all values that are still needed, behind the registers that this place holds.

        Raises:
            ValueError: more places than announced.
        """
        if self._passed == self.places:
            raise ValueError(f"more than {self.places} places in pipeline {self._name}")
        here, there = (count * self.registers // self.places for count in (self._passed, self._passed + 1))
        self._passed += 1
        loads = None if self._loads is None else self._loads[here:there]
        return [delay(self.m, value, there - here, f"{self._name}{self._passed}_{index}", loads) for index, value in enumerate(values)]

    def done(self) -> None:
        """Check that every announced place was passed, without which the latency would be short.

        Raises:
            ValueError: some were not.
        """
        if self._passed != self.places:
            raise ValueError(f"{self._passed} of {self.places} places of pipeline {self._name} were passed")

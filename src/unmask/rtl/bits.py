"""Shifters, counters and tables that the arithmetic units are made of; plain gates, no registers.

Amaranth works out the shape of an expression from its leaves each time, so one that uses its operands twice, over several levels, takes
exponential time to build: such levels are `wire`s.
"""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value


def wire(m: Module, value: Value, name: str = "wire") -> Signal:
    """A signal that carries `value`."""
    signal = Signal(value.shape(), name=name)
    m.d.comb += signal.eq(value)
    return signal


def leading_zeros(m: Module, value: Value) -> Value:
    """How many zeros stand above the highest one of an unsigned value; at least its width where it is 0."""
    width = len(value)
    size = 1 << (width - 1).bit_length()
    return _leading_zeros(m, Cat(Const(0, size - width), wire(m, value)))


def _leading_zeros(m: Module, value: Value) -> Value:
    width = len(value)
    if width == 1:
        return ~value
    high, low = (wire(m, _leading_zeros(m, half)) for half in (value[width // 2 :], value[: width // 2]))
    # The top bit of a half's count says that the half is 0.
    empty = high[-1]
    return Cat(Mux(empty, low[:-1], high[:-1]), empty & ~low[-1], empty & low[-1])


def shift_left(m: Module, value: Value, amount: Value) -> Value:
    """`value` moved up by `amount`, in the width of `value`."""
    value, amount = wire(m, value), wire(m, amount)
    for index in range(len(amount)):
        value = wire(m, Mux(amount[index], Cat(Const(0, min(1 << index, len(value))), value)[: len(value)], value))
    return value


def shift_right(m: Module, value: Value, amount: Value) -> Value:
    """`value` (unsigned) moved down by `amount`, in the width of `value`."""
    value, amount = wire(m, value), wire(m, amount)
    for index in range(len(amount)):
        value = wire(m, Mux(amount[index], Cat(value[1 << index :], Const(0, min(1 << index, len(value)))), value))
    return value


def shift_right_sticky(m: Module, value: Value, amount: Value) -> tuple[Value, Value]:
    """`value` (unsigned) moved down by `amount`, in the width of `value`, and whether a one was lost."""
    value, amount, lost = wire(m, value), wire(m, amount), Const(0, 1)
    for index in range(len(amount)):
        step = min(1 << index, len(value))
        lost = lost | (amount[index] & value[:step].any())
        value = wire(m, Mux(amount[index], Cat(value[step:], Const(0, step)), value))
    return value, lost


def saturated(value: Value, width: int) -> Value:
    """A signed value in `width` bits, the nearest there is."""
    if len(value) <= width:
        return value
    sign = value[-1]
    fits = Mux(sign, value[width - 1 :].all(), ~value[width - 1 :].any())
    return Mux(fits, value[:width], Cat((~sign).replicate(width - 1), sign)).as_signed()


def table(entries: Sequence[int], index: Value, width: int) -> Value:
    """`entries[index]`, unsigned of `width` bits: logic, not a memory. There are as many entries as the index has values."""
    if len(entries) == 1:
        return Const(entries[0], width)
    half = len(entries) // 2
    low, high = (table(part, index[:-1], width) for part in (entries[:half], entries[half:]))
    return Mux(index[-1], high, low)

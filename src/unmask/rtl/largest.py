"""The largest of many numbers, by digits."""

from __future__ import annotations

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Value

from unmask.rtl.bits import wire

DIGIT = 4
"""Bits that are compared at once."""


def largest(m: Module, values: list[Value]) -> Value:
    """The largest of unsigned values, digit by digit of `DIGIT` bits from the top, among those that have the largest so far.

    Of each digit stands there which thresholds it reaches; one that any value reaches, the largest does. That is half as deep as a tree of
    comparisons, of as many levels as values have bits, and as large.
    """
    found: list[Value] = []
    alive: list[Value] = [Const(1, 1)] * len(values)
    for low in reversed(range(0, len(values[0]), DIGIT)):
        digits = [wire(m, value[low : low + DIGIT]) for value in values]
        count = (1 << len(digits[0])) - 1
        every = Const((1 << count) - 1, count)
        reached = [wire(m, ~(every << digit)[:count] & one.replicate(count)) for digit, one in zip(digits, alive, strict=True)]
        while len(reached) > 1:
            reached = [wire(m, reduce(or_, reached[index : index + 2])) for index in range(0, len(reached), 2)]
        top = wire(m, _count(reached[0], len(digits[0])))
        found.insert(0, top)
        alive = [wire(m, one & (digit == top)) for digit, one in zip(digits, alive, strict=True)]
    return wire(m, Cat(found))


def _count(reached: Value, bits: int) -> Value:
    """How many ones a value has whose ones are its lowest bits."""
    # A bit is 1 if an odd multiple of its weight is reached, and not the even one after it.
    padded = Cat(reached, Const(0, 1))
    weights = [1 << bit for bit in range(bits)]
    return Cat(Cat(padded[at - 1] & ~padded[at + w - 1] for at in range(w, 1 << bits, 2 * w)).any() for w in weights)

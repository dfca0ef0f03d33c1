"""Sums of a vector: window sums of exponentials, exact fixed-point sums, and sums of terms scaled beforehand, in one tree.

A sum is that of `unmask.numerics.window`: a level and two counters. The rule that merges two of them is associative, so the tree needs no
maximum first: of two nodes the one of the higher level keeps its counters, the other's move down by the difference of the levels, its upper
counter becoming the lower one if that is one, both being dropped if it is more. A fixed-point sum is the same at one common level, with the
high 32 bits of each 64-bit term, modulo 2^32, as the upper and the low ones as the lower counter.
"""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Cat, Module, Mux, Value, ValueLike, signed
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from unmask.numerics import accumulator
from unmask.numerics.window import BIN_BITS
from unmask.rtl import floating
from unmask.rtl.bits import wire
from unmask.rtl.functions import LEVEL_BITS, NO_LEVEL, Weight, weight_level
from unmask.rtl.pipeline import Pipeline

#: Merges in a row that fit between two registers at 1 GHz in ASAP7.
LEVELS_PER_PLACE = 2

EXPONENT_BITS = 26
"""Of a weight: `functions.WEIGHT_CAP` keeps it within."""
TERM_BITS = 2 * BIN_BITS
_SIGNIFICAND = 7
_FLOOR = 8  # Bits below the last place of a term that a significand can reach without vanishing.


class Sum(enum.IntEnum, shape=2):
    """What the tree adds up.

    WINDOW: weights, each at its own level: V_SAMPLE. FIXED: values, with `accumulator.VECTOR_FRACTION` fraction bits: V_RED_SUM and
    V_RED_SUM_GE. SCALED: values in [0, 1) times 2^64, at a level that the tree does not know: V_RED_SUM_WIN.
    """

    WINDOW = 0
    FIXED = 1
    SCALED = 2


@dataclass(frozen=True)
class Node:
    """A sum: the level, signed `LEVEL_BITS` (`NO_LEVEL` without terms), and both counters, unsigned."""

    level: Value
    upper: Value
    lower: Value


def merge(m: Module, a: Node, b: Node, stays: ValueLike = 0) -> Node:
    """The sum of two sums of equally long counters, which get one bit longer; `stays`: b counts at the higher level as it is."""
    difference = wire(m, a.level - b.level)
    keeps_b = wire(m, (difference <= 0) | stays)
    keeps_a = wire(m, ~difference[-1])
    upper, lower = zip(_moved(m, a, keeps_a, difference == -1), _moved(m, b, keeps_b, ~keeps_b & (difference == 1)), strict=True)
    level = Mux(difference[-1], b.level, a.level)
    return Node(wire(m, level), wire(m, upper[0] + upper[1]), wire(m, lower[0] + lower[1]))


def _moved(m: Module, node: Node, stays: Value, falls: Value) -> tuple[Value, Value]:
    """The counters of a node at the higher of both levels."""
    width, falls = len(node.upper), wire(m, falls)
    upper = node.upper & stays.replicate(width)
    return wire(m, upper), wire(m, (node.lower & stays.replicate(width)) | (node.upper & falls.replicate(width)))


@dataclass(frozen=True)
class Term:
    """A term before it is put in place: significand (signed, 9 bits) times 2^place in 64 bits, 0 <= place + `_FLOOR` < 2^7; and its level."""

    level: Value
    significand: Value
    place: Value

    def node(self, m: Module) -> Node:
        """The term in both bins; bits below them are cut off, towards minus infinity."""
        value = wire(m, self.significand.as_signed())
        for index in range(len(self.place)):
            # A significand never leaves the term, so bits above it are sign and need no multiplexer.
            width = min(len(value) + (1 << index), TERM_BITS + _FLOOR)
            value = wire(m, Mux(self.place[index], value << (1 << index), value)[:width].as_signed())
        whole = wire(m, value[_FLOOR : TERM_BITS + _FLOOR])
        return Node(self.level, whole[BIN_BITS:], whole[:BIN_BITS])


def term(m: Module, kind: Value, x: ValueLike, weight: Weight, counts: Value) -> tuple[Term, Value]:
    """What a lane adds, and whether it makes the sum invalid.

    Args:
        kind: a `Sum`. x: BF16 bits of the lane. weight: those of x (for `Sum.WINDOW` alone). counts: whether the lane takes part.
    """
    number = floating.unpack(m, x)
    windowed, fixed = wire(m, kind == Sum.WINDOW), wire(m, kind == Sum.FIXED)
    # x is significand 2^(exponent - 134); a term's last place is worth 2^-32 or 2^-64.
    fraction = Mux(fixed, accumulator.VECTOR_FRACTION, TERM_BITS)
    unit = floating.BIAS + _SIGNIFICAND
    place = wire(m, (number.exponent - unit + fraction + _FLOOR).as_signed())
    fits = Mux(fixed, number.exponent < floating.BIAS + 63 - accumulator.VECTOR_FRACTION, number.exponent < floating.BIAS)
    negative = number.sign & ~number.zero
    held = wire(m, Mux(windowed, ~number.nan & ~(number.infinity & ~number.sign), fits & (fixed | ~negative)))
    low = weight.exponent[: (BIN_BITS - 1).bit_length()]
    place = Mux(windowed, low + (BIN_BITS - _SIGNIFICAND + _FLOOR), Mux(place[-1], 0, place))
    magnitude = Mux(windowed, weight.significand, number.significand) & (counts & held).replicate(8)
    minus = wire(m, fixed & number.sign)
    significand = (magnitude ^ minus.replicate(9)) + minus
    level = Mux(windowed, Mux(counts, weight_level(m, weight), NO_LEVEL), 0)
    result = Term(wire(m, level[:LEVEL_BITS].as_signed()), wire(m, significand[:9].as_signed()), wire(m, place[:7]))
    return result, wire(m, counts & ~held)


class WindowTree(wiring.Component):
    """The sum of a vector's lanes.

    Ports, all of one vector, the outputs `registers` cycles after the inputs:
        kind: a `Sum`; values: BF16 bits of each lane; mask: the lanes that take part.
        significands, exponents: the weights of the values as `functions.weight` gives them, for `Sum.WINDOW`.
        level, upper, lower: the sum (`Node`); level is 0 unless kind is `Sum.WINDOW`. Of a `Sum.FIXED` upper is modulo 2^32.
        invalid: whether a lane that takes part holds what the sum cannot: a NaN; plus infinity (`Sum.WINDOW`), an infinity or a magnitude
            of 2^31 or more (`Sum.FIXED`), anything outside [0, 1) (`Sum.SCALED`). It adds nothing.
    """

    def __init__(self, lanes: int, registers: int) -> None:
        """Of so many lanes, a power of two; `places(lanes)` registers suffice for 1 GHz in ASAP7."""
        self._levels, self._registers = exact_log2(lanes), registers
        width = BIN_BITS + self._levels
        super().__init__(
            {
                "kind": In(Sum),
                "values": In(data.ArrayLayout(16, lanes)),
                "significands": In(data.ArrayLayout(8, lanes)),
                "exponents": In(data.ArrayLayout(signed(EXPONENT_BITS), lanes)),
                "mask": In(lanes),
                "level": Out(signed(LEVEL_BITS)),
                "upper": Out(width),
                "lower": Out(width),
                "invalid": Out(1),
            }
        )

    @staticmethod
    def places(lanes: int) -> int:
        """Where registers can go: before the terms are put in place, and after every second merge."""
        return 1 + -(-exact_log2(lanes) // LEVELS_PER_PLACE)

    def elaborate(self, _: object) -> Module:
        m = Module()
        p = Pipeline(m, self.places(len(self.mask)), self._registers)
        lanes = [self._lane(m, index) for index in range(len(self.mask))]
        invalid = wire(m, Cat(bad for _, bad in lanes).any())
        invalid, *later = p.cut(invalid, *(Cat(t.level, t.significand, t.place) for t, _ in lanes))
        nodes = [_term_of(packed).node(m) for packed in later]
        for level in range(self._levels):
            if level and level % LEVELS_PER_PLACE == 0:
                invalid, *nodes = _cut(p, invalid, nodes)
            nodes = [merge(m, low, high) for low, high in zip(nodes[::2], nodes[1::2], strict=True)]
        invalid, root = _cut(p, invalid, nodes)
        p.done()
        m.d.comb += [self.level.eq(root.level), self.upper.eq(root.upper), self.lower.eq(root.lower), self.invalid.eq(invalid)]
        return m

    def _lane(self, m: Module, index: int) -> tuple[Term, Value]:
        weight = Weight(wire(m, Value.cast(self.significands[index])), wire(m, Value.cast(self.exponents[index])))
        return term(m, Value.cast(self.kind), self.values[index], weight, self.mask[index])


def _term_of(packed: Value) -> Term:
    return Term(packed[:LEVEL_BITS].as_signed(), packed[LEVEL_BITS : LEVEL_BITS + 9], packed[LEVEL_BITS + 9 :])


def _cut(p: Pipeline, invalid: Value, nodes: list[Node]) -> list[Value | Node]:
    width = len(nodes[0].upper)
    invalid, *later = p.cut(invalid, *(Cat(node.level, node.upper, node.lower) for node in nodes))
    split = LEVEL_BITS + width
    return [invalid, *(Node(packed[:LEVEL_BITS].as_signed(), packed[LEVEL_BITS:split], packed[split:]) for packed in later)]

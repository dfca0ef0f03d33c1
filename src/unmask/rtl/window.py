"""Sums of a vector: window sums of exponentials, exact fixed-point sums, and sums of terms scaled beforehand, in one tree.

A sum is that of `unmask.numerics.window`: a level and two counters. The rule that merges two of them is associative, so the tree needs no
maximum first: of two nodes the one of the higher level keeps its counters, the other's move down by the difference of the levels, its upper
counter becoming the lower one if that is one, both being dropped if it is more. A fixed-point sum is the same at one common level, with the
high 32 bits of each 64-bit term, modulo 2^32, as the upper and the low ones as the lower counter.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Value, ValueLike, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from unmask.numerics import accumulator
from unmask.numerics.window import BIN_BITS
from unmask.rtl import floating
from unmask.rtl.bits import wire
from unmask.rtl.functions import LEVEL_BITS, NO_LEVEL, Weight, weight_level
from unmask.rtl.pipeline import Pipeline, loads_of

#: Merges in a row that fit between two registers at 1 GHz in ASAP7.
LEVELS_PER_PLACE = 2

EXPONENT_BITS = 26
"""Of a weight: `functions.WEIGHT_CAP` keeps it within."""
TERM_BITS = 2 * BIN_BITS
_SIGNIFICAND = 7
_FLOOR = 8  # Bits below the last place of a term that a significand can reach without vanishing.


class Sum(enum.IntEnum):
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


@dataclass(frozen=True)
class _Move:
    """What becomes of the counters of two sums, 1 bit each: whether they stay, and whether the upper one becomes the lower one."""

    first_stays: Value
    first_falls: Value
    second_stays: Value
    second_falls: Value

    def packed(self) -> Value:
        return Cat(self.first_stays, self.first_falls, self.second_stays, self.second_falls)


def _compare(m: Module, a: Value, b: Value) -> tuple[_Move, Value]:
    """What becomes of the counters of sums at two levels, and the level of their sum."""
    higher = wire(m, b > a)
    move = _Move(~higher, _follows(m, b, a), higher | (a == b), _follows(m, a, b))
    return move, wire(m, Mux(higher, b, a))


def _follows(m: Module, high: Value, low: Value) -> Value:
    """Whether high = low + 1, that is high + ~low = 0, which needs no carry: above the lowest pair of ones exactly one of both is set."""
    high, low = wire(m, high.as_unsigned()), wire(m, ~low.as_unsigned())
    return wire(m, (high ^ low) == Cat(Const(0, 1), (high | low)[:-1]))


def _add(m: Module, move: _Move, a: tuple[Value, Value], b: tuple[Value, Value]) -> tuple[Value, Value]:
    first, second = _moved(m, *a, move.first_stays, move.first_falls), _moved(m, *b, move.second_stays, move.second_falls)
    return wire(m, first[0] + second[0]), wire(m, first[1] + second[1])


def _moved(m: Module, upper: Value, lower: Value, stays: Value, falls: Value) -> tuple[Value, Value]:
    stay, fall = stays.replicate(len(upper)), falls.replicate(len(upper))
    return wire(m, upper & stay), wire(m, (lower & stay) | (upper & fall))


def merge(m: Module, a: Node, b: Node, stays: Value) -> Node:
    """The sum of two sums of equally long counters, which get one bit longer; `stays`: b counts at the higher level as it is."""
    move, level = _compare(m, a.level, b.level)
    move = _Move(move.first_stays, move.first_falls, wire(m, move.second_stays | stays), wire(m, move.second_falls & ~stays))
    return Node(level, *_add(m, move, (a.upper, a.lower), (b.upper, b.lower)))


@dataclass(frozen=True)
class Term:
    """A term before it is put in place: significand (signed, 9 bits) times 2^(place - `_FLOOR`), the place of 7 bits; and its level."""

    level: Value
    significand: Value
    place: Value

    def counters(self, m: Module) -> tuple[Value, Value]:
        """The term in both bins, upper and lower; bits below them are cut off, towards minus infinity."""
        value = wire(m, self.significand.as_signed())
        for index in range(len(self.place)):
            # A significand never leaves the term, so bits above it are sign and need no multiplexer.
            width = min(len(value) + (1 << index), TERM_BITS + _FLOOR)
            value = wire(m, Mux(self.place[index], value << (1 << index), value)[:width].as_signed())
        whole = wire(m, value[_FLOOR : TERM_BITS + _FLOOR])
        return whole[BIN_BITS:], whole[:BIN_BITS]


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
        loads: the registers that load, as `Pipeline` has it.
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
                "loads": loads_of(registers),
                "level": Out(signed(LEVEL_BITS)),
                "upper": Out(width),
                "lower": Out(width),
                "invalid": Out(1),
            }
        )

    @staticmethod
    def places(lanes: int) -> int:
        """Where registers can go: before the terms are put in place, after the first merge, and after every second one from there."""
        return 2 + int(exact_log2(lanes)) // LEVELS_PER_PLACE

    def elaborate(self, _: object) -> Module:
        m = Module()
        count = len(self.mask)
        p = Pipeline(m, self.places(count), self._registers, loads=self.loads)
        lanes = [self._lane(m, index) for index in range(count)]
        invalid = wire(m, Cat(bad for _, bad in lanes).any())
        # Levels are compared a place ahead of the counters that move by them.
        moves, levels = _planned(m, [t.level for t, _ in lanes], 1)
        packed = [wire(m, Cat(t.significand, t.place)) for t, _ in lanes]
        invalid, moves, levels, packed = _cut(p, invalid, moves, levels, packed)
        sums = [Term(levels[0], value[:9], value[9:]).counters(m) for value in packed]
        while moves:
            ahead, levels_ahead = _planned(m, levels, LEVELS_PER_PLACE)
            for of_level in moves:
                sums = [_add(m, move, *pair) for move, pair in zip(of_level, zip(sums[::2], sums[1::2], strict=True), strict=True)]
            width = len(sums[0][0])
            invalid, moves, levels, packed = _cut(p, invalid, ahead, levels_ahead, [wire(m, Cat(*counters)) for counters in sums])
            sums = [(value[:width], value[width:]) for value in packed]
        p.done()
        (level,), ((upper, lower),) = levels, sums
        m.d.comb += [self.level.eq(level), self.upper.eq(upper), self.lower.eq(lower), self.invalid.eq(invalid)]
        return m

    def _lane(self, m: Module, index: int) -> tuple[Term, Value]:
        weight = Weight(wire(m, Value.cast(self.significands[index])), wire(m, Value.cast(self.exponents[index])))
        return term(m, Value.cast(self.kind), self.values[index], weight, self.mask[index])


def _planned(m: Module, levels: list[Value], most: int) -> tuple[list[list[_Move]], list[Value]]:
    """The moves of the next merges, as many as there are but not more than `most`, and the levels after them."""
    moves: list[list[_Move]] = []
    while len(levels) > 1 and len(moves) < most:
        compared = [_compare(m, a, b) for a, b in zip(levels[::2], levels[1::2], strict=True)]
        moves.append([move for move, _ in compared])
        levels = [level for _, level in compared]
    return moves, levels


def _cut(
    p: Pipeline, invalid: Value, moves: list[list[_Move]], levels: list[Value], sums: list[Value]
) -> tuple[Value, list[list[_Move]], list[Value], list[Value]]:
    flat = [move.packed() for of_level in moves for move in of_level]
    invalid, *later = p.cut(invalid, *flat, *levels, *sums)
    split = iter(later)
    moved = [[_Move(*next(split)) for _ in of_level] for of_level in moves]
    return invalid, moved, [next(split) for _ in levels], list(split)

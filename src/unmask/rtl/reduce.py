"""The maximum of a vector with its lane and a companion, and what a lane does of the maximum down a column."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Cat, Module, Mux, Value, ValueLike
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from unmask.numerics import bf16
from unmask.rtl.bf16 import ordered
from unmask.rtl.bits import wire
from unmask.rtl.pipeline import Pipeline, loads_of

#: Comparisons in a row that fit between two registers at 1 GHz in ASAP7.
LEVELS_PER_PLACE = 3
#: Those that fit behind a leaf.
FIRST_LEVELS = 2

_MINUS_INFINITY = bf16.SIGN_BIT | bf16.INFINITY_BITS


def comparable(m: Module, bits: ValueLike) -> Value:
    """BF16 bits (16) with minus infinity in place of a NaN, which never wins a maximum."""
    bits = Value.cast(bits)
    return wire(m, Mux(bits[:15] > bf16.INFINITY_BITS, _MINUS_INFINITY, bits)[:16])


def column_absmax(m: Module, value: ValueLike, previous: ValueLike) -> Value:
    """What V_COL_ABSMAX makes of an element and the maximum so far, BF16 bits (16): the larger of its magnitude and that.

    A NaN counts as 0, as what was there before does if it is negative. Without a maximum so far, `previous` must be +0.
    """
    value, previous = wire(m, Value.cast(value)), wire(m, Value.cast(previous))
    magnitude = wire(m, Mux(value[:15] > bf16.INFINITY_BITS, 0, value[:15])[:15])
    replaced = previous[15] | (previous[:15] > bf16.INFINITY_BITS) | (magnitude > previous[:15])
    return wire(m, Mux(replaced, magnitude, previous)[:16])


@dataclass(frozen=True)
class _Candidate:
    """A lane of a group of lanes, none if `key` is 0: that of a score is never, because a NaN counts as minus infinity."""

    key: Value
    minus_zero: Value
    companion: Value
    lane: Value

    def packed(self) -> Value:
        return Cat(self.key, self.minus_zero, self.companion, self.lane)

    @classmethod
    def of(cls, packed: Value) -> _Candidate:
        return cls(packed[:16], packed[16], packed[17:33], packed[33:])

    def against(self, m: Module, other: _Candidate) -> _Candidate:
        """The better one of a group and the group of higher lanes beside it."""
        loses = wire(m, other.key > self.key)
        return self.of(wire(m, Cat(Mux(loses, other.packed(), self.packed()), loses)))


class MaxTree(wiring.Component):
    """The highest of a vector's scores, by `ordered` of `comparable`; the lowest lane of equals.

    Ports, all of one vector, the outputs `registers` cycles after the inputs:
        scores, companions: BF16 bits of each lane; mask: the lanes that take part.
        loads: the registers that load, as `Pipeline` has it.
        found: whether any did; score, companion: the winner's bits, the score never a NaN; lane: its number.
    """

    def __init__(self, lanes: int, registers: int) -> None:
        """Of so many lanes, a power of two; `places(lanes)` registers suffice for 1 GHz in ASAP7."""
        self._levels, self._registers = exact_log2(lanes), registers
        super().__init__(
            {
                "scores": In(data.ArrayLayout(16, lanes)),
                "companions": In(data.ArrayLayout(16, lanes)),
                "mask": In(lanes),
                "loads": loads_of(registers),
                "found": Out(1),
                "score": Out(16),
                "companion": Out(16),
                "lane": Out(max(1, self._levels)),
            }
        )

    @staticmethod
    def places(lanes: int) -> int:
        """Where registers can go: at the inputs, before the third comparison and every third one from there, and at the end."""
        return 2 + len(range(FIRST_LEVELS, exact_log2(lanes), LEVELS_PER_PLACE))

    def elaborate(self, _: object) -> Module:
        m = Module()
        p = Pipeline(m, self.places(len(self.mask)), self._registers, loads=self.loads)
        # Scores come from a rounding, late in a cycle.
        given = p.cut(*(Cat(self.scores[index], self.companions[index], self.mask[index]) for index in range(len(self.mask))))
        group = [self._leaf(m, lane[:16], lane[16:32], lane[32]) for lane in given]
        for level in range(self._levels):
            if level % LEVELS_PER_PLACE == FIRST_LEVELS:
                group = _cut(p, group)
            group = [low.against(m, high) for low, high in zip(group[::2], group[1::2], strict=True)]
        (winner,) = _cut(p, group)
        p.done()
        key = winner.key
        score = Mux(key[15], Cat(key[:15], winner.minus_zero), ~key)
        m.d.comb += [
            self.found.eq(key != 0),
            self.score.eq(score),
            self.companion.eq(winner.companion),
            self.lane.eq(winner.lane),
        ]
        return m

    @staticmethod
    def _leaf(m: Module, score: Value, companion: Value, takes_part: Value) -> _Candidate:
        score = comparable(m, score)
        key = ordered(m, score) & takes_part.replicate(16)
        return _Candidate.of(wire(m, Cat(key, score == bf16.SIGN_BIT, companion)))


def _cut(p: Pipeline, group: list[_Candidate]) -> list[_Candidate]:
    return [_Candidate.of(packed) for packed in p.cut(*(candidate.packed() for candidate in group))]

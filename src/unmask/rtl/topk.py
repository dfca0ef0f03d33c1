"""Masks made of scores: V_TOPK_MASK, V_THRESHOLD_MASK and V_BARS_MASK, with a streaming insertion sorter."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from unmask.rtl import floating
from unmask.rtl.bits import wire

_WORD = 32
_FIELD = 8
MASK_REGISTERS = 2
"""Cycles between the last score's successor and the first mask bit."""


class Mask(enum.IntEnum):
    """Which entries a mask marks: the k highest; the highest and all that reach a value; the prefix of ranks that reach their bars."""

    TOPK = 0
    THRESHOLD = 1
    BARS = 2


def ordered(m: Module, bits: Value, nan: int) -> Value:
    """Unsigned 32 bits that compare as FP32 patterns do, zeros of either sign alike; `nan` is the key of a NaN."""
    number = floating.unpack(m, bits)
    flipped = bits ^ Cat(number.sign.replicate(_WORD - 1), Const(1, 1))
    return wire(m, Mux(number.nan, nan, Mux(number.zero, 1 << (_WORD - 1), flipped))[:_WORD])


MINUS_INFINITY_KEY = (1 << _WORD - 1) - 1 - (((1 << _FIELD) - 1) << (_WORD - 1 - _FIELD))
_NEVER_REACHED = (1 << _WORD) - 1


@dataclass(frozen=True)
class _Place:
    """A place of the sorter: whether it is taken, the score's key and the number of the entry."""

    taken: Signal
    key: Signal
    entry: Signal

    def packed(self) -> Value:
        return Cat(self.taken, self.key, self.entry)


class MaskUnit(wiring.Component):
    """Takes one score per cycle, without gaps, and then gives one mask bit per cycle.

    Ports:
        valid: an entry is here; first, last: it is the first or last one.
        score: FP32 bits, a NaN counts as minus infinity; eligible: whether the entry may be marked.
        bar: FP32 bits of the rank whose number is the entry's, for `Mask.BARS`; a NaN is never reached.
        kind: a `Mask`; k: signed, for `Mask.TOPK`; value: FP32 bits, for `Mask.THRESHOLD`. They count with the first entry.
        mask_valid, mask: the mask bits in the order of the entries. Of c entries, the first one in cycle s, the first bit is in cycle
            s + c + `MASK_REGISTERS`. The next instruction's first entry may be in cycle s + 2 c.
    """

    def __init__(self, entries: int, longest: int) -> None:
        """With a sorter of so many places, the most entries of `Mask.TOPK` and `Mask.BARS`; `longest`: the most of `Mask.THRESHOLD`."""
        self._entries, self._longest = entries, max(longest, entries)
        super().__init__(
            {
                "valid": In(1),
                "first": In(1),
                "last": In(1),
                "score": In(_WORD),
                "eligible": In(1),
                "bar": In(_WORD),
                "kind": In(Mask),
                "k": In(_WORD),
                "value": In(_WORD),
                "mask_valid": Out(1),
                "mask": Out(1),
            }
        )

    def elaborate(self, _: object) -> Module:
        m = Module()
        number = Signal(range(self._longest + 1))
        here = wire(m, Mux(self.first, 0, number)[: len(number)])
        with m.If(self.valid):
            m.d.sync += number.eq(here + 1)
        kind, taken = Signal(Mask), Signal(range(self._entries + 1))
        threshold = Signal(_WORD)
        starts = wire(m, self.valid & self.first)
        wanted, value = self.k.as_signed(), ordered(m, self.value, _NEVER_REACHED)
        with m.If(starts):
            m.d.sync += [
                kind.eq(self.kind),
                taken.eq(Mux(wanted < 0, 0, Mux(wanted > self._entries, self._entries, self.k))),
                threshold.eq(value),
            ]
        key = ordered(m, self.score, MINUS_INFINITY_KEY)
        places = self._sorter(m, here, key)
        bars = [Signal(_WORD, name=f"bar_{index}") for index in range(self._entries)]
        given = ordered(m, self.bar, _NEVER_REACHED)
        for index, bar in enumerate(bars):
            with m.If(self.valid & (here == index)):
                m.d.sync += bar.eq(given)

        # One cycle after the last entry the sorter is settled; the marked places are then held until the mask is out.
        settled, giving, position, count = Signal(), Signal(), Signal.like(number), Signal.like(number)
        m.d.sync += settled.eq(self.valid & self.last)
        marked = [Signal(name=f"marked_{index}") for index in range(self._entries)]
        final = wire(m, position == count - 1)
        with m.If(settled):
            m.d.sync += [giving.eq(1), position.eq(0), count.eq(number), Cat(marked).eq(Cat(self._marks(m, kind, taken, places, bars)))]
        with m.Elif(giving):
            m.d.sync += [position.eq(position + 1), giving.eq(~final)]
        m.submodules.reached = reached = Memory(shape=1, depth=self._longest, init=[])
        write, read = reached.write_port(), reached.read_port()
        reference = wire(m, Mux(self.first, value, threshold)[:_WORD])
        m.d.comb += [
            write.en.eq(self.valid),
            write.addr.eq(here),
            write.data.eq(self.eligible & (key >= reference)),
            read.addr.eq(Mux(settled, 0, position + 1)),
        ]
        hit = Cat(mark & (place.entry == position[: len(place.entry)]) for mark, place in zip(marked, places, strict=True)).any()
        # A threshold's highest entry may have a number beyond the sorter's.
        m.d.sync += [self.mask_valid.eq(giving), self.mask.eq(hit | ((kind == Mask.THRESHOLD) & read.data))]
        return m

    def _sorter(self, m: Module, here: Value, key: Value) -> list[_Place]:
        """The places, ranked by score and then by number; each either keeps its entry, or takes its neighbour's or the new one."""
        shapes = (("taken", 1), ("key", _WORD), ("entry", range(self._longest)))
        places = [_Place(*(Signal(shape, name=f"{name}_{index}") for name, shape in shapes)) for index in range(self._entries)]
        new = Cat(Const(1, 1), key, here[: len(places[0].entry)])
        passed = [wire(m, self.first | ~place.taken | (key > place.key)) for place in places]
        inserts = wire(m, self.valid & self.eligible)
        for index, place in enumerate(places):
            arriving = new if index == 0 else Mux(passed[index - 1] & ~self.first, places[index - 1].packed(), new)
            if index:
                # The new entry of an instruction goes first, and nothing is behind it.
                arriving = Cat(arriving[0] & ~self.first, arriving[1:])
            with m.If(inserts & passed[index]):
                m.d.sync += place.packed().eq(arriving)
            with m.Elif(self.valid & self.first):
                m.d.sync += place.taken.eq(0)
        return places

    def _marks(self, m: Module, kind: Value, taken: Value, places: list[_Place], bars: list[Signal]) -> list[Value]:
        marks, cleared = [], Const(1, 1)
        for index, (place, bar) in enumerate(zip(places, bars, strict=True)):
            if index:
                cleared = wire(m, cleared & (place.key >= bar))
            others = Mux(kind == Mask.BARS, cleared, Const(int(index == 0), 1))
            marks.append(place.taken & Mux(kind == Mask.TOPK, taken > index, others))
        return marks

"""What the vector engine keeps of rows: sums, and the sampler's best candidate; and how a row's vectors add up in it."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from unmask.numerics import accumulator
from unmask.numerics.window import BIN_BITS
from unmask.rtl import floating
from unmask.rtl.bits import leading_zeros, wire
from unmask.rtl.functions import LEVEL_BITS, NO_LEVEL
from unmask.rtl.pipeline import Pipeline
from unmask.rtl.topk import MINUS_INFINITY_KEY, ordered
from unmask.rtl.window import TERM_BITS, Node, merge

TERM_COUNT_BITS = 18
"""A row has fewer than 2^18 terms, or its window sum is not what `unmask.numerics.window.to_fp32` defines."""
COUNTER_BITS = BIN_BITS + TERM_COUNT_BITS
ROW_PLACES = 4
"""Registers that suffice from a vector to its row's result for 1 GHz in ASAP7."""
_WORD = 32
_HALF = 16
_FP32_FRACTION = 23
_MINUS_INFINITY = 0xFF800000


class RowOp(enum.IntEnum):
    """What a row's vectors are to it.

    SAMPLE: V_SAMPLE. FIXED: V_RED_SUM and V_RED_SUM_GE. SCALED: V_RED_SUM_WIN. MAX: V_RED_MAX and V_RED_MAX_IDX, which keep nothing.
    READ: V_SAMPLE_END; one vector without content.
    """

    SAMPLE = 0
    FIXED = 1
    SCALED = 2
    MAX = 3
    READ = 4


@dataclass(frozen=True)
class _Best:
    """The best score (FP32 bits), the companion there (BF16 bits), its index, and whether this instruction put it there."""

    score: Value
    picked: Value
    candidate: Value
    replaced: Value


class RowState(wiring.Component):
    """The row accumulators. One vector of one row per cycle, the vectors of a row in a row, rows and instructions back to back.

    Ports, of a vector:
        row_ahead: the row of the next cycle's vector.
        valid; op: a `RowOp`; row: its number; first, last: whether it is the row's first or last vector of the instruction.
        running: whether the row goes on from what was there.
        prior: FP32 bits of the maximum that was there (`RowOp.MAX`, where first and running).
        score, picked: BF16 bits from a `MaxTree`, its score and companion; index: what its lane stands for.
        level, upper, lower, invalid: from a `WindowTree` (`RowOp.SCALED`: level is that of the row's maximum).
    Of a row, `registers` cycles after its last vector:
        done, without which the others mean nothing; row_done: its number.
        sum: FP32 bits of the row's sum, of the window of a `RowOp.READ`; NaN if it is invalid.
        best: FP32 bits of the maximum; replaced: whether it was found by this instruction; companion, candidate: what belongs to it.
        window_level: that of the window sum, `NO_LEVEL` without terms.
    """

    def __init__(self, rows: int, counter_bits: int, registers: int) -> None:
        """Of so many rows. counter_bits: of the tree's counters; registers: see the outputs, of which `ROW_PLACES` suffice."""
        self._rows, self._registers = rows, registers
        row = range(rows)
        super().__init__(
            {
                "row_ahead": In(row),
                "valid": In(1),
                "op": In(RowOp),
                "row": In(row),
                "first": In(1),
                "last": In(1),
                "running": In(1),
                "prior": In(_WORD),
                "score": In(_HALF),
                "picked": In(_HALF),
                "index": In(_WORD),
                "level": In(signed(LEVEL_BITS)),
                "upper": In(counter_bits),
                "lower": In(counter_bits),
                "invalid": In(1),
                "done": Out(1),
                "row_done": Out(row),
                "sum": Out(_WORD),
                "best": Out(_WORD),
                "replaced": Out(1),
                "companion": Out(_HALF),
                "candidate": Out(_WORD),
                "window_level": Out(signed(LEVEL_BITS)),
            }
        )

    def elaborate(self, _: object) -> Module:
        m = Module()
        op = Value.cast(self.op)
        reads, samples, fixed = (wire(m, op == kind) for kind in (RowOp.READ, RowOp.SAMPLE, RowOp.FIXED))
        windowed = wire(m, samples | (op == RowOp.SCALED))
        keeps = wire(m, self.running | reads)
        ends = wire(m, self.valid & self.last)
        sampled, replaced = self._sampled(m, op, keeps, ends & samples)
        node = self._window(m, windowed, samples, keeps, ends & windowed)
        total = self._store(m, "total", TERM_BITS, keeps, ends & fixed)
        addend = (Cat(Const(0, BIN_BITS), self.upper[:BIN_BITS]) + self.lower) & fixed.replicate(TERM_BITS)
        m.d.comb += total.after.eq(total.before + addend)
        invalid = self._store(m, "invalid", 1, keeps, ends & (windowed | fixed))
        m.d.comb += invalid.after.eq(invalid.before | (self.invalid & (windowed | fixed)))

        # A row's end goes along, and what follows it loads with it.
        passed: list[Value] = [ends]
        for index in range(self._registers):
            later = Signal(name=f"done_{index + 1}")
            m.d.sync += later.eq(passed[-1])
            passed.append(later)
        p = Pipeline(m, ROW_PLACES, self._registers, loads=Cat(*passed[:-1]))
        row, sampled, replaced, level, upper, lower, total, invalid, fixed = p.cut(
            self.row, sampled, replaced, node.level, node.upper, node.lower, total.after, invalid.after, fixed
        )
        # A fixed-point sum has its sign, and half of the fraction bits.
        sign = wire(m, fixed & total[-1])
        magnitude = wire(m, ((total ^ sign.replicate(TERM_BITS)) + sign)[:TERM_BITS])
        width = COUNTER_BITS + BIN_BITS
        window = wire(m, (Cat(Const(0, BIN_BITS), upper) + lower)[:width])
        mantissa = wire(m, Mux(fixed, magnitude, window)[:width])
        beside = p.cut(row, sampled, replaced, level, invalid, fixed, sign, mantissa)
        mantissa = beside.pop()
        *beside, mantissa, zeros = p.cut(*beside, mantissa, leading_zeros(m, mantissa)[: (width - 1).bit_length()])
        row, sampled, replaced, level, invalid, fixed, sign = beside
        unit = floating.BIAS + width - 2
        exponent = wire(m, Mux(fixed, unit - accumulator.VECTOR_FRACTION, unit - TERM_BITS)[:9])
        rounded = floating.packed(m, floating.Unrounded(sign, mantissa, exponent, invalid, Const(0, 1)), zeros, _FP32_FRACTION, right=False)
        row, sampled, replaced, level, rounded = p.cut(row, sampled, replaced, level, rounded)
        p.done()
        score, companion, candidate = _parts_of(sampled)
        m.d.comb += [
            self.done.eq(passed[-1]),
            self.row_done.eq(row),
            self.sum.eq(rounded),
            self.best.eq(score),
            self.replaced.eq(replaced),
            self.companion.eq(companion),
            self.candidate.eq(candidate),
            self.window_level.eq(level),
        ]
        return m

    def _store(self, m: Module, name: str, width: int, keeps: Value, writes: Value) -> _Store:
        memory = Memory(shape=width, depth=self._rows, init=[])
        m.submodules[f"{name}_rows"] = memory
        write = memory.write_port()
        read = memory.read_port(transparent_for=[write])
        before, after, current = (Signal(width, name=f"{name}_{when}") for when in ("before", "after", "current"))
        m.d.comb += [
            read.addr.eq(self.row_ahead),
            write.addr.eq(self.row),
            write.data.eq(after),
            write.en.eq(writes),
            before.eq(Mux(self.first, read.data & keeps.replicate(width), current)),
        ]
        with m.If(self.valid):
            m.d.sync += current.eq(after)
        return _Store(before, after)

    def _sampled(self, m: Module, op: Value, keeps: Value, writes: Value) -> tuple[Value, Value]:
        """The best score, companion and index after a vector, packed, and whether the instruction put them there."""
        store = self._store(m, "sampled", _WORD + _HALF + _WORD, keeps, writes)
        score, companion, candidate = _parts_of(store.before)
        given = wire(m, self.first & (op == RowOp.MAX))
        # A NaN that was there counts as minus infinity.
        number = floating.unpack(m, self.prior)
        prior = Mux(number.nan, _MINUS_INFINITY, self.prior)
        score = wire(m, Mux(given, prior, score)[:_WORD])
        found = Cat(Const(0, _WORD - _HALF), self.score)
        higher = ordered(m, found, MINUS_INFINITY_KEY) > ordered(m, score, MINUS_INFINITY_KEY)
        replaces = wire(m, ((self.first & ~self.running) | higher) & (op != RowOp.READ))
        before = Signal()
        replaced = wire(m, replaces | (before & ~self.first))
        with m.If(self.valid):
            m.d.sync += before.eq(replaced)
        m.d.comb += store.after.eq(Mux(replaces, Cat(found, self.picked, self.index), Cat(score, companion, candidate)))
        return store.after, replaced

    def _window(self, m: Module, windowed: Value, samples: Value, keeps: Value, writes: Value) -> Node:
        """The window sum after a vector; terms scaled beforehand stay where they are, whatever their level."""
        store = self._store(m, "window", LEVEL_BITS + 2 * COUNTER_BITS, keeps, writes)
        # A memory of zeros holds rows without terms.
        level = wire(m, _flipped(store.before[:LEVEL_BITS]).as_signed())
        counters = store.before[LEVEL_BITS:]
        upper, lower = counters[:COUNTER_BITS], counters[COUNTER_BITS:]
        there = Node(level, upper, lower)
        gate = windowed.replicate(len(self.upper))
        new_level = wire(m, Mux(windowed, self.level, NO_LEVEL).as_signed())
        padding = Const(0, COUNTER_BITS - len(self.upper))
        new = Node(new_level, *(wire(m, Cat(counter & gate, padding)) for counter in (self.upper, self.lower)))
        node = merge(m, there, new, stays=~samples)
        m.d.comb += store.after.eq(Cat(_flipped(node.level), node.upper[:COUNTER_BITS], node.lower[:COUNTER_BITS]))
        return Node(node.level, node.upper[:COUNTER_BITS], node.lower[:COUNTER_BITS])


@dataclass(frozen=True)
class _Store:
    """What a row holds before a vector, and what is to be assigned the row's content after it."""

    before: Signal
    after: Signal


def _flipped(level: Value) -> Value:
    """A level as it is stored, and back: `NO_LEVEL` as 0."""
    return Cat(level[: LEVEL_BITS - 1], ~level[LEVEL_BITS - 1])


def _parts_of(sampled: Value) -> tuple[Value, Value, Value]:
    return sampled[:_WORD], sampled[_WORD : _WORD + _HALF], sampled[_WORD + _HALF :]

"""Units with registers, from reset, for so many cycles, under any inputs: proven by yosys' SAT solver at small width."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from amaranth.hdl import Cat, Const, Mux, Signal, Value, signed

from unmask.rtl import semaphores
from unmask.rtl.bits import wire
from unmask.rtl.semaphores import Semaphores
from unmask.rtl.topk import MASK_REGISTERS, Mask, MaskUnit

from .formal import Bench, all_of, any_of, ordinal

pytest.importorskip("pyosys")
NAMES, NAME_BITS, COUNT_BITS = 2, 2, 2
"""Semaphores of the small unit, bits of a name, of which `NAMES` is none, and bits of a count."""
DEPTH = 2
GIVES, TAKES = ((0,), (1,)), ((1,), (0,))
"""Each semaphore has one engine that signals and one that waits: what the first and the second of a pair do."""
ENGINES, SEQUENCER = ("left", "right"), "sequencer"


@dataclass(frozen=True)
class Instruction:
    """What an engine's queue knows of an instruction, the names of its semaphores."""

    waits: tuple[Value, Value]
    signals: tuple[Value, Value]

    def packed(self) -> Value:
        return Cat(*self.waits, *self.signals)

    @classmethod
    def of(cls, bits: Value) -> Instruction:
        first, second, third, fourth = (bits[at : at + NAME_BITS] for at in range(0, 4 * NAME_BITS, NAME_BITS))
        return cls((first, second), (third, fourth))


def uses(names: tuple[Value, Value], semaphore: int) -> Value:
    """How many of two names are a semaphore's."""
    return (names[0] == semaphore) + (names[1] == semaphore)


class Engine:
    """A queue, and an engine behind it that starts and ends instructions whenever it likes, one after the other."""

    def __init__(self, bench: Bench, unit: Semaphores, name: str) -> None:
        m = bench.m
        self.push, self.item = Signal(name=f"{name}_push"), Signal(4 * NAME_BITS, name=f"{name}_item")
        self.level, items = Signal(range(DEPTH + 1), name=f"{name}_level"), Signal(DEPTH * 4 * NAME_BITS, name=f"{name}_items")
        self.head, self.busy = Instruction.of(items), Signal(name=f"{name}_busy")
        running = Signal(4 * NAME_BITS, name=f"{name}_running")
        self.running = Instruction.of(running)
        self.ready = getattr(unit, f"{name}_ready")
        self.take, self.give = Signal(name=f"{name}_take"), Signal(name=f"{name}_give")
        # What is pushed is the next head but one where only the head stands before it.
        behind = Instruction.of(Mux(self.level > 1, items[4 * NAME_BITS : 8 * NAME_BITS], self.item))
        m.d.comb += [
            self.take.eq((self.level != 0) & self.ready & ~self.busy & bench.given(f"{name}_go", 1)),
            self.give.eq(self.busy & bench.given(f"{name}_end", 1)),
            getattr(unit, f"{name}_valid").eq(self.level != 0),
            getattr(unit, f"{name}_take").eq(self.take),
            getattr(unit, f"{name}_give").eq(self.give),
        ]
        for number in range(2):
            m.d.comb += getattr(unit, f"{name}_wait{number}").eq(behind.waits[number])
            m.d.comb += getattr(unit, f"{name}_signal{number}").eq(self.running.signals[number])
        m.d.sync += [self.level.eq(self.level + self.push - self.take), self.busy.eq(self.take | (self.busy & ~self.give))]
        with m.If(self.take):
            m.d.sync += [running.eq(items), items.eq(items >> 4 * NAME_BITS)]
        for place in range(DEPTH):
            with m.If(self.push & (self.level - self.take == place)):
                m.d.sync += items[place * 4 * NAME_BITS : (place + 1) * 4 * NAME_BITS].eq(self.item)


ACTS = (("take", lambda engine: engine.head.waits), ("give", lambda engine: engine.running.signals))


def engines(monkeypatch: pytest.MonkeyPatch, pair: tuple[str, ...] = ENGINES) -> tuple[Bench, Semaphores]:
    """Two engines that are fed whatever the unit lets pass, beside counts of tokens that are kept without it.

    Args:
        pair: their names, perhaps the sequencer among them, which takes and gives in the cycle in which it dispatches to itself.

    Claimed of every cycle: an engine is told to start exactly if the tokens are there that its next instruction waits for; what is refused,
    and only that, are waits for tokens that no earlier instruction gives, counts beyond the most there can be, and setting a semaphore that
    is in use; while there are instructions one of them can start or is running; and when there are none the tokens given are there.
    """
    for name, value in {
        "NO_SEMAPHORE": NAMES,
        "SEMAPHORE_NAME_BITS": NAME_BITS,
        "COUNT_BITS": COUNT_BITS,
        "MOST": (1 << COUNT_BITS) - 1,
        "_NAMES": {"wait0": NAME_BITS, "wait1": NAME_BITS},
    }.items():
        monkeypatch.setattr(semaphores, name, value)
    bench = Bench()
    m = bench.m
    queued = [name for name in pair if name != SEQUENCER]
    m.submodules.unit = unit = Semaphores(queued, 2 * DEPTH)
    both = {name: Engine(bench, unit, name) for name in queued}
    asked = {name: bench.given(name, NAME_BITS) for name in ("wait0", "wait1", "signal0", "signal1")}
    item = Instruction((asked["wait0"], asked["wait1"]), (asked["signal0"], asked["signal1"]))
    to, dispatch = bench.given("to", 1), bench.given("dispatch", 1)
    for number in range(2):
        fine = [
            any_of(given == NAMES, *(given == s for s in allowed[number]))
            for names, allowed in ((item.waits, TAKES), (item.signals, GIVES))
            for given in names
        ]
        bench.assume((to != number) | all_of(*fine))
    room, own = Const(0, 1), Signal()
    for number, name in enumerate(pair):
        room = room | ((to == number) & (unit.sequencer_ready if name == SEQUENCER else both[name].level != DEPTH))
    reserve, setting, waiting = Signal(), Signal(), any_of(*(given != NAMES for given in item.waits))
    name, value = bench.given("name", NAME_BITS), bench.given("value", COUNT_BITS)
    m.d.comb += [
        *(getattr(unit, f"reserve_{key}").eq(signal) for key, signal in asked.items()),
        reserve.eq(dispatch & room & ~unit.underflow & ~unit.overflow),
        unit.reserve.eq(reserve),
        unit.sequencer_take.eq(own),
        # SEM_SET is executed in a cycle in which no engine gets an instruction; here it waits for nothing.
        setting.eq(bench.given("set", 1) & ~dispatch & ~waiting & ~unit.set_fault),
        unit.set.eq(setting),
        unit.set_name.eq(name),
        unit.set_value.eq(value),
    ]
    for number, called in enumerate(pair):
        if called == SEQUENCER:
            m.d.comb += own.eq(reserve & (to == number))
        else:
            m.d.comb += [both[called].push.eq(reserve & (to == number)), both[called].item.eq(item.packed())]

    held, owed, due = ([Signal(signed(6), name=f"{name}_{s}") for s in range(NAMES)] for name in ("held", "owed", "due"))
    short, over, in_use = [], [], []
    for s in range(NAMES):
        wants, offers = uses(item.waits, s), uses(item.signals, s)
        taken, given = (sum((Mux(getattr(e, act), uses(names(e), s), 0) for e in both.values()), start=0) for act, names in ACTS)
        asks = Mux(reserve & ~own, wants, 0)
        short.append(owed[s] < wants)
        over.append(owed[s] - wants + offers > (1 << COUNT_BITS) - 1)
        in_use.append((name == s) & ((owed[s] - Mux(reserve, wants, 0) != 0) | (due[s] + asks - taken != 0)))
        m.d.sync += [held[s].eq(held[s] + given - taken + Mux(own, offers - wants, 0)), due[s].eq(due[s] + asks - taken)]
        m.d.sync += owed[s].eq(owed[s] + Mux(reserve, offers - wants, 0))
        with m.If(setting & (name == s)):
            m.d.sync += [held[s].eq(value), owed[s].eq(value)]
        bench.claim(held[s] >= 0, owed[s] >= 0)
    bench.claim(unit.underflow == any_of(*short), unit.overflow == any_of(*over))
    bench.claim(unit.sequencer_ready == all_of(*(held[s] >= uses(item.waits, s) for s in range(NAMES))))
    bench.claim(dispatch | waiting | (unit.set_fault == any_of(*in_use)))
    for engine in both.values():
        enough = all_of(*(held[s] >= uses(engine.head.waits, s) for s in range(NAMES)))
        bench.claim((engine.level == 0) | (engine.ready == enough))
    idle = all_of(*((engine.level == 0) & ~engine.busy for engine in both.values()))
    if SEQUENCER not in pair:
        # With the sequencer it may be its turn, at the instruction that it has come to.
        bench.claim(idle | any_of(*(engine.busy | ((engine.level != 0) & engine.ready) for engine in both.values())))
    bench.claim(~idle | all_of(*(held[s] == owed[s] for s in range(NAMES))))
    return bench, unit


@pytest.mark.parametrize("pair", [ENGINES, ("left", SEQUENCER), (SEQUENCER, "right")])
@pytest.mark.parametrize("cycles", [6, pytest.param(9, marks=pytest.mark.slow)])
def test_no_token_is_lost_and_no_engine_waits_for_ever(monkeypatch, cycles, pair):
    bench, _ = engines(monkeypatch, pair)
    assert not bench.refuted(cycles)


def test_a_program_that_waits_too_often_is_not_ruled_out(monkeypatch):
    bench, unit = engines(monkeypatch)
    bench.claim(~unit.underflow)
    assert bench.refuted(cycles=2)


ENTRIES, LONGEST = 3, 4
INFINITY = 0xFF << 23


@dataclass(frozen=True)
class Scores:
    """What an instruction of the mask unit was given: of each entry its score, whether it is eligible, and the bar of its rank."""

    scores: list[Value]
    eligible: list[Value]
    bars: list[Value]
    k: Value
    value: Value


def reached(value: Value, bar: Value) -> Value:
    """Whether a score reaches a bar: a NaN is minus infinity as a score and never reached as a bar."""
    nan = bar[:31] > INFINITY
    return ~nan & (ordinal(value, 32, INFINITY) >= ordinal(bar, 32, INFINITY))


def marked(kind: Mask, given: Scores) -> list[Value]:
    """The mask by its definition: the rank of an entry is how many eligible ones are higher, or equal and before it."""
    count = len(given.scores)
    order = [ordinal(score, 32, INFINITY) for score in given.scores]
    before = [
        [given.eligible[j] & ((order[j] > order[i]) if j > i else (order[j] >= order[i])) if j != i else Const(0, 1) for j in range(count)]
        for i in range(count)
    ]
    ranks = [sum(row, start=Const(0, 1)) for row in before]
    if kind is Mask.TOPK:
        chosen = [rank < given.k.as_signed() for rank in ranks]
    elif kind is Mask.THRESHOLD:
        chosen = [(rank == 0) | reached(score, given.value) for rank, score in zip(ranks, given.scores, strict=True)]
    else:
        clears = [
            any_of(rank == 0, *((rank == r) & reached(score, given.bars[r]) for r in range(1, count)))
            for rank, score in zip(ranks, given.scores, strict=True)
        ]
        chosen = [all_of(clears[i], *(~before[i][j] | clears[j] for j in range(count))) for i in range(count)]
    return [eligible & mark for eligible, mark in zip(given.eligible, chosen, strict=True)]


def masks(kinds: list[tuple[Mask, int]]) -> tuple[Bench, int]:
    """Instructions of so many entries as soon after each other as may be, and the cycles that they take."""
    bench = Bench()
    m = bench.m
    m.submodules.unit = unit = MaskUnit(ENTRIES, LONGEST)
    total = 2 * sum(count for _, count in kinds) + MASK_REGISTERS
    cycle = Signal(range(total + 2))
    m.d.sync += cycle.eq(cycle + 1)
    ports = {name: bench.given(name, shape) for name, shape in (("score", 32), ("eligible", 1), ("bar", 32), ("k", 32), ("value", 32))}
    m.d.comb += [getattr(unit, name).eq(signal) for name, signal in ports.items()]

    def kept(name: str, at: int) -> Value:
        register = Signal.like(ports[name], name=f"{name}_{at}")
        with m.If(cycle == at):
            m.d.sync += register.eq(ports[name])
        return register

    start, valid, bits = 0, [], []
    for kind, count in kinds:
        with m.If((cycle >= start) & (cycle < start + count)):
            m.d.comb += [unit.valid.eq(1), unit.first.eq(cycle == start), unit.last.eq(cycle == start + count - 1), unit.kind.eq(kind)]
        columns = [[kept(name, start + i) for i in range(count)] for name in ("score", "eligible", "bar")]
        expected = marked(kind, Scores(*columns, kept("k", start), kept("value", start)))
        for i, bit in enumerate(expected):
            here = wire(m, cycle == start + count + MASK_REGISTERS + i)
            valid.append(here)
            bits.append(~here | (unit.mask == bit))
        start += 2 * count
    bench.claim(unit.mask_valid == any_of(*valid), *bits)
    return bench, total


@pytest.mark.parametrize("kind", list(Mask))
def test_a_mask_marks_what_its_definition_says(kind):
    bench, cycles = masks([(kind, 2)])
    assert not bench.refuted(cycles)


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(Mask))
@pytest.mark.parametrize("count", [1, 3])
def test_a_mask_marks_so_after_another_instruction(kind, count):
    bench, cycles = masks([(Mask.THRESHOLD, LONGEST), (kind, count)])
    assert not bench.refuted(cycles)

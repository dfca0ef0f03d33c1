"""The counting semaphores: what orders the engines."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from unmask.isa.row import NO_SEMAPHORE
from unmask.isa.table import BY_NAME
from unmask.rtl.decode import SEMAPHORE_NAME_BITS

COUNT_BITS = next(spec.bits for spec in BY_NAME["SEM_SET"].fields if spec.name == "value")
MOST = (1 << COUNT_BITS) - 1
_LOW = 3
"""Bits of a count that a cycle's tokens change, four taken and four given at most; at eight there are four still."""
_NAMES = {"wait0": SEMAPHORE_NAME_BITS, "wait1": SEMAPHORE_NAME_BITS}


def _one_hot(m: Module, name: Signal) -> Signal:
    """Bit per semaphore; none for NO_SEMAPHORE."""
    mask = Signal(NO_SEMAPHORE, name=f"{name.name}_mask")
    # Compared, not shifted: a simulator that looks at a bit would shift the whole mask for it.
    m.d.comb += mask.eq(Cat(name == index for index in range(NO_SEMAPHORE)))
    return mask


class Semaphores(wiring.Component):
    """63 counters, and for each what the dispatched instructions will still take from and give to it.

    A program may dispatch a wait only for a token that an earlier instruction gives, so that it cannot deadlock; the sequencer asks with
    `reserve_*` and gets `underflow` or `overflow` in the same cycle. A semaphore has one engine that signals and one that waits for it, so
    at most one of each touches it in a cycle.

    Whether an engine may start is a register: it is worked out in the cycle before, both for the instruction that is the next one now and
    for the one behind it, and both for the case that the sequencer's instruction gives its tokens and that it does not; who takes and
    gives only chooses.

    Ports, per engine E but the sequencer:
        E_valid, E_take: it has a next instruction; it starts in this cycle and takes its tokens.
        E_wait0, E_wait1: names that the instruction waits for that will be the engine's next in the cycle to come, if there is one,
            unless there is one now that stays.
        E_ready: the next instruction, if there is one, may start.
        E_give, E_signal0, E_signal1: an instruction ends with this cycle: its tokens are there in the next.

    Other ports:
        sequencer_ready, sequencer_take: what `reserve_wait0` and `reserve_wait1` name is there; the sequencer takes it, and gives what
            `reserve_signal0` and `reserve_signal1` name.
        reserve, reserve_wait0, ...: an instruction is dispatched. What the sequencer itself waits for it takes in the same cycle.
        underflow, overflow: the instruction that reserve_wait0, ... describe must not be, whether `reserve` is set or not; if it is, the
            counts mean nothing until `clear`, as they do after a `set` with `set_fault`.
        set, set_name, set_value: SEM_SET, which the sequencer takes, too; `set_fault`: the semaphore is in use.
        clear: all counts to zero.
    """

    def __init__(self, engines: Sequence[str], most_pending: int) -> None:
        """Size the counters.

        Args:
            engines: names of the engines without the sequencer.
            most_pending: waits that may be dispatched and not yet taken: twice the queue's depth.
        """
        self.engines, self._most_pending = tuple(engines), most_pending
        ports: dict[str, Any] = {"reserve": In(1), **{f"reserve_{name}": In(width) for name, width in _NAMES.items()}}
        ports |= {f"reserve_signal{index}": In(SEMAPHORE_NAME_BITS) for index in range(2)}
        ports |= {"underflow": Out(1), "overflow": Out(1), "clear": In(1), "sequencer_ready": Out(1), "sequencer_take": In(1)}
        ports |= {"set": In(1), "set_name": In(SEMAPHORE_NAME_BITS), "set_value": In(COUNT_BITS), "set_fault": Out(1)}
        for engine in self.engines:
            ports |= {f"{engine}_{name}": In(width) for name, width in _NAMES.items()}
            ports |= {f"{engine}_{name}": In(1) for name in ("valid", "take", "give")} | {f"{engine}_ready": Out(1)}
            ports |= {f"{engine}_signal{index}": In(SEMAPHORE_NAME_BITS) for index in range(2)}
        super().__init__(ports)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        wait0, wait1 = _one_hot(m, self.reserve_wait0), _one_hot(m, self.reserve_wait1)
        signal0, signal1 = _one_hot(m, self.reserve_signal0), _one_hot(m, self.reserve_signal1)
        chosen = _one_hot(m, self.set_name)
        # Of the tokens of each semaphore: is there one, are there two; in the next cycle, and if the sequencer gives what it would give.
        some, several, later_some, later_several, given_some, given_several = (
            Signal(NO_SEMAPHORE, name=name) for name in ("some", "several", "later_some", "later_several", "given_some", "given_several")
        )
        heads = [self._head(m, engine, (later_some, later_several), (given_some, given_several)) for engine in self.engines]
        taken_any, taken_two = (self._either(m, name, [head[index] for head in heads]) for index, name in enumerate(("taken", "taken_two")))
        gives = [self._gives(m, index) for index in range(2)]
        given_any, given_two = gives[0] | gives[1], gives[0] & gives[1]
        m.d.comb += self.sequencer_ready.eq(~(((wait0 | wait1) & ~some).any() | (wait0 & wait1 & ~several).any()))
        offers = signal0 | signal1
        short, over, busy = Signal(NO_SEMAPHORE), Signal(NO_SEMAPHORE), Signal(NO_SEMAPHORE)
        # Who takes, gives and is dispatched is known late in a cycle: it is counted in the next one.
        reserved, queued, own, value = Signal(), Signal(), Signal(), Signal(COUNT_BITS)
        m.d.sync += [
            reserved.eq(self.reserve & ~self.clear),
            queued.eq(self.reserve & ~self.sequencer_take & ~self.clear),
            own.eq(self.sequencer_take & ~self.clear),
            value.eq(self.set_value),
        ]
        for index in range(NO_SEMAPHORE):
            # Tokens of waits that are dispatched and not yet taken no longer count against `MOST`, but they are there.
            count = Signal(range(MOST + self._most_pending + 1), name=f"count_{index}")
            free = Signal(COUNT_BITS, name=f"free_{index}")
            pending = Signal(range(self._most_pending + 1), name=f"pending_{index}")
            wanted, asked, given_later, offered, taken, given = (
                Signal(2, name=f"{name}_{index}") for name in ("wanted", "asked", "given_later", "offered", "taken", "given")
            )
            waiting, unclaimed = Signal.like(pending, name=f"waiting_{index}"), Signal.like(free, name=f"unclaimed_{index}")
            was_set, setting = Signal(name=f"was_set_{index}"), Signal(name=f"setting_{index}")
            base, high = Signal.like(count, name=f"base_{index}"), Signal(name=f"high_{index}")
            moved, changed = Signal(signed(3), name=f"moved_{index}"), Signal(signed(3), name=f"changed_{index}")
            kept, low = Signal(signed(_LOW + 2), name=f"kept_{index}"), Signal(signed(_LOW + 2), name=f"low_{index}")
            least = [Signal(name=f"least_{tokens}_{index}") for tokens in range(1, 5)]
            left, left_two = Signal(name=f"left_{index}"), Signal(name=f"left_two_{index}")
            m.d.comb += [
                # What the cycle before has changed is not in `count` yet. Who takes in the cycle of a SEM_SET takes what was there before.
                base.eq(Mux(was_set, value, count)),
                kept.eq(base[:_LOW] + Mux(was_set, 0, moved)),
                changed.eq(offered - Mux(was_set, 0, asked)),
                low.eq(kept + Mux(own, changed, 0)),
                high.eq(base[_LOW:].any()),
                *(signal.eq(high | (low >= tokens)) for tokens, signal in enumerate(least, 1)),
                some[index].eq(least[0]),
                several[index].eq(least[1]),
                wanted.eq(wait0[index] + wait1[index]),
                given_later.eq(signal0[index] + signal1[index]),
                taken.eq(taken_any[index] + taken_two[index]),
                given.eq(gives[0][index] + gives[1][index]),
                # Whoever takes finds its tokens, so that these are one and two more than it takes.
                left.eq(Mux(taken_two[index], least[2], Mux(taken_any[index], least[1], least[0]))),
                left_two.eq(Mux(taken_two[index], least[3], Mux(taken_any[index], least[2], least[1]))),
                later_some[index].eq(given_any[index] | left),
                later_several[index].eq(given_two[index] | (given_any[index] & left) | left_two),
                given_some[index].eq(offers[index] | later_some[index]),
                given_several[index].eq((signal0[index] & signal1[index]) | (offers[index] & later_some[index]) | later_several[index]),
                waiting.eq(pending + Mux(queued, asked, 0)),
                unclaimed.eq(Mux(was_set, value, free - Mux(reserved, asked, 0)) + Mux(reserved, offered, 0)),
                short[index].eq(unclaimed < wanted),
                over[index].eq(unclaimed - wanted + given_later > MOST),
                # SEM_SET itself claims what it waits for, and takes it at once.
                busy[index].eq(chosen[index] & ((unclaimed != wanted) | (waiting != taken))),
                setting.eq(self.set & chosen[index]),
            ]
            m.d.sync += [
                asked.eq(wanted),
                offered.eq(given_later),
                moved.eq(given - taken),
                was_set.eq(setting),
                count.eq(Cat(low[:_LOW], base[_LOW:] + (low >> _LOW))),
                free.eq(unclaimed),
                pending.eq(waiting - taken),
            ]
            with m.If(self.clear):
                m.d.sync += [signal.eq(0) for signal in (count, free, pending, moved, was_set)]
        m.d.comb += [self.underflow.eq(short.any()), self.overflow.eq(over.any()), self.set_fault.eq(busy.any())]
        return m

    def _head(self, m: Module, engine: str, usual: tuple[Signal, Signal], given: tuple[Signal, Signal]) -> tuple[Value, Value]:
        """An engine's next instruction: the semaphores from which it takes in this cycle, and those from which it takes two tokens.

        Args:
            usual, given: the semaphores with a token, with two, in the next cycle: if the sequencer does nothing; if it gives.
        """
        take, ready = getattr(self, f"{engine}_take"), getattr(self, f"{engine}_ready")
        names = [_one_hot(m, getattr(self, f"{engine}_wait{index}")) for index in range(2)]
        coming, head = names[0] | names[1], Signal(NO_SEMAPHORE, name=f"{engine}_head")
        coming_two, two = Signal(name=f"{engine}_coming_two"), Signal(name=f"{engine}_two")
        moves = Signal(name=f"{engine}_moves")
        m.d.comb += [
            coming_two.eq(getattr(self, f"{engine}_wait0") == getattr(self, f"{engine}_wait1")),
            moves.eq(take | ~getattr(self, f"{engine}_valid")),
        ]
        enough = []
        for mask, twice, name in ((head, two, "stays"), (coming, coming_two, "comes")):
            for tokens, case in ((usual, "usual"), (given, "given")):
                missing = Signal(NO_SEMAPHORE, name=f"{engine}_{name}_{case}")
                m.d.comb += missing.eq(mask & ~(tokens[0] & (tokens[1] | ~twice.replicate(NO_SEMAPHORE))))
                enough.append(~missing.any())
        gives = self.sequencer_take
        m.d.sync += ready.eq(Mux(moves, Mux(gives, enough[3], enough[2]), Mux(gives, enough[1], enough[0])))
        with m.If(moves):
            m.d.sync += [head.eq(coming), two.eq(coming_two)]
        taken = head & take.replicate(NO_SEMAPHORE)
        return taken, taken & two.replicate(NO_SEMAPHORE)

    def _gives(self, m: Module, index: int) -> Signal:
        """The semaphores to which an engine gives a token by its first or its second name."""
        masks = [Mux(getattr(self, f"{engine}_give"), _one_hot(m, getattr(self, f"{engine}_signal{index}")), 0) for engine in self.engines]
        return self._either(m, f"give{index}", masks)

    @staticmethod
    def _either(m: Module, name: str, masks: Sequence[Value]) -> Signal:
        """What stands in one of some masks."""
        result = Signal(NO_SEMAPHORE, name=name)
        m.d.comb += result.eq(reduce(or_, masks))
        return result

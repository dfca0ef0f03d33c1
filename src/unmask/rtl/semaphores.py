"""The counting semaphores: what orders the engines."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from unmask.isa.row import NO_SEMAPHORE
from unmask.isa.table import BY_NAME
from unmask.rtl.decode import SEMAPHORE_NAME_BITS

COUNT_BITS = next(spec.bits for spec in BY_NAME["SEM_SET"].fields if spec.name == "value")
MOST = (1 << COUNT_BITS) - 1
SEQUENCER = "sequencer"
"""The engine that takes its tokens when it reserves them."""
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

    Ports, per engine E:
        E_wait0, E_wait1: names that the engine's next instruction waits for; E_ready: it may start.
        E_take: it starts in this cycle and takes its tokens.
        E_give, E_signal0, E_signal1: an instruction ends with this cycle: its tokens are there in the next.

    Other ports:
        reserve, reserve_wait0, ...: an instruction is dispatched. What the sequencer itself waits for it takes in the same cycle: then
            `sequencer_take` is set too.
        underflow, overflow: the instruction that reserve_wait0, ... describe must not be, whether `reserve` is set or not.
        set, set_name, set_value: SEM_SET; `set_fault`: the semaphore is in use.
        clear: all counts to zero.
    """

    def __init__(self, engines: Sequence[str], most_pending: int) -> None:
        """Size the counters.

        Args:
            engines: names of the engines, the sequencer among them.
            most_pending: waits that may be dispatched and not yet taken: twice the queue's depth.
        """
        self.engines, self._most_pending = tuple(engines), most_pending
        ports: dict[str, Any] = {"reserve": In(1), **{f"reserve_{name}": In(width) for name, width in _NAMES.items()}}
        ports |= {f"reserve_signal{index}": In(SEMAPHORE_NAME_BITS) for index in range(2)}
        ports |= {"underflow": Out(1), "overflow": Out(1), "clear": In(1)}
        ports |= {"set": In(1), "set_name": In(SEMAPHORE_NAME_BITS), "set_value": In(COUNT_BITS), "set_fault": Out(1)}
        for engine in self.engines:
            ports |= {f"{engine}_{name}": In(width) for name, width in _NAMES.items()}
            ports |= {f"{engine}_ready": Out(1), f"{engine}_take": In(1), f"{engine}_give": In(1)}
            ports |= {f"{engine}_signal{index}": In(SEMAPHORE_NAME_BITS) for index in range(2)}
        super().__init__(ports)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        some, several = Signal(NO_SEMAPHORE), Signal(NO_SEMAPHORE)
        for engine in self.engines:
            first, second = (_one_hot(m, getattr(self, f"{engine}_wait{index}")) for index in range(2))
            missing = ((first | second) & ~some).any() | (first & second & ~several).any()
            m.d.comb += getattr(self, f"{engine}_ready").eq(~missing)
        takes = self._events(m, "take", "wait", self.engines)
        others = self._events(m, "take", "wait", [engine for engine in self.engines if engine != SEQUENCER], "other")
        gives = self._events(m, "give", "signal", self.engines)
        wait0, wait1 = _one_hot(m, self.reserve_wait0), _one_hot(m, self.reserve_wait1)
        signal0, signal1 = _one_hot(m, self.reserve_signal0), _one_hot(m, self.reserve_signal1)
        chosen = _one_hot(m, self.set_name)
        short, over, busy = Signal(NO_SEMAPHORE), Signal(NO_SEMAPHORE), Signal(NO_SEMAPHORE)
        # That an instruction is dispatched is known late in a cycle: what it reserves is counted in the next one.
        reserved, queued, value = Signal(), Signal(), Signal(COUNT_BITS)
        own = getattr(self, f"{SEQUENCER}_take") if SEQUENCER in self.engines else Const(0, 1)
        m.d.sync += [reserved.eq(self.reserve & ~self.clear), queued.eq(self.reserve & ~own & ~self.clear), value.eq(self.set_value)]
        for index in range(NO_SEMAPHORE):
            # Tokens of waits that are dispatched and not yet taken no longer count against `MOST`, but they are there.
            count = Signal(range(MOST + self._most_pending + 1), name=f"count_{index}")
            free = Signal(COUNT_BITS, name=f"free_{index}")
            pending = Signal(range(self._most_pending + 1), name=f"pending_{index}")
            m.d.comb += [some[index].eq(count != 0), several[index].eq(count > 1)]
            wanted, asked, given_later, offered, taken, given, taken_by_others = (
                Signal(2, name=f"{name}_{index}")
                for name in ("wanted", "asked", "given_later", "offered", "taken", "given", "taken_by_others")
            )
            waiting, unclaimed = Signal.like(pending, name=f"waiting_{index}"), Signal.like(free, name=f"unclaimed_{index}")
            was_set, setting = Signal(name=f"was_set_{index}"), Signal(name=f"setting_{index}")
            m.d.comb += [
                wanted.eq(wait0[index] + wait1[index]),
                given_later.eq(signal0[index] + signal1[index]),
                taken.eq(takes[0][index] + takes[1][index]),
                taken_by_others.eq(others[0][index] + others[1][index]),
                given.eq(gives[0][index] + gives[1][index]),
                waiting.eq(pending + Mux(queued, asked, 0)),
                unclaimed.eq(Mux(was_set, value, free - Mux(reserved, asked, 0)) + Mux(reserved, offered, 0)),
                short[index].eq(unclaimed < wanted),
                over[index].eq(unclaimed - wanted + given_later > MOST),
                # SEM_SET itself claims what it waits for, and takes it at once.
                busy[index].eq(chosen[index] & ((unclaimed != wanted) | (waiting != taken_by_others))),
                setting.eq(self.set & chosen[index]),
            ]
            m.d.sync += [
                asked.eq(wanted),
                offered.eq(given_later),
                was_set.eq(setting),
                count.eq(Mux(setting, self.set_value, count - taken) + given),
                free.eq(unclaimed),
                pending.eq(waiting - taken_by_others),
            ]
            with m.If(self.clear):
                m.d.sync += [count.eq(0), free.eq(0), pending.eq(0), was_set.eq(0)]
        m.d.comb += [self.underflow.eq(short.any()), self.overflow.eq(over.any()), self.set_fault.eq(busy.any())]
        return m

    def _events(self, m: Module, strobe: str, name: str, engines: Sequence[str], prefix: str = "") -> list[Signal]:
        """Per semaphore, whether one of some engines takes (gives) it by its first and by its second name."""
        result = []
        for index in range(2):
            hit = Signal(NO_SEMAPHORE, name=f"{prefix}{strobe}{index}")
            masks = [
                Mux(getattr(self, f"{engine}_{strobe}"), _one_hot(m, getattr(self, f"{engine}_{name}{index}")), 0) for engine in engines
            ]
            m.d.comb += hit.eq(reduce(or_, masks))
            result.append(hit)
        return result

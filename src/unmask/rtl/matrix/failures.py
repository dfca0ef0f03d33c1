"""Which of the matrix engine's instructions fails, and when everything before it is done."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from unmask.rtl.faults import BITS as FAULT_BITS
from unmask.rtl.faults import Fault

STAGES = ("right", "left", "result")
"""Of an instruction, in their order; each one has begun as many instructions as, or fewer than, the one before."""


class Failures(wiring.Component):
    """The fault of the oldest instruction that has one; those before it end as if it were not there.

    Ports:
        right_start, left_start, result_start: a stage begins its next instruction in the next cycle.
        done: the results of the oldest instruction are complete.
        wrong: what is wrong with the instruction that started in the cycle before. right_wrong, left_wrong, result_wrong: a stage meets an
            address outside.
        found: an instruction fails. failed: it is the oldest that is not done. code: its fault.
        stop: forget everything.
    """

    def __init__(self, depth: int) -> None:
        """Size it; `depth`: instructions that are not done, at most."""
        self._depth = depth
        super().__init__(
            {
                **{f"{name}_start": In(1) for name in STAGES},
                **{f"{name}_wrong": In(1) for name in STAGES},
                "done": In(1),
                "wrong": In(FAULT_BITS),
                "found": Out(1),
                "failed": Out(1),
                "code": Out(FAULT_BITS),
                "stop": In(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        older = Signal(range(self._depth + 1))
        begun = {name: Signal(range(self._depth + 1), name=f"{name}_begun") for name in STAGES}
        m.d.comb += self.failed.eq(self.found & (older == 0))
        m.d.sync += older.eq(older - (self.done & (older != 0)))
        for name in STAGES:
            m.d.sync += begun[name].eq(begun[name] + getattr(self, f"{name}_start") - self.done)
        checked = self.wrong != Fault.NONE
        meets: dict[str, Value] = {name: getattr(self, f"{name}_wrong") for name in STAGES}
        meets["right"] = meets["right"] | checked
        for name in STAGES:
            before = Signal(range(self._depth + 1), name=f"{name}_older")
            m.d.comb += before.eq(begun[name] - 1)
            # What a later stage meets comes after what an earlier one does: the last of these is the oldest instruction's.
            with m.If(meets[name] & (~self.found | (before < older))):
                m.d.sync += [
                    self.found.eq(1),
                    older.eq(before - self.done),
                    self.code.eq(Mux(checked, self.wrong, Fault.ADDRESS) if name == "right" else Fault.ADDRESS),
                ]
        with m.If(self.stop):
            m.d.sync += [self.found.eq(0), *(count.eq(0) for count in begun.values())]
        return m

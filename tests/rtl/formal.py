"""Proofs by yosys' own solver: what a bench claims holds for all inputs that it assumes."""

from __future__ import annotations

import tempfile
from functools import reduce
from operator import and_, or_
from pathlib import Path

from amaranth.back import rtlil
from amaranth.hdl import Const, Module, Mux, Signal, Value, ValueLike

from unmask.silicon.tools import yosys


class Bench:
    """A module with units and their specifications. `m`: it; assumptions bind the inputs from the cycle in which they are made on."""

    def __init__(self) -> None:
        self.m = Module()
        self._inputs: list[Signal] = []
        self._assumed: list[Value] = []
        self._claimed: list[Value] = []

    def given(self, name: str, shape: object) -> Signal:
        """An input, free in every cycle."""
        self._inputs.append(Signal(shape, name=name))
        return self._inputs[-1]

    def assume(self, *conditions: ValueLike) -> None:
        """What the unit's users warrant in every cycle."""
        self._assumed += [Value.cast(condition).bool() for condition in conditions]

    def claim(self, *conditions: ValueLike) -> None:
        """What is to hold in every cycle."""
        self._claimed += [Value.cast(condition).bool() for condition in conditions]

    def refuted(self, cycles: int = 0) -> bool:
        """Whether some inputs break a claim; once for each bench.

        Args:
            cycles: how many from reset are searched, the inputs free in each; 0 for gates without registers.

        Raises:
            RuntimeError: yosys found neither a proof nor a counterexample.
            UnmaskError: yosys failed.
        """
        ok, legal = Signal(name="ok"), reduce(and_, self._assumed, Const(1, 1))
        if cycles:
            before = Signal(init=1, name="legal_before")
            self.m.d.sync += before.eq(before & legal)
            legal = before & legal
        self.m.d.comb += ok.eq(~legal | reduce(and_, self._claimed))
        bounded = f"-set rst 0 -tempinduct -tempinduct-baseonly -maxsteps {cycles}" if cycles else ""
        script = f"read_rtlil bench.il\nproc\nflatten\nmemory_map\nopt -full\nsat -prove ok 1 {bounded} bench\n"
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "bench.il").write_text(rtlil.convert(self.m, name="bench", ports=[ok, *self._inputs], emit_src=False))
            log = yosys(script, Path(folder), "prove")
        if "FAIL!" in log:
            return True
        if "SUCCESS!" not in log:
            raise RuntimeError(log[-2000:])
        return False


def any_of(*conditions: ValueLike) -> Value:
    """Whether one of them holds."""
    return reduce(or_, (Value.cast(condition).bool() for condition in conditions))


def all_of(*conditions: ValueLike) -> Value:
    """Whether all of them hold."""
    return reduce(and_, (Value.cast(condition).bool() for condition in conditions))


def ordinal(bits: Value, width: int, infinity: int) -> Value:
    """Floating-point bits as an integer of the same order: a NaN is minus infinity, the zeros are one."""
    magnitude, negative = bits[: width - 1], bits[width - 1]
    return Mux(magnitude > infinity, -infinity, Mux(negative, -magnitude, magnitude))

"""Where the bytes of a beat lie among the elements of their range."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from unmask.rtl.bits import table
from unmask.rtl.dma import Shape


class Position(wiring.Component):
    """A window moves over a range in steps of whole granules or blocks; each beat begins in the step in which the one before ended.

    Ports:
        valid, first, low, high, kind: a beat, whether it begins a range, and which of its bytes belong to the range.
        unit: steps before the window.
        start, end: place of the beat's first byte in the window, less than a step, and of its last, plus one.
    """

    def __init__(self, shape: Shape, steps: Sequence[int]) -> None:
        """Size it.

        Args:
            steps: bytes of a step, per kind of data.
        """
        self._steps = tuple(steps)
        self._total_bits = (max(steps) - 1 + shape.beat_bytes).bit_length()
        super().__init__(
            {
                "valid": In(1),
                "first": In(1),
                "low": In(shape.beat_bits),
                "high": In(shape.beat_bits + 1),
                "kind": In(range(len(shape.kinds))),
                "unit": Out(shape.address_bits),
                "start": Out(ceil_log2(max(steps))),
                "end": Out(self._total_bits),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """A division by the step, which for steps of three eighths of a power of two is a table."""
        m = Module()
        start, unit, next_start, next_unit = (Signal.like(port) for port in (self.start, self.unit, self.start, self.unit))
        m.d.comb += [
            self.start.eq(Mux(self.first, 0, start)),
            self.unit.eq(Mux(self.first, 0, unit)),
            self.end.eq(self.start + self.high - self.low),
        ]
        values = range(1 << self._total_bits)
        with m.Switch(self.kind):
            for kind, step in enumerate(self._steps):
                with m.Case(kind):
                    if step & (step - 1):
                        steps = table([value // step for value in values], self.end, self._total_bits)
                        rest = table([value % step for value in values], self.end, len(self.start))
                    else:
                        steps, rest = self.end >> ceil_log2(step), self.end[: ceil_log2(step)]
                    m.d.comb += [next_unit.eq(self.unit + steps), next_start.eq(rest)]
        with m.If(self.valid):
            m.d.sync += [start.eq(next_start), unit.eq(next_unit)]
        return m

"""The weight of a lane's logit, for the window sum."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from unmask.rtl import floating
from unmask.rtl.functions import WEIGHT_PLACES, weight
from unmask.rtl.pipeline import Pipeline, delay
from unmask.rtl.window import EXPONENT_BITS


class Weigher(wiring.Component):
    """`functions.weight` of a BF16 pattern.

    Ports, the outputs `registers` cycles after `value`:
        value: BF16 bits.
        significand, exponent: the weight; both 0 without one.
        invalid: the value is NaN or plus infinity, which no window sum can hold.

    `WEIGHT_PLACES` registers suffice for 1 GHz in ASAP7.
    """

    def __init__(self, registers: int) -> None:
        self._registers = registers
        super().__init__({"value": In(16), "significand": Out(8), "exponent": Out(signed(EXPONENT_BITS)), "invalid": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        number = floating.unpack(m, self.value)
        invalid = number.nan | (number.infinity & ~number.sign)
        p = Pipeline(m, WEIGHT_PLACES, self._registers, "weight")
        result = weight(p, self.value)
        p.done()
        m.d.comb += [
            self.significand.eq(result.significand),
            self.exponent.eq(result.exponent),
            self.invalid.eq(delay(m, invalid, self._registers, "invalid")),
        ]
        return m

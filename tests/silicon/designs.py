"""Small units of the tests' own."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class Multiplier(wiring.Component):
    """Adds up products: an arithmetic path, and registers that feed back."""

    def __init__(self) -> None:
        super().__init__({"a": In(6), "b": In(6), "total": Out(16)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        product = Signal(12)
        m.d.sync += [product.eq(self.a * self.b), self.total.eq(self.total + product)]
        return m


class Twins(wiring.Component):
    """Two equal multipliers, given the same numbers in opposite order, and a word that tells them apart if they differ."""

    def __init__(self) -> None:
        super().__init__({"a": In(6), "b": In(6), "low": Out(16), "high": Out(16)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.one_0 = one = Multiplier()
        m.submodules.one_1 = other = Multiplier()
        m.d.comb += [one.a.eq(self.a), one.b.eq(self.b), other.a.eq(self.b), other.b.eq(~self.a)]
        m.d.comb += [self.low.eq(one.total), self.high.eq(other.total)]
        return m

"""Small units of the tests' own."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from unmask.rtl.scaled_noise import Scale


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


class Scales(wiring.Component):
    """Two units of lanes: their results side by side."""

    def __init__(self) -> None:
        super().__init__({"a": In(16), "b": In(16), "temperature": In(16), "scaled": Out(32)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.scale_0 = one = Scale(1)
        m.submodules.scale_1 = other = Scale(1)
        m.d.comb += [unit.temperature.eq(self.temperature) for unit in (one, other)]
        m.d.comb += [one.noise.eq(self.a), other.noise.eq(self.b), self.scaled.eq(Cat(one.scaled, other.scaled))]
        return m


class Rows(wiring.Component):
    """A memory of `words` words, read without a clock and with one, what is written in the same cycle being seen."""

    def __init__(self, words: int) -> None:
        self._words = words
        super().__init__({"address": In(range(words)), "data": In(8), "direct": Out(8), "through": Out(8)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.rows = rows = Memory(shape=8, depth=self._words, init=[])
        write, direct = rows.write_port(), rows.read_port(domain="comb")
        through = rows.read_port(transparent_for=[write])
        m.d.comb += [port.addr.eq(self.address) for port in (write, direct, through)]
        m.d.comb += [write.data.eq(self.data), write.en.eq(1), self.direct.eq(direct.data), self.through.eq(through.data)]
        return m


class Held(wiring.Component):
    """A product that is held until `en`, beside what a further register without a reset holds of it until a is odd too."""

    def __init__(self) -> None:
        super().__init__({"en": In(1), "a": In(6), "b": In(6), "product": Out(12), "later": Out(12)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        later = Signal(12, reset_less=True)
        with m.If(self.en):
            m.d.sync += self.product.eq(self.a * self.b)
        with m.If(self.en & self.a[0]):
            m.d.sync += later.eq(self.product)
        m.d.comb += self.later.eq(later)
        return m


class Crossed(wiring.Component):
    """A multiplier of the two halves of a sum, behind `others` that multiply something else."""

    def __init__(self, others: int) -> None:
        self._others = others
        super().__init__({"a": In(12), "b": In(12), "total": Out(16)})

    def elaborate(self, platform: object) -> Module:
        m, both = Module(), Signal(12)
        for index in range(self._others):
            m.submodules[f"other_{index}"] = other = Multiplier()
            m.d.comb += [other.a.eq(self.a + index), other.b.eq(self.b)]
        m.submodules.halves = halves = Multiplier()
        m.d.comb += [both.eq(self.a + self.b), halves.a.eq(both[:6]), halves.b.eq(both[6:]), self.total.eq(halves.total)]
        return m

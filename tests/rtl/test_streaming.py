"""The helper that streams vectors through a unit shows what the unit computes."""

import numpy as np
from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from unmask.rtl.pipeline import delay

from .streaming import Simulation, stream


class Adder(wiring.Component):
    """A narrow and a wide sum, 3 cycles late, and how many cycles there were."""

    a: In(40)
    b: In(8)
    wide: In(100)
    sum: Out(41)
    more: Out(100)
    count: Out(16, init=5)

    def elaborate(self, _: object) -> Module:
        m = Module()
        m.d.comb += [self.sum.eq(delay(m, self.a + self.b, 3, "sum")), self.more.eq(delay(m, self.wide + self.b, 3, "more"))]
        count = Signal(16, init=5)
        m.d.sync += count.eq(count + 1)
        m.d.comb += self.count.eq(count)
        return m


def test_ports_of_any_width_stream_and_state_lasts() -> None:
    a, b = np.arange(1000) * 1234567891 % 2**40, np.arange(1000) % 256
    results = stream(Adder(), {"a": a, "b": b, "wide": np.full(1000, 2**33 - 1)}, latency=3)
    assert (results["sum"] == a + b).all()
    assert (results["more"][:, :2].copy().view(np.uint64)[:, 0] == b + 2**33 - 1).all()
    simulation = Simulation(Adder())
    assert [*simulation.run({}, 2)["count"], *simulation.run({}, 2)["count"]] == [5, 6, 7, 8]

"""Scores: logits with Gumbel noise added."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from unmask.rtl import bf16
from unmask.rtl.noise import NOISE_PLACES, NoiseLanes
from unmask.rtl.pipeline import Pipeline


class Scores(wiring.Component):
    """a + temperature * noise of consecutive tokens of one position, per lane.

    Noise needs no operand, so its generators start first, and the operand is read when they are done.

    Ports:
        seed, step, position, token: 32 bits each, `token` of lane 0. temperature: BF16 bits, constant.
        a: BF16 bits of the lanes, `lead` cycles after position and token.
        scores: `registers` cycles after position and token.

    Attributes:
        lead: see above.
    """

    PLACES = NOISE_PLACES + 2 * bf16.PLACES

    def __init__(self, vlen: int, registers: int) -> None:
        """`PLACES` registers suffice for 1 GHz in ASAP7."""
        self._vlen = vlen
        self._multiply = self._add = registers * bf16.PLACES // self.PLACES
        self._generate = registers - self._multiply - self._add
        self.lead = self._generate + self._multiply
        vector = data.ArrayLayout(16, vlen)
        super().__init__(
            {
                **dict.fromkeys(("seed", "step", "position", "token"), In(32)),
                "temperature": In(16),
                "a": In(vector),
                "scores": Out(vector),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.noise_lanes = noise = NoiseLanes(self._vlen, self._generate)
        m.d.comb += [getattr(noise, name).eq(getattr(self, name)) for name in ("seed", "step", "position", "token")]
        for lane in range(self._vlen):
            score = m.submodules[f"score_{lane}"] = Score(self._multiply, self._add)
            m.d.comb += [
                score.noise.eq(noise.noise[lane]),
                score.temperature.eq(self.temperature),
                score.a.eq(self.a[lane]),
                self.scores[lane].eq(score.score),
            ]
        return m


class Score(wiring.Component):
    """a + temperature * noise of a lane, rounded after each.

    Ports, BF16 bits each:
        noise; temperature: constant. a: `multiply` cycles after the noise. score: `add` cycles after a.
    """

    def __init__(self, multiply: int, add: int) -> None:
        """`bf16.PLACES` registers each suffice for 1 GHz in ASAP7."""
        self._multiply, self._add = multiply, add
        super().__init__({"noise": In(16), "temperature": In(16), "a": In(16), "score": Out(16)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        product, total = Pipeline(m, bf16.PLACES, self._multiply, "product"), Pipeline(m, bf16.PLACES, self._add, "score")
        scaled = bf16.multiply(product, self.noise, self.temperature)
        m.d.comb += self.score.eq(bf16.add(total, self.a, scaled))
        return m

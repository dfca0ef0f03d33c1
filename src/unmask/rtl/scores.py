"""Scores: logits with Gumbel noise added."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Value
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
            product = Pipeline(m, bf16.PLACES, self._multiply, f"product_{lane}")
            total = Pipeline(m, bf16.PLACES, self._add, f"score_{lane}")
            scaled = bf16.multiply(product, Value.cast(noise.noise[lane]), self.temperature)
            m.d.comb += self.scores[lane].eq(bf16.add(total, Value.cast(self.a[lane]), scaled))
        return m

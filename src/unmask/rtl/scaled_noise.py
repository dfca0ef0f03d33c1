"""Gumbel noise times the temperature: what the lanes add to logits."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from unmask.rtl import bf16
from unmask.rtl.noise import NOISE_PLACES, NoiseLanes
from unmask.rtl.pipeline import Pipeline, loads_of


class ScaledNoise(wiring.Component):
    """temperature * noise of consecutive tokens of one position, per lane.

    Ports:
        seed, step, position, token: as of `NoiseLanes`. temperature: BF16 bits, constant.
        scaled: BF16 bits of the lanes, `registers` cycles after position and token; 0 at temperature 0.
        loads: the registers that load, as `Pipeline` has it.
    """

    PLACES = NOISE_PLACES + bf16.PLACES

    def __init__(self, vlen: int, registers: int) -> None:
        """`PLACES` registers suffice for 1 GHz in ASAP7."""
        self._vlen = vlen
        self._multiply = registers * bf16.PLACES // self.PLACES
        self._generate = registers - self._multiply
        vector = data.ArrayLayout(16, vlen)
        inputs = {**dict.fromkeys(("seed", "step", "position", "token"), In(32)), "temperature": In(16)}
        super().__init__({**inputs, "loads": loads_of(registers), "scaled": Out(vector)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.noise_lanes = noise = NoiseLanes(self._vlen, self._generate)
        m.d.comb += [getattr(noise, name).eq(getattr(self, name)) for name in ("seed", "step", "position", "token", "loads")]
        for lane in range(self._vlen):
            scale = m.submodules[f"scale_{lane}"] = Scale(self._multiply)
            m.d.comb += [
                scale.noise.eq(noise.noise[lane]),
                scale.temperature.eq(self.temperature),
                scale.loads.eq(self.loads[self._generate :]),
                self.scaled[lane].eq(scale.scaled),
            ]
        return m


class Scale(wiring.Component):
    """temperature * noise of a lane, rounded.

    Ports, BF16 bits each:
        noise; temperature: constant. scaled: `registers` cycles after the noise; 0 at temperature 0.
        loads: the registers that load, as `Pipeline` has it.
    """

    def __init__(self, registers: int) -> None:
        """`bf16.PLACES` registers suffice for 1 GHz in ASAP7."""
        self._registers = registers
        super().__init__({"noise": In(16), "temperature": In(16), "loads": loads_of(registers), "scaled": Out(16)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        p = Pipeline(m, bf16.PLACES, self._registers, "product", self.loads)
        product = bf16.multiply(p, self.noise, self.temperature)
        p.done()
        m.d.comb += self.scaled.eq(product & self.temperature[:15].any().replicate(16))
        return m

"""Gumbel noise of lanes against `unmask.numerics.noise`."""

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from unmask.numerics import bf16, noise
from unmask.rtl.noise import GUMBEL_FP32_PLACES, GUMBEL_PLACES, NOISE_PLACES, NoiseLanes, gumbel, gumbel_fp32
from unmask.rtl.pipeline import Pipeline

from .streaming import stream


class _Both(wiring.Component):
    bits: In(32)
    narrow: Out(16)
    wide: Out(32)

    def elaborate(self, _: object) -> Module:
        m = Module()
        for result, transform, places in ((self.narrow, gumbel, GUMBEL_PLACES), (self.wide, gumbel_fp32, GUMBEL_FP32_PLACES)):
            p = Pipeline(m, places, 3)
            m.d.comb += result.eq(transform(p, self.bits))
            p.done()
        return m


def test_gumbel_at_both_ends_powers_of_two_and_random_bits():
    rng = np.random.default_rng(3)
    powers = 2 ** np.arange(32, dtype=np.int64)
    ends = np.arange(40000)
    bits = np.concatenate([ends, 2**32 - 1 - ends, powers, powers - 1, powers + 1, rng.integers(0, 2**32, 100000)]).astype(np.uint32)
    found = stream(_Both(), {"bits": bits}, 3)
    np.testing.assert_array_equal(found["narrow"], bf16.to_bits(noise.gumbel(bits)))
    np.testing.assert_array_equal(found["wide"].astype(np.uint32), noise.gumbel_fp32(bits).view(np.uint32))


@pytest.mark.parametrize(("lanes", "registers"), [(2, 0), (4, NOISE_PLACES), (8, 5)])
def test_lanes_draw_the_noise_of_their_tokens(lanes, registers):
    rng = np.random.default_rng(lanes)
    vectors = 200
    words = rng.integers(0, 2**32, (2, vectors), dtype=np.int64)
    words[:, :40] = rng.choice([0, 1, 2, 3, 2**31, 2**32 - 1, 2**32 - lanes, 2**32 - lanes - 1], (2, 40))
    # A token may not pass the end of its 32 bits within a vector.
    position, token = words[0], np.minimum(words[1], 2**32 - lanes)
    for seed, step in ((0, 0), (2**32 - 1, 2**32 - 1), (0x13198A2E, 0x03707344)):
        # The key is there a cycle before the first vector.
        ports = {name: np.concatenate([values[:1], values]) for name, values in (("position", position), ("token", token))}
        ports |= {name: np.full(1 + vectors, value) for name, value in (("seed", seed), ("step", step))}
        found = stream(NoiseLanes(lanes, registers), ports, registers)["noise"][1:]
        halves = np.ascontiguousarray(found).view(np.uint16).reshape(vectors, -1)[:, :lanes]
        for vector in range(vectors):
            drawn = noise.uniform_bits(seed, step, np.array([position[vector]]), token[vector] + np.arange(lanes))
            np.testing.assert_array_equal(halves[vector], bf16.to_bits(noise.gumbel(drawn))[0])

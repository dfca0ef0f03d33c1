"""The weight of a logit in gates."""

from __future__ import annotations

import numpy as np
from amaranth.sim import Simulator

from unmask.numerics import bf16
from unmask.numerics.functions import weight
from unmask.rtl.functions import WEIGHT_PLACES
from unmask.rtl.weigher import Weigher

SPECIAL = [0x0000, 0x8000, 0x0001, 0x8001, 0x7F80, 0xFF80, 0x7FC0, 0xFFFF, 0x7F7F, 0xFF7F, 0x3F80, 0xC2B0]


def test_weights_are_those_of_the_numerics_and_what_has_none_is_told() -> None:
    patterns = np.array([*SPECIAL, *np.random.default_rng(0).integers(0, 1 << 16, 200)], np.uint16)
    significands, exponents = weight((patterns.astype(np.uint32) << 16).view(np.float32))
    unit, seen = Weigher(WEIGHT_PLACES), []

    async def bench(context) -> None:  # type: ignore[no-untyped-def]
        for pattern in [*patterns, *[0] * WEIGHT_PLACES]:
            context.set(unit.value, int(pattern))
            await context.tick()
            seen.append([context.get(port) for port in (unit.significand, unit.exponent, unit.invalid)])

    simulator = Simulator(unit)
    simulator.add_clock(1e-9)
    simulator.add_testbench(bench)
    simulator.run()
    found = np.array(seen[WEIGHT_PLACES - 1 :][: len(patterns)])
    there = significands > 0
    assert np.array_equal(found[:, 0], significands)
    assert np.array_equal(found[there, 1], exponents[there] + 7)
    assert np.array_equal(found[:, 2], (patterns & 0x7FFF > bf16.INFINITY_BITS) | (patterns == bf16.INFINITY_BITS))

"""The tree of maxima against the functional reading's maximum with index; |x| down columns."""

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from unmask.machine.semantics.registry import comparable
from unmask.numerics import bf16
from unmask.rtl import reduce

from .lanes import bits_of_lanes, pack_lanes
from .streaming import stream


@pytest.mark.parametrize(("lanes", "registers"), [(2, 0), (2, 1), (8, 1), (8, 5), (8, 3), (32, 0), (32, 2), (32, 3), (64, 4)])
def test_the_first_of_the_highest_wins_with_its_companion(lanes, registers):
    rng = np.random.default_rng(lanes + registers)
    scores, companions = (bits_of_lanes(rng, 2000, lanes) for _ in range(2))
    mask = rng.random((2000, lanes)) < rng.choice([0.0, 0.1, 0.9, 1.0], (2000, 1))
    found = stream(
        reduce.MaxTree(lanes, registers),
        {"scores": pack_lanes(scores, 16), "companions": pack_lanes(companions, 16), "mask": pack_lanes(mask, 1)},
        registers,
    )
    values = comparable(bf16.from_bits(scores))
    some = mask.any(axis=1)
    np.testing.assert_array_equal(found["found"] != 0, some)
    # Below minus infinity: a lane that does not take part loses against one that does.
    lane = np.where(mask, bf16.ordered(values).astype(int), -1).argmax(axis=1)
    row = np.arange(2000)
    np.testing.assert_array_equal(found["lane"][some], lane[some])
    np.testing.assert_array_equal(found["score"][some], bf16.to_bits(values[row, lane])[some])
    np.testing.assert_array_equal(found["companion"][some], companions[row, lane][some])


class _Largest(wiring.Component):
    value: In(16)
    previous: In(16)
    largest: Out(16)

    def elaborate(self, _: object) -> Module:
        m = Module()
        m.d.comb += self.largest.eq(reduce.column_absmax(m, self.value, self.previous))
        return m


def test_the_largest_magnitude_down_a_column():
    rng = np.random.default_rng(0)
    value = np.arange(1 << 16, dtype=np.uint16)
    previous = rng.permutation(value)
    found = stream(_Largest(), {"value": value, "previous": previous}, 0)
    magnitude = np.abs(bf16.from_bits(value))
    top = np.where(np.isnan(magnitude), np.float32(0), magnitude)
    expected = np.fmax(bf16.from_bits(previous), top)
    np.testing.assert_array_equal(found["largest"], bf16.to_bits(expected))

"""Gumbel noise: `unmask.numerics.noise` in gates."""

from __future__ import annotations

import itertools

from amaranth.hdl import Cat, Const, Module, Mux, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from unmask.numerics.noise import LN2, LOG_FRACTION, LOG_INDEX_BITS, LOG_RESULT_FRACTION, LOG_ROM, LOG_ROM_FRACTION, LOG_STEP_BITS
from unmask.rtl import bf16, floating
from unmask.rtl.bits import leading_zeros, shift_left, table, wire
from unmask.rtl.pipeline import Pipeline
from unmask.rtl.threefry import THREEFRY_PLACES, added, rounds

LOG_PLACES = 4
"""Of `negative_log`."""
GUMBEL_PLACES = 2 * LOG_PLACES + 2
"""Of `gumbel` and `gumbel_fp32`."""
NOISE_PLACES = THREEFRY_PLACES + GUMBEL_PLACES
"""Of `NoiseLanes`."""

_WORD = 32
_FP32_FRACTION = 23
_LOG_BITS = (33 * LN2).bit_length()
"""Of -ln(u), u at least 2^-33, unsigned with `LOG_RESULT_FRACTION` fraction bits."""


def negative_log(p: Pipeline, value: Value, fraction: int) -> Value:
    """-ln(value 2^-fraction) of a value above 0, signed with `LOG_RESULT_FRACTION` fraction bits: `noise._negative_log`; `LOG_PLACES`."""
    m, width = p.m, len(value)
    zeros = wire(m, leading_zeros(m, value)[: (width - 1).bit_length()])
    shifted = shift_left(m, value, zeros)
    normalised = shifted[width - LOG_FRACTION :]
    distance = wire(m, ((1 << LOG_FRACTION) - normalised)[:LOG_FRACTION])
    zeros, distance = p.cut(zeros, distance)

    # The exponent's part of the logarithm: fraction - length is zeros + fraction - width.
    logarithms = [max(0, min(count, width - 1)) + fraction - width for count in range(1 << len(zeros))]
    whole_bits = LOG_RESULT_FRACTION + 7
    whole = table([count * LN2 % (1 << whole_bits) for count in logarithms], zeros, whole_bits).as_signed()
    low_bits = LOG_FRACTION - 1 - LOG_INDEX_BITS
    segment, step = distance[low_bits:], distance[low_bits - LOG_STEP_BITS : low_bits]
    entries = [int(entry) - (1 << LOG_ROM_FRACTION) for entry in LOG_ROM]
    slopes = [after - before for before, after in itertools.pairwise(entries)]
    # A distance of 1/2 itself is the last entry, without a step.
    last, index = segment[-1], segment[:-1]
    count = 1 << LOG_INDEX_BITS
    base = wire(m, Mux(last, entries[count], table(entries[:count], index, max(entries).bit_length())))
    slope = wire(m, table(slopes[:count], index, max(slopes).bit_length()))
    factor = base + ((slope * step) >> LOG_STEP_BITS) + (1 << LOG_ROM_FRACTION)
    distance, whole, factor = p.cut(distance, wire(m, whole), wire(m, factor[: LOG_ROM_FRACTION + 1]))

    # The product in two halves, so that neither they nor the sum of all fill a cycle.
    half = LOG_ROM_FRACTION // 2
    low, high = wire(m, distance * factor[:half]), wire(m, distance * factor[half:])
    whole, low, high = p.cut(whole, low, high)
    result = wire(m, (whole + low + Cat(Const(0, half), high))[:whole_bits].as_signed())
    return p.cut(result)[0]


def gumbel(p: Pipeline, bits: Value) -> Value:
    """Standard Gumbel noise of 32 random bits, a BF16 pattern: `unmask.numerics.noise.gumbel`; `GUMBEL_PLACES`."""
    return _gumbel(p, bits, bf16.FRACTION)


def gumbel_fp32(p: Pipeline, bits: Value) -> Value:
    """Standard Gumbel noise of 32 random bits, an FP32 pattern: `unmask.numerics.noise.gumbel_fp32`; `GUMBEL_PLACES`."""
    return _gumbel(p, bits, _FP32_FRACTION)


def _gumbel(p: Pipeline, bits: Value, fraction: int) -> Value:
    m = p.m
    inner = negative_log(p, Cat(Const(1, 1), bits), LOG_FRACTION)
    outer = negative_log(p, inner[:_LOG_BITS], LOG_RESULT_FRACTION)
    sign = outer[-1]
    # Below 2^5 in magnitude.
    magnitude = wire(m, ((outer ^ sign.replicate(len(outer))) + sign)[:_LOG_BITS])
    sign, magnitude, zeros = p.cut(sign, magnitude, leading_zeros(m, magnitude)[: (_LOG_BITS - 1).bit_length()])
    exponent = Const(floating.BIAS + _LOG_BITS - 2 - LOG_RESULT_FRACTION, 9)
    value = floating.Unrounded(sign, magnitude, exponent, Const(0, 1), Const(0, 1))
    return p.cut(floating.packed(m, value, zeros, fraction, right=False))[0]


class NoiseLanes(wiring.Component):
    """The noise of a vector: that of tokens that count lanes.

    Ports, all of one vector, the output `registers` cycles after the inputs:
        seed, step: the key. position: of the row. token: of lane 0, of either parity.
        noise: BF16 Gumbel noise of (seed, step, position, token + lane) of each lane.

    A generator makes the words of an even token and the odd one after it. If `token` is odd, one generator more than pairs of lanes are
    needed, and every lane takes the word beside its own.
    """

    def __init__(self, lanes: int, registers: int) -> None:
        """Of so many lanes, a power of two from 2 on; `NOISE_PLACES` registers suffice for 1 GHz in ASAP7."""
        self._index_bits, self._registers = exact_log2(lanes), registers
        super().__init__(
            {
                "seed": In(_WORD),
                "step": In(_WORD),
                "position": In(_WORD),
                "token": In(_WORD),
                "noise": Out(data.ArrayLayout(16, lanes)),
            }
        )

    def elaborate(self, _: object) -> Module:
        m = Module()
        lanes = 1 << self._index_bits
        drawing = self._registers * THREEFRY_PLACES // NOISE_PLACES
        m.submodules.words = words = NoiseWords(lanes, drawing)
        m.d.comb += [getattr(words, name).eq(getattr(self, name)) for name in ("seed", "step", "position", "token")]
        for lane in range(lanes):
            m.submodules[f"gumbel_{lane}"] = transform = Gumbel(self._registers - drawing)
            m.d.comb += [transform.bits.eq(words.words[lane]), self.noise[lane].eq(transform.noise)]
        return m


class NoiseWords(wiring.Component):
    """The random words of a vector, ports as those of `NoiseLanes`, with 32 bits of each lane in place of its noise."""

    def __init__(self, lanes: int, registers: int) -> None:
        """Of so many lanes, a power of two from 2 on; `THREEFRY_PLACES` registers suffice for 1 GHz in ASAP7."""
        self._lanes, self._registers = lanes, registers
        inputs = dict.fromkeys(("seed", "step", "position", "token"), In(_WORD))
        super().__init__({**inputs, "words": Out(data.ArrayLayout(_WORD, lanes))})

    def elaborate(self, _: object) -> Module:
        m = Module()
        p = Pipeline(m, THREEFRY_PLACES, self._registers)
        left, right = added(m, self.position, self.seed), added(m, self.token[1:], self.step)
        count = self._lanes // 2 + 1
        counters = list(zip(_counting(m, added(m, left, right), count), _counting(m, right, count), strict=True))
        pairs, (odd,) = rounds(p, (self.seed, self.step), counters, self.token[0])
        p.done()
        flat = [word for pair in pairs for word in pair]
        for lane in range(self._lanes):
            m.d.comb += self.words[lane].eq(Mux(odd, flat[lane + 1], flat[lane]))
        return m


def _counting(m: Module, start: Value, count: int) -> list[Value]:
    """start + 0, 1, ... modulo 2^32: only the low bits are added for each, the rest is one of two."""
    low = (count - 1).bit_length()
    high, next_high = start[low:], wire(m, (start[low:] + 1)[: _WORD - low])
    sums = [wire(m, start[:low] + index) for index in range(count)]
    return [wire(m, Cat(total[:low], Mux(total[low], next_high, high))) for total in sums]


class Gumbel(wiring.Component):
    """`gumbel` as a unit: BF16 `noise` of 32 random `bits`, `registers` cycles later."""

    def __init__(self, registers: int) -> None:
        """With so many registers; `GUMBEL_PLACES` suffice for 1 GHz in ASAP7."""
        self._registers = registers
        super().__init__({"bits": In(_WORD), "noise": Out(16)})

    def elaborate(self, _: object) -> Module:
        m = Module()
        p = Pipeline(m, GUMBEL_PLACES, self._registers)
        m.d.comb += self.noise.eq(gumbel(p, self.bits))
        p.done()
        return m

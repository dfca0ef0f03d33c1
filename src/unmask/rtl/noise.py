"""Gumbel noise: `unmask.numerics.noise` in gates."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Mux, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from unmask.numerics.noise import NARROW, TOKENS_PER_COUNTER, WIDE, GumbelTransform
from unmask.rtl import bf16, floating, fp32
from unmask.rtl.bits import leading_zeros, shift_left, table, wire
from unmask.rtl.pipeline import Pipeline, loads_of
from unmask.rtl.threefry import THREEFRY_PLACES, added, key_groups, rounds

GUMBEL_PLACES = 5
"""Of `gumbel`."""
GUMBEL_FP32_PLACES = GUMBEL_PLACES + 4
"""Of `gumbel_fp32`: its two products stand alone, as do a sign, leading zeros and a rounding."""
WORDS_PLACES = 1 + THREEFRY_PLACES
"""Of `NoiseWords`."""
NOISE_PLACES = WORDS_PLACES + GUMBEL_PLACES
"""Of `NoiseLanes`."""

_WORD = 32
_WHOLE_BITS = 5
"""Of the largest noise."""


def gumbel(p: Pipeline, bits: Value) -> Value:
    """Standard Gumbel noise of 32 random bits, a BF16 pattern: `unmask.numerics.noise.gumbel`; `GUMBEL_PLACES`."""
    return _rounded(p, _noise(p, NARROW, bits, apart=False), NARROW.fraction, bf16.FRACTION, apart=False)


def gumbel_fp32(p: Pipeline, bits: Value) -> Value:
    """Standard Gumbel noise of 32 random bits, an FP32 pattern: `unmask.numerics.noise.gumbel_fp32`; `GUMBEL_FP32_PLACES`."""
    return _rounded(p, _noise(p, WIDE, bits, apart=True), WIDE.fraction, fp32.FRACTION, apart=True)


def _noise(p: Pipeline, form: GumbelTransform, bits: Value, *, apart: bool) -> Value:
    """`GumbelTransform.noise`, signed; `apart`: products have places of their own."""
    m, width, log_bits = p.m, form.mantissa_bits, _WHOLE_BITS + form.fraction
    upper = bits[-1]
    smaller = Cat(Const(1, 1), bits[:-1] ^ upper.replicate(_WORD - 1))
    zeros = wire(m, leading_zeros(m, smaller)[:5])
    mantissa, twice = shift_left(m, smaller, zeros)[_WORD - 1 - width : _WORD - 1], smaller[_WORD - width :]
    upper, zeros, mantissa, twice = p.cut(upper, zeros, mantissa, twice)

    octave = table([form.times_ln2(count + 2) for count in range(32)], zeros, log_bits)
    logs, complements = form.log_rom.tolist(), form.complement_rom.tolist()
    later = (upper, twice, octave)
    base, product, upper, twice, octave = _interpolated(p, form, [logs], mantissa, Const(0, 1), *later, apart=apart)
    upper, twice, log = p.cut(upper, twice, wire(m, (octave - base - product)[:log_bits]))

    # L lies in 1/2 ... 32.
    length = wire(m, leading_zeros(m, log[form.fraction - 1 :])[:3])
    normalised = shift_left(m, log, length)[log_bits - 1 - width : log_bits - 1]
    exponents = [-form.times_ln2(max(_WHOLE_BITS - 1 - count, -1)) % (1 << (log_bits + 1)) for count in range(8)]
    whole = wire(m, Mux(upper, log, table(exponents, length, log_bits + 1))[: log_bits + 1])
    upper, whole, argument = p.cut(upper, whole, wire(m, Mux(upper, twice, normalised)))

    base, product, whole = _interpolated(p, form, [logs, complements], argument, upper, whole, apart=apart)
    return p.cut(wire(m, (whole - base - product)[: log_bits + 1].as_signed()))[0]


def _interpolated(
    p: Pipeline, form: GumbelTransform, roms: Sequence[Sequence[int]], argument: Value, which: Value, *beside: Value, apart: bool
) -> list[Value]:
    """Of one of some ROMs the entry of the argument's segment, and what is to be added to it; and `beside` as late."""
    m = p.m
    step, segment = argument[: form.step_bits], argument[form.step_bits :]
    base, slope = (Value.cast(0), Value.cast(0))
    for index, rom in enumerate(roms):
        slopes = [after - before for before, after in itertools.pairwise(rom)]
        own = (table(part, segment, max(part).bit_length()) for part in (rom[:-1], slopes))
        base, slope = (wire(m, Mux(which == index, value, other)) for value, other in zip(own, (base, slope), strict=True))
    product = wire(m, (slope * step) >> form.step_bits)
    return p.cut(base, product, *beside) if apart else [base, product, *beside]


def _rounded(p: Pipeline, noise: Value, fraction_bits: int, fraction: int, *, apart: bool) -> Value:
    """Signed fixed point as a pattern with that many bits of fraction; a place; `apart`: and one behind each step before."""
    m, bits = p.m, len(noise) - 1
    sign = noise[-1]
    magnitude = wire(m, ((noise ^ sign.replicate(len(noise))) + sign)[:bits])
    if apart:
        sign, magnitude = p.cut(sign, magnitude)
    zeros = wire(m, leading_zeros(m, magnitude)[: (bits - 1).bit_length()])
    if apart:
        sign, magnitude, zeros = p.cut(sign, magnitude, zeros)
    exponent = Const(floating.BIAS + bits - 2 - fraction_bits, 9)
    value = floating.Unrounded(sign, magnitude, exponent, Const(0, 1), Const(0, 1))
    return p.cut(floating.packed(m, value, zeros, fraction, right=False))[0]


class NoiseLanes(wiring.Component):
    """The noise of a vector: that of tokens that count lanes.

    Ports, the output `registers` cycles after the inputs of its vector:
        seed, step: the key, constant from a cycle before the first vector on. position: of the row. token: of lane 0, any.
        noise: BF16 Gumbel noise of (seed, step, position, token + lane) of each lane.
        loads: the registers that load, as `Pipeline` has it.

    A generator makes the words of four tokens from a multiple of four on. If `token` is none, one generator more than fours of lanes is
    needed, and every lane takes the word of a lane up to three above its own.
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
                "loads": loads_of(registers),
            }
        )

    def elaborate(self, _: object) -> Module:
        m = Module()
        lanes = 1 << self._index_bits
        drawing = self._registers * WORDS_PLACES // NOISE_PLACES
        m.submodules.words = words = NoiseWords(lanes, drawing)
        m.d.comb += [getattr(words, name).eq(getattr(self, name)) for name in ("seed", "step", "position", "token", "loads")]
        for lane in range(lanes):
            m.submodules[f"gumbel_{lane}"] = transform = Gumbel(self._registers - drawing)
            m.d.comb += [
                transform.bits.eq(words.words[lane]),
                transform.loads.eq(self.loads[drawing:]),
                self.noise[lane].eq(transform.noise),
            ]
        return m


class NoiseWords(wiring.Component):
    """The random words of a vector, ports as those of `NoiseLanes`, with 32 bits of each lane in place of its noise."""

    def __init__(self, lanes: int, registers: int) -> None:
        """Of so many lanes, a power of two from 2 on; `WORDS_PLACES` registers suffice for 1 GHz in ASAP7."""
        self._lanes, self._registers = lanes, registers
        inputs = dict.fromkeys(("seed", "step", "position", "token"), In(_WORD))
        super().__init__({**inputs, "loads": loads_of(registers), "words": Out(data.ArrayLayout(_WORD, lanes))})

    def elaborate(self, _: object) -> Module:
        m = Module()
        p = Pipeline(m, WORDS_PLACES, self._registers, loads=self.loads)
        group, within = self.token[exact_log2(TOKENS_PER_COUNTER) :], self.token[: exact_log2(TOKENS_PER_COUNTER)]
        left, right = added(m, self.position, self.seed), added(m, group, self.step)
        left, right, within = p.cut(left, right, within)
        count = (self._lanes + 2 * (TOKENS_PER_COUNTER - 1)) // TOKENS_PER_COUNTER
        counters = list(zip(_counting(m, added(m, left, right), count), _counting(m, right, count), strict=True))
        pairs, (within,) = rounds(p, key_groups(m, self.seed, self.step), counters, within)
        p.done()
        flat = [word for pair in pairs for word in pair]
        # Bit 1 of a token is the word, bit 0 how it is read.
        words = [wire(m, Mux(within[1], after, word)) for word, after in itertools.pairwise(flat)]
        read = [way for word in words for way in (word, word[::-1])]
        for lane in range(self._lanes):
            m.d.comb += self.words[lane].eq(Mux(within[0], read[lane + 1], read[lane]))
        return m


def _counting(m: Module, start: Value, count: int) -> list[Value]:
    """start + 0, 1, ... modulo 2^32: only the low bits are added for each, the rest is one of two."""
    low = (count - 1).bit_length()
    high, next_high = start[low:], wire(m, (start[low:] + 1)[: _WORD - low])
    sums = [wire(m, start[:low] + index) for index in range(count)]
    return [wire(m, Cat(total[:low], Mux(total[low], next_high, high))) for total in sums]


class Gumbel(wiring.Component):
    """`gumbel` as a unit: BF16 `noise` of 32 random `bits`, `registers` cycles later; `loads` as `Pipeline` has it."""

    def __init__(self, registers: int) -> None:
        """With so many registers; `GUMBEL_PLACES` suffice for 1 GHz in ASAP7."""
        self._registers = registers
        super().__init__({"bits": In(_WORD), "loads": loads_of(registers), "noise": Out(16)})

    def elaborate(self, _: object) -> Module:
        m = Module()
        p = Pipeline(m, GUMBEL_PLACES, self._registers, loads=self.loads)
        m.d.comb += self.noise.eq(gumbel(p, self.bits))
        p.done()
        return m

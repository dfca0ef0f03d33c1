"""Counter-based random bits, and uniform and Gumbel noise made of them.

The bits depend on (seed, step, position, token) and on nothing else, so every reading draws the same noise whatever its tiling.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import cache, cached_property

import numpy as np

from unmask.errors import UnmaskError
from unmask.numerics import accumulator, bf16
from unmask.numerics._arrays import Bool, Float32, Int64, Uint32

ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
PARITY = 0x1BD11BDA
#: The fewest with which Threefry-2x32 passes BigCrush.
ROUNDS = 13
NO_TOKEN = 2**32 - 1

#: Tokens that share the two words of a counter: each word is read forwards and backwards.
TOKENS_PER_COUNTER = 4

#: Elements worked on at once: a few arrays of this size stay in a core's cache.
_CHUNK = 1 << 15


def threefry2x32(key: tuple[int, int], counter: tuple[Uint32, Uint32]) -> tuple[Uint32, Uint32]:
    """Threefry-2x32 with 13 rounds: adds, rotations and exclusive ors of 32-bit words.

    key: two integers below 2^32. counter: two uint32 arrays that broadcast. Returns two uint32 arrays.
    Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3. SC 2011.
    """
    schedule = [np.uint32(k) for k in (*key, key[0] ^ key[1] ^ PARITY)]
    left, right = np.broadcast_arrays(*counter)
    left, right = left + schedule[0], right + schedule[1]
    for i in range(ROUNDS):
        rotation = ROTATIONS[i % 8]
        left += right
        high = right << np.uint32(rotation)
        right >>= np.uint32(32 - rotation)
        right |= high
        right ^= left
        if i % 4 == 3:
            group = i // 4 + 1
            left += schedule[group % 3]
            # The sum of a key word and the group number may wrap, which a numpy scalar would warn about.
            right += np.uint32((int(schedule[(group + 1) % 3]) + group) & 0xFFFFFFFF)
    return left, right


def backwards(words: Uint32) -> Uint32:
    """The 32 bits of each word in reverse order, uint32 of any shape."""
    octets = np.ascontiguousarray(words, dtype="<u4").view(np.uint8)
    reversed_bits = _reversed_octets()[octets]
    return np.asarray(reversed_bits.view("<u4").byteswap(), dtype=np.uint32)


@cache
def _reversed_octets() -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    return np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)[:, ::-1], axis=1)[:, 0]


def position_bits(seed: int, step: int, positions: Int64) -> Uint32:
    """32 random bits for each position, uint32 [r]: the words of a token index that no vocabulary reaches.

    Sharing a token's words would tie which positions commit to what they commit. Arguments and errors as for `uniform_bits`.
    """
    return uniform_bits(seed, step, positions, np.array([NO_TOKEN]))[:, 0]


def uniform_bits(seed: int, step: int, positions: Int64, tokens: Int64) -> Uint32:
    """32 random bits for each (position, token).

    seed, step: integers in 0..2^32 - 1, the key. positions [r], tokens [c]: integers below 2^32. Returns uint32 [r, c]. The counter is
    (position, token >> 2), so four lanes share one generator: bit 1 of the token picks the output word, and an odd token reads it
    backwards. Two tokens of a word are independent in their upper 16 bits; what one has below is what the other has above, upside down.
    Raises UnmaskError for a key out of range.
    """
    for name, value in (("seed", seed), ("step", step)):
        if not 0 <= value < 2**32:
            raise UnmaskError(f"{name} {value} is out of range: expected 0..{2**32 - 1}")
    positions, tokens = np.asarray(positions), np.asarray(tokens).astype(np.uint32)
    counters, where = np.unique(tokens // np.uint32(TOKENS_PER_COUNTER), return_inverse=True)
    second, odd = ((tokens >> np.uint32(bit) & np.uint32(1)).astype(np.bool_) for bit in (1, 0))
    rows = positions.astype(np.uint32)[:, None]
    out = np.empty((positions.size, tokens.size), dtype=np.uint32)
    some = max(1, _CHUNK // max(1, tokens.size))
    for start in range(0, positions.size, some):
        part = slice(start, start + some)
        left, right = threefry2x32((seed, step), (rows[part], counters))
        words = np.where(second, right[:, where], left[:, where])
        words[:, odd] = backwards(words[:, odd])
        out[part] = words
    return out


@dataclass(frozen=True)
class GumbelTransform:
    """Standard Gumbel noise -ln(-ln(u)) of u = (bits + 1/2) / 2^32, in fixed point.

    The smaller one of u and 1 - u is (1 + f) 2^-k, f cut to some bits, and L = k ln(2) - ln(1 + f) its negative logarithm. Where u is below
    1/2 the noise is -ln(L), with the same function: L is (1 + g) 2^e, g cut alike. Elsewhere it is L less ln(-ln(1 - v) / v), v = 1 - u,
    which vanishes as v does: both tails keep all 32 bits. The functions of f or g and of 2 v are linear between the entries of a ROM.

    Attributes:
        index_bits, step_bits: of f, g and 2 v: which segment, and where in it.
        fraction: fraction bits of entries and noise.
    """

    index_bits: int
    step_bits: int
    fraction: int

    @property
    def mantissa_bits(self) -> int:
        """Of f, g and 2 v."""
        return self.index_bits + self.step_bits

    @cached_property
    def log_rom(self) -> Int64:
        """ln(1 + f) at f = i / segments, int64 [segments + 1]."""
        return self._rom(lambda f: (1 + f).ln())

    @cached_property
    def complement_rom(self) -> Int64:
        """ln(-ln(1 - v) / v) at 2 v = i / segments, int64 [segments + 1]."""
        return self._rom(lambda twice: (-(1 - twice / 2).ln() / (twice / 2)).ln())

    def times_ln2(self, count: int) -> int:
        """count ln(2)."""
        with localcontext() as context:
            context.prec = 40
            return int((Decimal(2).ln() * count * 2**self.fraction).to_integral_value())

    def _rom(self, function: Callable[[Decimal], Decimal]) -> Int64:
        # Decimal arithmetic is correctly rounded and the same on every platform; libm is neither.
        with localcontext() as context:
            context.prec = 40
            width = Decimal(1) / 2**self.index_bits
            middle = Decimal("0.5") / 2**self.mantissa_bits
            at = [function(i * width + middle) for i in range(-1, 2**self.index_bits + 2)]
            # A chord is off by an eighth of the second difference in its middle; half of that is shifted to its ends.
            entries = [here - (before - 2 * here + after) / 16 for before, here, after in zip(at, at[1:], at[2:], strict=False)]
            return np.array([max(0, round(entry * 2**self.fraction)) for entry in entries], dtype=np.int64)

    def _interpolated(self, rom: Int64, x: Int64) -> Int64:
        segment, step = x >> self.step_bits, x & ((1 << self.step_bits) - 1)
        base = rom[segment]
        result: Int64 = base + (((rom[segment + 1] - base) * step) >> self.step_bits)
        return result

    def fields(self, bits: Uint32) -> tuple[Bool, Int64, Int64]:
        """Of u (uint32 bits, any shape): whether it is at least 1/2, and k - 2 and f of the smaller one of u and 1 - u."""
        upper = np.asarray(bits, dtype=np.uint32) >= np.uint32(1 << 31)
        smaller = np.where(upper, ~bits, bits).astype(np.int64)
        # The bits of an exact float64 are the normalised significand and its exponent.
        number = (2 * smaller + 1).astype(np.float64).view(np.int64)
        mantissa = (number >> (52 - self.mantissa_bits)) & ((1 << self.mantissa_bits) - 1)
        return upper, 31 + 1023 - (number >> 52), mantissa

    def noise(self, upper: Bool, zeros: Int64, mantissa: Int64) -> Int64:
        """The noise of `fields`, int64 with `fraction` fraction bits."""
        width = self.mantissa_bits
        octaves = np.array([self.times_ln2(zeros + 2) for zeros in range(32)])
        log = octaves[zeros] - self._interpolated(self.log_rom, mantissa)
        # L is at least ln 2, and below 32.
        length = (log.astype(np.float64).view(np.int64) >> 52) - 1023
        normalised = ((log << (self.fraction + 5)) >> (length + self.fraction + 5 - width)) & ((1 << width) - 1)
        exponents = np.array([-self.times_ln2(exponent) for exponent in range(-1, 5)])
        lower = exponents[length - self.fraction + 1] - self._interpolated(self.log_rom, normalised)
        twice = (mantissa | 1 << width) >> (zeros + 1)
        return np.where(upper, log - self._interpolated(self.complement_rom, twice), lower)


#: For the lanes, whose noise is rounded to BF16; and for scalars, where two equal draws in a few would tie.
NARROW = GumbelTransform(index_bits=4, step_bits=6, fraction=12)
WIDE = GumbelTransform(index_bits=6, step_bits=16, fraction=24)


@cache
def _narrow_noise() -> Float32:
    """BF16 noise of all fields that NARROW tells apart, float32 [2 * 32 * 2^mantissa_bits]."""
    index = np.arange(64 << NARROW.mantissa_bits)
    zeros, mantissa = (index >> NARROW.mantissa_bits) & 31, index & ((1 << NARROW.mantissa_bits) - 1)
    return accumulator.to_bf16(NARROW.noise(index >= 32 << NARROW.mantissa_bits, zeros, mantissa), NARROW.fraction)


def gumbel(bits: Uint32) -> Float32:
    """Standard Gumbel noise -ln(-ln(u)) of u = (bits + 1/2) / 2^32 by `NARROW`, rounded to BF16.

    bits: uint32, any shape. Returns bf16-valued float32 of that shape, between -3.125 and 22.875, that never decreases with its bits.
    The error is at most half a unit of the last BF16 place plus 1.1e-3; mean and variance are off by 1.2e-4 and 2.8e-4 (over all words).
    """
    flat = np.ascontiguousarray(bits, dtype=np.uint32).reshape(-1)
    out = np.empty(flat.shape, dtype=np.float32)
    for start in range(0, flat.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        upper, zeros, mantissa = NARROW.fields(flat[part])
        out[part] = _narrow_noise()[(upper * 32 + zeros << NARROW.mantissa_bits) + mantissa]
    return out.reshape(np.shape(bits))


def gumbel_fp32(bits: Uint32) -> Float32:
    """Standard Gumbel noise by `WIDE` rounded to FP32, float32. The error is below 3e-5."""
    return accumulator.to_fp32(WIDE.noise(*WIDE.fields(bits)), WIDE.fraction)


def noisy(x: Float32, seed: int, step: int, positions: Int64, tokens: Int64, temperature: float) -> Float32:
    """x + temperature * Gumbel noise of (position, token), product and sum rounded to BF16; at temperature 0 nothing is drawn, and 0 added.

    x: bf16-valued float32 [r, c]. temperature: a BF16 number. The others and errors as for `uniform_bits`.
    """
    if temperature == 0:
        return bf16.add(x, np.zeros((), np.float32))
    return bf16.add(x, bf16.multiply(gumbel(uniform_bits(seed, step, positions, tokens)), np.array(temperature, np.float32)))


def uniform(bits: Uint32) -> Float32:
    """Uniform numbers in [0, 1): the top 24 of the bits (uint32, any shape) times 2^-24, exact in float32."""
    return (np.asarray(bits, dtype=np.uint32) >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)

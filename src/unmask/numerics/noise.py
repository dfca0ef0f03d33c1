"""Counter-based random bits, and uniform and Gumbel noise made of them.

The bits depend on (seed, step, position, token) and on nothing else, so every reading draws the same noise whatever its tiling.
"""

from decimal import Decimal, localcontext

import numpy as np

from unmask.errors import UnmaskError
from unmask.numerics import accumulator
from unmask.numerics._arrays import Float32, Int64, Uint32

ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
PARITY = 0x1BD11BDA
ROUNDS = 20
NO_TOKEN = 2**32 - 1

#: The logarithm unit. A 33-bit normalised significand m in [1/2, 1) has d = 1 - m; -ln(m) = d * h(d), h from a ROM with linear
#: interpolation.
LOG_FRACTION = 33
LOG_INDEX_BITS = 5
LOG_STEP_BITS = 10
#: Fraction bits of h, whose values lie in [1, 1.39], and of a logarithm: the product d * h is exact.
LOG_ROM_FRACTION = 14
LOG_RESULT_FRACTION = LOG_FRACTION + LOG_ROM_FRACTION

#: Elements worked on at once: a few arrays of this size stay in a core's cache.
_CHUNK = 1 << 15


def _log_constants() -> tuple[int, Int64]:
    # Decimal arithmetic is correctly rounded and the same on every platform; libm is neither.
    with localcontext() as context:
        context.prec = 40
        segments = 2**LOG_INDEX_BITS
        distances = [Decimal(i) / (2 * segments) for i in range(1, segments + 1)]
        rom = [2**LOG_ROM_FRACTION, *(round(-(1 - d).ln() / d * 2**LOG_ROM_FRACTION) for d in distances)]
        # m = 1/2 itself falls on the last entry, with nothing left to interpolate.
        return round(Decimal(2).ln() * 2**LOG_RESULT_FRACTION), np.array([*rom, rom[-1]], dtype=np.int64)


#: ln(2), and the ROM: h(i / 64) for i = 0..32 (the last entry twice). A segment's slope is the difference of neighbours.
LN2, LOG_ROM = _log_constants()


def threefry2x32(key: tuple[int, int], counter: tuple[Uint32, Uint32]) -> tuple[Uint32, Uint32]:
    """Threefry-2x32 with 20 rounds: adds, rotations and exclusive ors of 32-bit words.

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


def position_bits(seed: int, step: int, positions: Int64) -> Uint32:
    """32 random bits for each position, uint32 [r]: the words of a token index that no vocabulary reaches.

    Sharing a token's words would tie which positions commit to what they commit. Arguments and errors as for `uniform_bits`.
    """
    return uniform_bits(seed, step, positions, np.array([NO_TOKEN]))[:, 0]


def uniform_bits(seed: int, step: int, positions: Int64, tokens: Int64) -> Uint32:
    """32 random bits for each (position, token).

    seed, step: integers in 0..2^32 - 1, the key. positions [r], tokens [c]: integers below 2^32. Returns uint32 [r, c]. The counter is
    (position, token >> 1) and token & 1 picks the output word, so a lane pair shares one generator. Raises UnmaskError for a key out of
    range.
    """
    for name, value in (("seed", seed), ("step", step)):
        if not 0 <= value < 2**32:
            raise UnmaskError(f"{name} {value} is out of range: expected 0..{2**32 - 1}")
    positions, tokens = np.asarray(positions), np.asarray(tokens)
    pairs, where = np.unique(tokens.astype(np.uint32) >> np.uint32(1), return_inverse=True)
    odd = (tokens & 1).astype(np.bool_)
    rows = positions.astype(np.uint32)[:, None]
    out = np.empty((positions.size, tokens.size), dtype=np.uint32)
    some = max(1, _CHUNK // max(1, pairs.size))
    for start in range(0, positions.size, some):
        part = slice(start, start + some)
        even_words, odd_words = threefry2x32((seed, step), (rows[part], pairs))
        out[part] = np.where(odd, odd_words[:, where], even_words[:, where])
    return out


def _negative_log(value: Int64, fraction: int) -> Int64:
    """-ln(value * 2^-fraction) with LOG_RESULT_FRACTION fraction bits; 0 < value < 2^53.

    A leading-zero detector normalises value to m * 2^length with m in [1/2, 1), cut to LOG_FRACTION bits; then
    (fraction - length) ln(2) + d * h(d). Multiplying d = 1 - m by a factor near 1 keeps the relative accuracy of small results, where a
    table of the logarithm itself would lose it.
    """
    # The bits of an exact float64 are the normalised significand and its exponent.
    bits = value.astype(np.float64).view(np.int64)
    length = (bits >> 52) - 1022
    normalised = ((bits & ((1 << 52) - 1)) | (1 << 52)) >> (53 - LOG_FRACTION)
    distance = (1 << LOG_FRACTION) - normalised
    low_bits = LOG_FRACTION - 1 - LOG_INDEX_BITS
    segment = distance >> low_bits
    step = (distance & ((1 << low_bits) - 1)) >> (low_bits - LOG_STEP_BITS)
    base = LOG_ROM[segment]
    h = base + (((LOG_ROM[segment + 1] - base) * step) >> LOG_STEP_BITS)
    result: Int64 = (fraction - length) * LN2 + distance * h
    return result


def gumbel(bits: Uint32) -> Float32:
    """Standard Gumbel noise -ln(-ln(u)) of u = (bits + 1/2) / 2^32, rounded to BF16.

    bits: uint32, any shape. Returns bf16-valued float32 of that shape, between -3.12 and 22.9. The logarithm unit (`_negative_log`: 33-bit
    significand, ROM of 33 entries) runs twice. The error is at most half a unit of the last BF16 place plus
    1.5e-4 (measured over both ends, all powers of two and 2^19 random bits).
    """
    flat = np.ascontiguousarray(bits, dtype=np.uint32).reshape(-1)
    out = np.empty(flat.shape, dtype=np.float32)
    for start in range(0, flat.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        u = (flat[part].astype(np.int64) << 1) | 1
        out[part] = accumulator.to_bf16(_negative_log(_negative_log(u, LOG_FRACTION), LOG_RESULT_FRACTION), LOG_RESULT_FRACTION)
    return out.reshape(np.shape(bits))


def gumbel_fp32(bits: Uint32) -> Float32:
    """`gumbel` rounded to FP32 instead, float32: for scalars, where two equal draws in a few would tie. The error is below 1.5e-4."""
    u = (np.asarray(bits, dtype=np.uint32).astype(np.int64) << 1) | 1
    return accumulator.to_fp32(_negative_log(_negative_log(u, LOG_FRACTION), LOG_RESULT_FRACTION), LOG_RESULT_FRACTION)


def uniform(bits: Uint32) -> Float32:
    """Uniform numbers in [0, 1): the top 24 of the bits (uint32, any shape) times 2^-24, exact in float32."""
    return (np.asarray(bits, dtype=np.uint32) >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)

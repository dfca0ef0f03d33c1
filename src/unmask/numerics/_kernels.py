"""The loops over MX elements, compiled: rounding to an element format, its inverse, and packing.

They are integer algorithms on bit patterns, one for every format; `unmask.numerics.mx` documents what they compute and calls them. This
module imports numba, which takes a moment: import it where it is called.
"""

import numpy as np
from numba import njit

from unmask.numerics._arrays import Float32, Uint8, Uint16, Uint32
from unmask.numerics.mx import BLOCK, NAN_SCALE

_MAGNITUDE = np.uint32(0x7FFFFFFF)
_INFINITY = np.uint32(0x7F800000)
_MANTISSA = np.uint32(0x7FFFFF)
_HIDDEN = np.int32(1 << 23)
#: A significand of 24 bits shifted this far right, or farther, rounds to zero.
_VANISHED = np.int32(26)


@njit(cache=True)
def quantize(
    patterns: Uint16 | Uint32,
    shift: int,
    emax: int,
    emin: int,
    mantissa_bits: int,
    max_code: int,
    bits: int,
    twos_complement: bool,
    codes: Uint8,
    scales: Uint8,
) -> None:
    """Blocks of 32 FP32 patterns to codes and scales.

    Args:
        patterns: [rows, k], the upper 32 - `shift` bits of each FP32 pattern: uint32 and 0, or uint16 (BF16) and 16.
        emax, emin: exponents of the largest and of the smallest normal element; an integer is a float of one binade below 2^(emin + 1).
        mantissa_bits, max_code, bits: of the element format.
        twos_complement: how a negative element is coded; else by a sign bit.
        codes, scales: the results, uint8 [rows, kp] and [rows, kp / 32].
    """
    rows, columns = patterns.shape
    drop, sign_bit, mask = np.int32(23 - mantissa_bits), np.int32(1 << (bits - 1)), np.int32((1 << bits) - 1)
    block = np.zeros(BLOCK, np.uint32)
    for row in range(rows):
        for index in range(scales.shape[1]):
            start = index * BLOCK
            count = min(BLOCK, columns - start)
            if count < BLOCK:
                block[:] = 0
            largest = np.uint32(0)
            for i in range(count):
                pattern = np.uint32(patterns[row, start + i]) << np.uint32(shift)
                block[i] = pattern
                largest = max(largest, np.uint32(pattern & _MAGNITUDE))
            if largest >= _INFINITY:
                scales[row, index] = NAN_SCALE
                codes[row, start : start + BLOCK] = 0
                continue
            # The exponent field of a subnormal is 0 and its scale the smallest, as floor(log2) of it would give, clamped.
            top = np.int32(largest >> np.uint32(23))
            scale = np.int32(top - emax if top > emax else 0)
            scales[row, index] = scale
            for i in range(BLOCK):
                pattern = block[i]
                field = np.int32((pattern & _MAGNITUDE) >> np.uint32(23))
                integer = np.int32(pattern & _MANTISSA) + (_HIDDEN if field > 0 else np.int32(0))
                # Conversion to float is a leading-zero detector and a shifter, exact for 24 bits; only FP32 subnormals need it.
                normal = np.int32(np.float32(integer).view(np.int32))
                significand = np.int32((normal & np.int32(_MANTISSA)) | _HIDDEN) if integer > 0 else np.int32(0)
                exponent = np.int32((field if field > 0 else np.int32(1)) + (normal >> np.int32(23)) - np.int32(150) - scale)
                distance = np.int32(exponent - emin)
                right = np.int32(min(drop + max(-distance, np.int32(0)), _VANISHED))
                half = np.int32((np.int32(1) << (right - np.int32(1))) - np.int32(1))
                rounded = np.int32((significand + half + ((significand >> right) & np.int32(1))) >> right)
                code = min(np.int32(rounded + (max(distance, np.int32(0)) << np.int32(mantissa_bits))), np.int32(max_code))
                negated = -code & mask if twos_complement else code | sign_bit
                codes[row, start + i] = negated if pattern > _MAGNITUDE else code


@njit(cache=True)
def dequantize(codes: Uint8, scales: Uint8, table: Float32, factors: Float32, values: Float32) -> None:
    """Codes uint8 [rows, kp] and scales uint8 [rows, kp / 32] to values float32 [rows, k].

    Args:
        table: the value of each code. factors: of each of the 256 scales.
    """
    rows, columns = values.shape
    for row in range(rows):
        for index in range(scales.shape[1]):
            factor = factors[scales[row, index]]
            for i in range(index * BLOCK, min((index + 1) * BLOCK, columns)):
                values[row, i] = table[codes[row, i]] * factor


@njit(cache=True)
def pack(codes: Uint8, bits: int, packed: Uint8) -> None:
    """Codes uint8 [8 n] to a bit stream uint8 [n * bits], code i from bit i * bits on, low bits first."""
    mask = np.uint64((1 << bits) - 1)
    for group in range(len(codes) // 8):
        word = np.uint64(0)
        for i in range(8):
            word |= (np.uint64(codes[group * 8 + i]) & mask) << np.uint64(i * bits)
        for i in range(bits):
            packed[group * bits + i] = np.uint8((word >> np.uint64(8 * i)) & np.uint64(0xFF))


@njit(cache=True)
def unpack(packed: Uint8, bits: int, codes: Uint8) -> None:
    """The inverse of `pack`."""
    mask = np.uint64((1 << bits) - 1)
    for group in range(len(codes) // 8):
        word = np.uint64(0)
        for i in range(bits):
            word |= np.uint64(packed[group * bits + i]) << np.uint64(8 * i)
        for i in range(8):
            codes[group * 8 + i] = np.uint8((word >> np.uint64(i * bits)) & mask)

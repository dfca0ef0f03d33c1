"""The matrix engine's product: MX times MX into the 64-bit matrix accumulator.

One contribution is the exact integer dot product of a block pair, shifted to the accumulator's grid (floor). The sum of contributions
wraps, so it does not depend on their order. Here float64 matrix products compute it, wherever 53 bits hold every partial sum exactly: many
blocks at once where no contribution has bits below the grid, else block by block with a floor.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from unmask.numerics import formats
from unmask.numerics._arrays import Bool, Float64, Int64
from unmask.numerics.accumulator import MATRIX_FRACTION
from unmask.numerics.mx import BLOCK, NAN_SCALE, SCALE_BIAS, MxTensor

_FLOAT64_BITS = 53
_BLOCK_BITS = 5
_LIMB_BITS = 16


@dataclass
class _Operand:
    """One side of the product.

    exponents: of the scales, int64 [rows, blocks], 0 where the block is NaN. low, high: the smallest and largest
    exponent among the rows whose block is not zero, [blocks]; low > high where all are.
    """

    tensor: MxTensor
    exponents: Int64
    low: Int64
    high: Int64
    invalid: Bool

    @classmethod
    def of(cls, t: MxTensor) -> "_Operand":
        nan = t.scales == NAN_SCALE
        exponents = np.where(nan, 0, t.scales.astype(np.int64) - SCALE_BIAS)
        # Zero blocks carry the smallest scale; looking into the codes of those alone is enough, and cheap.
        suspects = np.nonzero(t.scales == 0)
        zero = nan.copy()
        zero[suspects] = ~t.codes.reshape(*t.scales.shape, BLOCK)[suspects].any(axis=-1)
        invalid = nan.any(axis=1) | formats.is_special(t.codes, t.format.element).any(axis=1)
        low = np.where(zero, 1 << 20, exponents).min(axis=0, initial=1 << 20)
        high = np.where(zero, -(1 << 20), exponents).max(axis=0, initial=-(1 << 20))
        return cls(t, exponents, low, high, invalid)

    @property
    def bits(self) -> int:
        return self.tensor.format.element.significand_bits

    @property
    def fraction(self) -> int:
        return self.tensor.format.element.fraction

    def significands(self, start: int, stop: int) -> Int64:
        """Integer significands of blocks start to stop, [rows, blocks, 32], zero in NaN blocks."""
        codes = self.tensor.codes[:, start * BLOCK : stop * BLOCK].reshape(-1, stop - start, BLOCK)
        ints = formats.significand(codes, self.tensor.format.element)
        nan = self.tensor.scales[:, start:stop] == NAN_SCALE
        if nan.any():
            ints[nan] = 0
        return ints

    def scaled(self, start: int, stop: int, shift: int) -> Float64:
        """Significands times 2^(scale exponent + shift), exact, [rows, (stop - start) * 32]."""
        ints = self.significands(start, stop)
        factor = np.ldexp(1.0, self.exponents[:, start:stop].astype(np.int32) + shift)
        return (ints * factor[..., None]).reshape(len(ints), -1).astype(np.float64, copy=False)


def mx_matmul(a: MxTensor, b: MxTensor) -> tuple[Int64, Bool]:
    """a times b transposed, in the matrix accumulator.

    a [m, k] and b [n, k], in any two MX formats. Returns int64 [m, n], the sum over the blocks of k of
    floor(dot of significands * 2^(scale exponents - fractions + MATRIX_FRACTION)) modulo 2^64, and bool [m, n], true where the sum is not
    to be used: a block has a NaN scale or a NaN or infinite element (counted as 0), or a contribution or the exact sum leaves the 64-bit
    range. Raises ValueError if the two lengths k differ.
    """
    if a.length != b.length:
        raise ValueError(f"a has {a.length} columns and b has {b.length}")
    left, right = _Operand.of(a), _Operand.of(b)
    dot_bits = left.bits + right.bits + _BLOCK_BITS
    # Of every contribution to a block of k, in the accumulator's units: exponent of the last bit, and exponent that bounds the magnitude.
    shift = MATRIX_FRACTION - left.fraction - right.fraction
    last_bit = left.low + right.low + shift
    bound = left.high + right.high + shift + dot_bits
    used = np.flatnonzero((left.low <= left.high) & (right.low <= right.high))
    acc = np.zeros((len(a.codes), len(b.codes)), dtype=np.int64)
    invalid = left.invalid[:, None] | right.invalid[None, :]
    total = float(np.ldexp(1.0, bound[used].astype(np.int32)).sum())
    if dot_bits <= _FLOAT64_BITS and total < 2.0**62:
        for start, stop, on_grid in _chunks(used, last_bit, bound):
            product = left.scaled(start, stop, shift) @ right.scaled(start, stop, 0).T
            acc += (product if on_grid else np.floor(product, out=product)).astype(np.int64)
        return acc, invalid
    estimate = np.zeros(acc.shape)
    for block in used:
        magnitude, contribution = _wide_contribution(left, right, int(block), shift)
        invalid |= _out_of_range(magnitude, contribution)
        estimate += magnitude
        acc += contribution
    return acc, invalid | _out_of_range(estimate, acc)


def _chunks(used: Int64, last_bit: Int64, bound: Int64) -> Iterator[tuple[int, int, bool]]:
    """Runs of adjacent blocks whose sum one float64 matrix product computes exactly, and whether all of it is on the accumulator's grid.

    A single block always qualifies: its two scales are common to each of its dot products.
    """
    start = 0
    while start < len(used):
        stop, lowest, magnitude = start, 1 << 20, 0.0
        while stop < len(used) and used[stop] - used[start] == stop - start and last_bit[used[stop]] >= 0:
            lowest = min(lowest, int(last_bit[used[stop]]))
            magnitude += 2.0 ** float(bound[used[stop]])
            if magnitude > 2.0 ** (lowest + _FLOAT64_BITS):
                break
            stop += 1
        on_grid = last_bit[used[start]] >= 0
        stop = max(stop, start + 1)
        yield int(used[start]), int(used[stop - 1]) + 1, bool(on_grid)
        start = stop


def _wide_contribution(left: _Operand, right: _Operand, block: int, shift: int) -> tuple[Float64, Int64]:
    """One block's contribution where it may need more than 53 bits or leave the accumulator: estimate in float64, and exact modulo 2^64.

    Significands of up to 33 bits are split into two limbs, so that float64 products of limbs are exact; their sum is top * 2^16 + bottom
    with 0 <= bottom < 2^16.
    """
    a, b = left.significands(block, block + 1)[:, 0], right.significands(block, block + 1)[:, 0]
    a_high, a_low = (a >> _LIMB_BITS).astype(np.float64), (a & (2**_LIMB_BITS - 1)).astype(np.float64)
    b_high, b_low = (b >> _LIMB_BITS).astype(np.float64), (b & (2**_LIMB_BITS - 1)).astype(np.float64)
    high = (a_high @ b_high.T).astype(np.int64)
    middle = (a_high @ b_low.T + a_low @ b_high.T).astype(np.int64)
    low = (a_low @ b_low.T).astype(np.int64)
    top = (high << _LIMB_BITS) + middle + (low >> _LIMB_BITS)
    bottom = low & (2**_LIMB_BITS - 1)
    exponent = left.exponents[:, block, None] + right.exponents[None, :, block] + shift
    magnitude = np.floor(np.ldexp(top * 2.0**_LIMB_BITS + bottom, exponent.astype(np.int32)))
    # Shifted apart they keep the floor: at most one of the two loses bits, and bottom is less than one unit of top.
    return magnitude, _shift(top, exponent + _LIMB_BITS) + _shift(bottom, exponent)


def _shift(value: Int64, exponent: Int64) -> Int64:
    """floor(value * 2^exponent) modulo 2^64."""
    left = np.where(exponent < 64, value << np.clip(exponent, 0, 63), 0)
    return np.where(exponent >= 0, left, value >> np.clip(-exponent, 0, 63))


def _out_of_range(estimate: Float64, wrapped: Int64) -> Bool:
    """Whether a number known modulo 2^64 and, to within 2^62, as a float64 is not the int64 itself. A larger number is out of range
    anyway."""
    return np.abs(estimate - wrapped.astype(np.float64)) >= 2.0**63

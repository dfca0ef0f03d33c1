"""Slow, obviously right versions of what the numerics package computes fast."""

import math
from fractions import Fraction

from unmask.numerics import formats
from unmask.numerics.mx import BLOCK, NAN_SCALE, SCALE_BIAS, MxTensor


def nearest_float(value: Fraction, precision: int) -> Fraction:
    """value rounded to `precision` significant bits, to nearest even (Python rounds a Fraction to even)."""
    if value == 0:
        return value
    exponent = 0
    while abs(value) >= Fraction(2) ** (exponent + precision):
        exponent += 1
    while abs(value) < Fraction(2) ** (exponent + precision - 1):
        exponent -= 1
    step = Fraction(2) ** exponent
    return round(value / step) * step


def wrap(value: int) -> int:
    return (value + 2**63) % 2**64 - 2**63


def matmul_element(a: MxTensor, b: MxTensor, i: int, j: int, fraction: int) -> tuple[int, bool]:
    """One element of the product of two MX tensors in exact rationals: the wrapped accumulator and whether it is invalid."""
    total, invalid = 0, False
    for block in range(a.scales.shape[1]):
        scales = int(a.scales[i, block]), int(b.scales[j, block])
        if NAN_SCALE in scales:
            invalid = True
            continue
        dot = Fraction(0)
        span = slice(block * BLOCK, (block + 1) * BLOCK)
        x, y = formats.decode(a.codes[i, span], a.format.element).tolist(), formats.decode(b.codes[j, span], b.format.element).tolist()
        for p, q in zip(x, y, strict=True):
            if math.isfinite(p) and math.isfinite(q):
                dot += Fraction(p) * Fraction(q)
            else:
                invalid = True
        contribution = math.floor(dot * Fraction(2) ** (sum(scales) - 2 * SCALE_BIAS + fraction))
        invalid |= wrap(contribution) != contribution
        total += contribution
    return wrap(total), invalid or wrap(total) != total

"""Products in carry-save form: two words instead of their sum, whose carries are a later cycle's work."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value

from unmask.rtl.bits import wire


def carry_save(m: Module, rows: Sequence[Value], width: int) -> tuple[Value, Value]:
    """Two words of `width` bits with the sum of some rows (unsigned, two or more), modulo 2^width; full adders turn three into two."""
    words = [wire(m, Cat(row, Const(0, max(0, width - len(row))))[:width]) for row in rows]
    while len(words) > 2:
        whole = len(words) // 3 * 3
        layer = []
        for x, y, z in zip(words[:whole:3], words[1:whole:3], words[2:whole:3], strict=True):
            carries = wire(m, (x & y) | (z & (x | y)))
            layer += [wire(m, x ^ y ^ z), wire(m, Cat(Const(0, 1), carries)[:width])]
        words = layer + words[whole:]
    first, second = words
    return first, second


def product(m: Module, factor: Value, other: Value, width: int | None = None) -> tuple[Value, Value]:
    """Two words with the sum factor * other, modulo 2^width; by default as wide as both together. Signed as the factors are.

    There is a row per bit of `other`. A bit x of negative weight is 1 - x of positive weight less 1: the ones are one constant row.
    """
    width = len(factor) + len(other) if width is None else width
    bits, rows, constant = factor.as_unsigned(), [], 0
    for place in range(len(other)):
        negative = other.shape().signed and place == len(other) - 1
        flips = [negative] * (len(factor) - 1) + [negative != factor.shape().signed]
        mask = sum(1 << index for index, flip in enumerate(flips) if flip)
        constant -= mask << place
        rows.append(Cat(Const(0, place), (bits & other[place].replicate(len(factor))) ^ Const(mask, len(factor))))
    if constant % (1 << width):
        rows.append(Const(constant % (1 << width), width))
    if len(rows) == 1:
        rows.append(Const(0, width))
    return carry_save(m, rows, width)


def recoded_product(m: Module, factors: Sequence[Value], other: Value, width: int) -> tuple[Value, Value]:
    """Two words with the sum of factors times `other`, modulo 2^width, for an `other` (signed, of an even length) that is there early.

    Booth's digits of two bits, from -2 to 2, take half as many rows as bits do: of a negative one the complement, and the ones that
    complements lack are a row of their own for each factor.
    """
    digits, below = [], Value.cast(Const(0, 1))
    for place in range(0, len(other), 2):
        low, high = other[place], other[place + 1]
        one = wire(m, low ^ below)
        two = wire(m, (high & ~low & ~below) | (~high & low & below))
        digits.append((place, one, two, high))
        below = high
    lacking = Cat(*(part for _, _, _, high in digits for part in (high, Const(0, 1))))
    rows: list[Value] = []
    for factor in factors:
        once = Signal(width)
        m.d.comb += once.eq(factor)
        for place, one, two, high in digits:
            length = width - place
            multiple = (once[:length] & one.replicate(length)) | (Cat(Const(0, 1), once)[:length] & two.replicate(length))
            rows.append(Cat(Const(0, place), multiple ^ high.replicate(length)))
        rows.append(lacking)
    return carry_save(m, rows, width)


def reaches(m: Module, first: Value, second: Value, bound: int) -> Value:
    """Whether the sum of two words of equal length, modulo 2^length and unsigned, is `bound` or more.

    Only as many bits as `bound` - 1 has are added up. The rest of the sum is zero if each of its bits is the complement of its carry: where
    all bits below are zero, there is one if a word is 1 in the bit below.
    """
    bits = (bound - 1).bit_length()
    low = wire(m, first[:bits] + second[:bits])
    a, b = (wire(m, word[bits:]) for word in (first, second))
    differ = wire(m, a ^ b)
    zero = Mux(low[bits], differ.all(), ~(differ ^ Cat(Const(0, 1), a | b)[: len(a)]).any())
    return ~zero | (low[:bits] >= bound)

"""BF16 arithmetic on bit patterns: `unmask.numerics.bf16` in gates."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Value

from unmask.numerics.bf16 import INFINITY_BITS, NAN_BITS, SIGN_BIT
from unmask.rtl import floating
from unmask.rtl.pipeline import Pipeline

FRACTION = 7
PLACES = floating.ROUNDED_PLACES
"""Of `add`, `subtract`, `multiply`."""
MULTIPLY_ADD_PLACES = 2 * PLACES + 1


def add(p: Pipeline, a: Value, b: Value) -> Value:
    """a + b, correctly rounded; `PLACES` places."""
    return floating.rounded(p, floating.add_terms(p.m, a, b), FRACTION, right=False)[0]


def subtract(p: Pipeline, a: Value, b: Value) -> Value:
    """a - b, correctly rounded; `PLACES` places."""
    return add(p, a, floating.negated(b))


def multiply(p: Pipeline, a: Value, b: Value) -> Value:
    """a * b, correctly rounded; `PLACES` places."""
    return floating.rounded(p, floating.multiply_terms(p.m, a, b), FRACTION)[0]


def multiply_add(p: Pipeline, a: Value, factor: Value, b: Value) -> Value:
    """a + factor * b, product and sum rounded to BF16 each: how noise is added to a score; `MULTIPLY_ADD_PLACES` places."""
    product, addend = floating.rounded(p, floating.multiply_terms(p.m, factor, b), FRACTION, a)
    product, addend = p.cut(product, addend)
    return add(p, addend, product)


def ordered(m: Module, bits: Value) -> Value:
    """Unsigned 16 bits that compare as the values do: `unmask.numerics.bf16.ordered`."""
    number = floating.unpack(m, bits)
    flipped = bits ^ Cat(number.sign.replicate(15), Const(1, 1))
    return Mux(number.nan, 0, Mux(number.zero, SIGN_BIT, flipped))[:16]


def round_scaled(m: Module, mantissa: Value, exponent: Value) -> Value:
    """mantissa * 2^exponent, unsigned and signed, rounded to BF16; no places. `unmask.numerics.bf16.round_scaled`."""
    width = max(len(mantissa), FRACTION + 3)
    padded = Cat(Const(0, width - len(mantissa)), mantissa)
    scale = exponent + (floating.BIAS + len(mantissa) - 2)
    value = floating.wired(m, floating.Unrounded(Const(0, 1), padded, scale, Const(0, 1), Const(0, 1)))
    return floating.packed(m, value, floating.normalising(m, value), FRACTION)


def round_fp32(m: Module, bits: Value) -> Value:
    """An FP32 pattern rounded to BF16; no places."""
    top = (bits + 0x7FFF + bits[16])[16:32]
    return Mux(floating.is_nan(m, bits), NAN_BITS, top)[:16]


def infinity(sign: int) -> int:
    """The pattern of an infinity."""
    return INFINITY_BITS | sign * SIGN_BIT

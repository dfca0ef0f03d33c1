"""BF16 arithmetic on bit patterns: `unmask.numerics.bf16` in gates."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Value

from unmask.numerics.bf16 import NAN_BITS, SIGN_BIT
from unmask.rtl import floating
from unmask.rtl.pipeline import Pipeline

FRACTION = 7
PLACES = floating.ROUNDED_PLACES
"""Of `add` and `multiply`."""


def add(p: Pipeline, a: Value, b: Value) -> Value:
    """a + b, correctly rounded; `PLACES` places."""
    return floating.rounded(p, floating.add_terms(p.m, a, b), FRACTION, right=False)[0]


def multiply(p: Pipeline, a: Value, b: Value) -> Value:
    """a * b, correctly rounded; `PLACES` places."""
    return floating.rounded(p, floating.multiply_terms(p.m, a, b), FRACTION)[0]


def ordered(m: Module, bits: Value) -> Value:
    """Unsigned 16 bits that compare as the values do: `unmask.numerics.bf16.ordered`."""
    number = floating.unpack(m, bits)
    flipped = bits ^ Cat(number.sign.replicate(15), Const(1, 1))
    return Mux(number.nan, 0, Mux(number.zero, SIGN_BIT, flipped))[:16]


def round_fp32(m: Module, bits: Value) -> Value:
    """An FP32 pattern rounded to BF16; no places."""
    top = (bits + 0x7FFF + bits[16])[16:32]
    return Mux(floating.is_nan(m, bits), NAN_BITS, top)[:16]

"""The element formats of the OCP Microscaling specification (MX v1.0): codes, values and integer significands.

Every finite element is an integer times 2^-fraction, which is what the matrix engine multiplies. A code sits in the low bits of a uint8.

A new format is one more `ElementFormat`; nothing else names them.
"""

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal

import numpy as np

from unmask.numerics import bf16
from unmask.numerics._arrays import Bool, Float32, Float64, Int64, Uint8, Uint16, Uint32


@dataclass(frozen=True)
class ElementFormat:
    """A number format of at most 8 bits.

    An 'int' is a two's-complement integer of `bits` bits with `mantissa_bits` fraction bits (`exponent_bits` is 0). A 'float' has sign,
    exponent and mantissa, subnormals, and one of three uses of its largest exponent: `specials` 'none' (all codes are finite), 'nan' (only
    the last code is special), 'ieee' (infinity, then NaN).
    """

    name: str
    bits: int
    exponent_bits: int
    mantissa_bits: int
    kind: Literal["int", "float"]
    specials: Literal["none", "nan", "ieee"] = "none"

    @property
    def bias(self) -> int:
        """Exponent bias of a float; 0 for an int."""
        return (1 << (self.exponent_bits - 1)) - 1 if self.kind == "float" else 0

    @property
    def emin(self) -> int:
        """Exponent of the smallest normal number of a float; an int is a float whose values all lie below the second binade, 0."""
        return 1 - self.bias if self.kind == "float" else 0

    @property
    def fraction(self) -> int:
        """Every finite element is an integer times 2^-fraction."""
        return self.mantissa_bits if self.kind == "int" else self.bias - 1 + self.mantissa_bits

    @property
    def max_code(self) -> int:
        """The code of the largest finite value."""
        return (1 << (self.bits - 1)) - 1 - {"none": 0, "nan": 1, "ieee": 1 << self.mantissa_bits}[self.specials]

    @property
    def nan_code(self) -> int | None:
        """The code that `encode` gives a NaN, None where the format has none."""
        return (
            None if self.specials == "none" else (1 << (self.bits - 1)) - (1 if self.specials == "nan" else 1 << (self.mantissa_bits - 1))
        )

    @cached_property
    def max(self) -> float:
        """The largest finite value; for an int the symmetric one, although its code space also holds -max - 2^-fraction."""
        return float(code_values(self)[self.max_code])

    @cached_property
    def emax(self) -> int:
        """floor(log2(max)), what the OCP rule subtracts from the exponent of a block's largest magnitude."""
        return int(np.frexp(self.max)[1]) - 1

    @property
    def significand_bits(self) -> int:
        """Every significand lies in [-2^significand_bits, 2^significand_bits]."""
        return self.emax + 1 + self.fraction


INT8 = ElementFormat("int8", 8, 0, 6, "int")
INT4 = ElementFormat("int4", 4, 0, 2, "int")
E4M3 = ElementFormat("e4m3", 8, 4, 3, "float", "nan")
E5M2 = ElementFormat("e5m2", 8, 5, 2, "float", "ieee")
E3M2 = ElementFormat("e3m2", 6, 3, 2, "float")
E2M3 = ElementFormat("e2m3", 6, 2, 3, "float")
E2M1 = ElementFormat("e2m1", 4, 2, 1, "float")


@cache
def code_values(fmt: ElementFormat) -> Float32:
    """The value of every code, float32 [2^bits]; shared, so not to be written."""
    codes = np.arange((1 << fmt.bits), dtype=np.int64)
    if fmt.kind == "int":
        signed = codes - ((codes >> (fmt.bits - 1)) << fmt.bits)
        return (signed * 2.0**-fmt.fraction).astype(np.float32)
    magnitude = codes & ((1 << (fmt.bits - 1)) - 1)
    exponent = magnitude >> fmt.mantissa_bits
    mantissa = magnitude - ((exponent - (exponent > 0)) << fmt.mantissa_bits)
    values: Float32 = np.ldexp(mantissa.astype(np.float32), np.maximum(exponent, 1) - fmt.bias - fmt.mantissa_bits)
    values[magnitude > fmt.max_code] = np.nan
    if fmt.specials == "ieee":
        values[magnitude == fmt.max_code + 1] = np.inf
    values[codes >> (fmt.bits - 1) == 1] *= -1
    return values


@cache
def _significands(fmt: ElementFormat) -> Int64:
    values = code_values(fmt).astype(np.float64)
    return (np.where(np.isfinite(values), values, 0.0) * 2.0**fmt.fraction).astype(np.int64)


@cache
def _encodings(fmt: ElementFormat) -> Uint8:
    """The code of every BF16 pattern, for a float format.

    A pattern whose last bit is set stands for every value strictly between its neighbours: no boundary between two codes has that many
    bits.
    """
    values = bf16.from_bits(np.arange(1 << 16, dtype=np.uint16))
    nan = np.isnan(values)
    magnitude = np.minimum(np.where(nan, np.float32(0), np.abs(values)), np.float32(fmt.max))
    exponent = np.maximum(np.frexp(magnitude)[1] - 1, 1 - fmt.bias)
    step = np.ldexp(1.0, exponent - fmt.mantissa_bits)
    nearest = np.rint(magnitude / step) * step
    codes = np.searchsorted(code_values(fmt)[: fmt.max_code + 1], nearest)
    codes = np.where(nan, fmt.nan_code or 0, np.minimum(codes, fmt.max_code))
    sign = np.signbit(values) & ~nan
    codes += sign.astype(np.int64) << (fmt.bits - 1)
    return codes.astype(np.uint8)


def decode(codes: Uint8, fmt: ElementFormat) -> Float32:
    """The values (float32) of codes (uint8, any shape, each below 2^bits: IndexError otherwise)."""
    return np.take(code_values(fmt), codes)


def significand(codes: Uint8, fmt: ElementFormat) -> Int64:
    """value * 2^fraction as int64 (E5M2 needs 33 bits) of codes (uint8, any shape); 0 for NaN and infinity, see `is_special`."""
    return np.take(_significands(fmt), codes)


def is_special(codes: Uint8, fmt: ElementFormat) -> Bool:
    """True where a code (uint8, any shape) is a NaN or an infinity."""
    if fmt.specials == "none":
        return np.zeros(np.shape(codes), dtype=np.bool_)
    return (codes & np.uint8((1 << (fmt.bits - 1)) - 1)) > fmt.max_code


def _jam(x: Float32 | Float64) -> Uint16:
    """BF16 patterns of x rounded to odd: truncated, and the last bit set if that lost anything."""
    narrow = x.astype(np.float32)
    bits: Uint32 = narrow.view(np.uint32)
    if x.dtype == np.float64:
        away = np.abs(narrow) > np.abs(x)
        bits = (bits - away.astype(np.uint32)) | (narrow != x).astype(np.uint32)
    jammed: Uint32 = (bits >> np.uint32(16)) | ((bits & np.uint32(0xFFFF)) != 0)
    return jammed.astype(np.uint16)


def encode(x: Float32 | Float64, fmt: ElementFormat) -> Uint8:
    """The codes (uint8) nearest to x, ties to even.

    x: float32 or float64, any shape. Magnitudes beyond `fmt.max`, infinity included, saturate to it; an int saturates symmetrically. NaN
    becomes `fmt.nan_code`, or code 0 in a format without NaN (an MX block then says NaN in its scale). -0 keeps its sign in a float.
    """
    if fmt.kind == "float":
        with np.errstate(over="ignore"):
            return np.take(_encodings(fmt), _jam(x))
    clipped: Float32 | Float64 = np.where(np.isnan(x), 0, np.clip(x, -fmt.max, fmt.max))
    return np.rint(clipped * (1 << fmt.fraction)).astype(np.int8).view(np.uint8) & np.uint8((1 << fmt.bits) - 1)

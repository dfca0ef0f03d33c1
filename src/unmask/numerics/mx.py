"""MX blocks: 32 elements along the last axis share one power-of-two scale (OCP Microscaling Formats v1.0).

A scale is an E8M0 code: 2^(code - 127), 0xFF for NaN.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from unmask.errors import UnmaskError
from unmask.numerics import formats
from unmask.numerics._arrays import Float32, Int64, Uint8, Uint16, Uint32
from unmask.numerics.formats import ElementFormat

BLOCK = 32
SCALE_BIAS = 127
NAN_SCALE = 0xFF

#: A rescaled element this many binades below its tile's scale is zero in every element format, so larger differences need not be told
#: apart.
_MAX_RESCALE = 64


@dataclass(frozen=True)
class MxFormat:
    """A named MX format: an element format with blocks of `BLOCK` and E8M0 scales."""

    name: str
    element: ElementFormat

    @property
    def bits_per_element(self) -> float:
        """Storage per element, its share of the scale included."""
        return self.element.bits + 8 / BLOCK


FORMATS: dict[str, MxFormat] = {
    name: MxFormat(name, element)
    for name, element in {
        "mxint8": formats.INT8,
        "mxint4": formats.INT4,
        "mxfp8": formats.E4M3,
        "mxfp8_e5m2": formats.E5M2,
        "mxfp6_e2m3": formats.E2M3,
        "mxfp6_e3m2": formats.E3M2,
        "mxfp4": formats.E2M1,
    }.items()
}


def format_named(name: str) -> MxFormat:
    """The MX format of that name. Raises UnmaskError, with the known names, if there is none."""
    if name not in FORMATS:
        raise UnmaskError(f"unknown MX format {name!r}: expected one of {', '.join(FORMATS)}")
    return FORMATS[name]


def wider(first: MxFormat, second: MxFormat) -> MxFormat:
    """The format with more bits per element; the first, if they have equally many."""
    return second if second.element.bits > first.element.bits else first


@dataclass
class MxTensor:
    """A tensor in MX blocks along its last axis.

    codes: uint8 [..., kp], one element code each, kp being `length` rounded up to a multiple of 32, zeros beyond `length`. scales: uint8
    [..., kp // 32]. length: the true size of the last axis.
    """

    codes: Uint8
    scales: Uint8
    format: MxFormat
    length: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the tensor it stands for, padding excluded."""
        return (*self.codes.shape[:-1], self.length)


def padded(length: int) -> int:
    """length rounded up to a whole number of blocks."""
    return -(-length // BLOCK) * BLOCK


def _power_of_two(exponent: Int64) -> Float32:
    return np.ldexp(np.float32(1), exponent.astype(np.int32))


def quantize(x: Float32, format: MxFormat | str) -> MxTensor:
    """Quantize float32 [..., k] to MX blocks along the last axis by the conversion of OCP MX v1.0, section 6.3.

    The exponent of a block's scale is floor(log2(largest magnitude)) - emax of the element format, clamped to -127..127; elements are
    rounded to nearest even and saturate, integers symmetrically: the specification leaves the most negative code optional, and unmask never
    makes it. A block with a NaN or an infinity gets the NaN scale, an all-zero block scale code 0; both have zero codes (the sign of a zero
    in an all-zero block is kept). Raises UnmaskError for an unknown format name.
    """
    return _quantize(np.ascontiguousarray(x, dtype=np.float32).view(np.uint32), 0, format)


def quantize_bf16(bits: Uint16, format: MxFormat | str) -> MxTensor:
    """`quantize` of BF16 bit patterns, uint16 [..., k], which need not be widened first. Raises UnmaskError for an unknown format name."""
    return _quantize(np.ascontiguousarray(bits, dtype=np.uint16), 16, format)


def _quantize(patterns: Uint32 | Uint16, shift: int, format: MxFormat | str) -> MxTensor:
    from unmask.numerics import _kernels

    fmt = format if isinstance(format, MxFormat) else format_named(format)
    element, shape = fmt.element, patterns.shape
    rows, columns = math.prod(shape[:-1]), padded(shape[-1])
    codes, scales = np.empty((rows, columns), np.uint8), np.empty((rows, columns // BLOCK), np.uint8)
    _kernels.quantize(
        patterns.reshape(rows, shape[-1]),
        shift,
        element.emax,
        element.emin,
        element.mantissa_bits,
        element.max_code,
        element.bits,
        element.kind == "int",
        codes,
        scales,
    )
    return MxTensor(codes.reshape(*shape[:-1], columns), scales.reshape(*shape[:-1], columns // BLOCK), fmt, shape[-1])


@cache
def _factors() -> Float32:
    """What each scale code multiplies by."""
    exponents = np.arange(NAN_SCALE, dtype=np.int64) - SCALE_BIAS
    return np.append(_power_of_two(exponents), np.float32(np.nan))


def dequantize(t: MxTensor) -> Float32:
    """The values of an MX tensor, float32 [..., k]: exact, or infinite where an element times its scale exceeds FP32; NaN under a NaN
    scale. Raises IndexError for a code of more bits than its format has, ValueError where scales and codes do not belong together."""
    from unmask.numerics import _kernels

    table = formats.code_values(t.format.element)
    if t.codes.max(initial=0) >= len(table):
        raise IndexError(f"a code of {t.format.element.name} has {t.format.element.bits} bits")
    if t.codes.shape != (*t.scales.shape[:-1], t.scales.shape[-1] * BLOCK) or padded(t.length) != t.codes.shape[-1]:
        raise ValueError(f"codes {t.codes.shape} and scales {t.scales.shape} are not those of length {t.length}")
    rows = math.prod(t.shape[:-1])
    values = np.empty(t.shape, np.float32)
    _kernels.dequantize(
        np.ascontiguousarray(t.codes).reshape(rows, t.codes.shape[-1]),
        np.ascontiguousarray(t.scales).reshape(rows, t.scales.shape[-1]),
        table,
        _factors(),
        values.reshape(rows, t.length),
    )
    return values


def pack(t: MxTensor) -> Uint8:
    """The element codes at their true width: uint8 [..., kp * bits / 8]. Element i of a row starts at bit i * bits, counted from the low
    bit of byte 0. The scales are bytes already and are not included."""
    from unmask.numerics import _kernels

    bits = t.format.element.bits
    if bits == 8:
        return t.codes
    packed = np.empty((*t.codes.shape[:-1], t.codes.shape[-1] * bits // 8), np.uint8)
    _kernels.pack(np.ascontiguousarray(t.codes).reshape(-1), bits, packed.reshape(-1))
    return packed


def unpack(elements: Uint8, scales: Uint8, format: MxFormat, length: int) -> MxTensor:
    """The inverse of `pack`: packed elements uint8 [..., kp * bits / 8] and scales uint8 [..., kp // 32] of an MX tensor [..., length].
    Raises ValueError where a row of elements has another size."""
    from unmask.numerics import _kernels

    bits, columns = format.element.bits, padded(length)
    if elements.shape[-1] != columns * bits // 8:
        raise ValueError(f"{length} elements of {bits} bits take {columns * bits // 8} bytes, not {elements.shape[-1]}")
    if bits == 8:
        return MxTensor(elements, scales, format, length)
    codes = np.empty((*elements.shape[:-1], columns), np.uint8)
    _kernels.unpack(np.ascontiguousarray(elements).reshape(-1), bits, codes.reshape(-1))
    return MxTensor(codes, scales, format, length)


def reblock_transposed(t: MxTensor) -> MxTensor:
    """The transpose of an MX tensor [rows, n], blocked along its rows: an MX tensor [n, rows].

    Each tile of 32 rows by 32 columns takes the largest of its 32 scales (all-zero blocks do not count; zero code if all are) and every
    element is rounded again, to nearest even, to that scale. A NaN scale anywhere in a tile makes the tile NaN. Rows are padded with zeros.
    """
    rows = t.codes.shape[0]
    extra = padded(rows) - rows
    codes = np.pad(t.codes, ((0, extra), (0, 0))).reshape(-1, BLOCK, t.scales.shape[1], BLOCK)
    scales = np.pad(t.scales, ((0, extra), (0, 0))).reshape(-1, BLOCK, t.scales.shape[1]).astype(np.int64)
    values = formats.decode(codes, t.format.element)
    # Not values != 0: a NaN element counts. An all-zero block may carry any scale but NaN.
    counts = (values != 0).any(axis=-1) | (scales == NAN_SCALE)
    common = np.where(counts, scales, 0).max(axis=1)
    down = np.clip(common[:, None] - scales, 0, _MAX_RESCALE)
    recoded = formats.encode(values * _power_of_two(-down)[..., None], t.format.element)
    recoded = np.where((common == NAN_SCALE)[:, None, :, None], np.uint8(0), recoded)
    # [row tile, row, column tile, column] to [column tile, column, row tile, row]
    codes_out = recoded.transpose(2, 3, 0, 1).reshape(t.codes.shape[1], -1)
    scales_out = np.repeat(common.T, BLOCK, axis=0).astype(np.uint8)
    return MxTensor(codes_out[: t.length], scales_out[: t.length], t.format, rows)

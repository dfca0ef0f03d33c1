"""MX blocks: conversion as gfloat does it, storage, and re-blocking for a transposed read."""

import gfloat
import gfloat.formats
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.errors import UnmaskError
from unmask.numerics import bf16, formats, mx

GFLOAT = {
    "mxint8": gfloat.formats.format_info_mxint8,
    "mxfp8": gfloat.formats.format_info_mxfp8_e4m3,
    "mxfp8_e5m2": gfloat.formats.format_info_mxfp8_e5m2,
    "mxfp6_e2m3": gfloat.formats.format_info_mxfp6_e2m3,
    "mxfp6_e3m2": gfloat.formats.format_info_mxfp6_e3m2,
    "mxfp4": gfloat.formats.format_info_mxfp4_e2m1,
}
ALL = tuple(mx.FORMATS)


def random_rows(seed: int, rows: int, columns: int, low: int = -10, high: int = 10) -> np.ndarray:
    """bf16-valued rows whose magnitude varies from block to block."""
    rng = np.random.default_rng(seed)
    exponent = np.repeat(rng.integers(low, high, size=(rows, mx.padded(columns) // 32)), 32, axis=1)[:, :columns]
    return bf16.round(np.ldexp(rng.normal(size=(rows, columns)), exponent).astype(np.float32))


@pytest.mark.parametrize("name", GFLOAT)
def test_blocks_are_those_of_gfloat(name):
    x = np.concatenate([random_rows(0, 20, 32), random_rows(1, 10, 32, -135, -120), random_rows(2, 10, 32, 115, 125)])
    # Ties and saturation: a largest element just below the next power of two.
    x = np.concatenate([x, np.linspace(-1.9921875, 1.9921875, 256, dtype=np.float32).reshape(8, 32)])
    x[-1, 0] = 1.9921875
    got = mx.dequantize(mx.quantize(x, name))
    for row, values in zip(got, x, strict=True):
        expected = gfloat.quantize_block(GFLOAT[name], values.astype(np.float64), gfloat.compute_scale_amax)
        if name == "mxint8":
            # gfloat makes the most negative code, which the specification leaves optional.
            limit = gfloat.compute_scale_amax(0, values.astype(np.float64)) * formats.INT8.max
            expected = expected.clip(-limit, limit)
        np.testing.assert_array_equal(row, expected.astype(np.float32))


@pytest.mark.parametrize("name", ALL)
def test_quantizing_twice_changes_nothing(name):
    once = mx.dequantize(mx.quantize(random_rows(4, 8, 96), name))
    np.testing.assert_array_equal(mx.dequantize(mx.quantize(once, name)), once)


@pytest.mark.parametrize("name", ALL)
def test_error_is_at_most_half_a_step_below_saturation(name):
    x = random_rows(5, 16, 64)
    t = mx.quantize(x, name)
    element = t.format.element
    unit = np.repeat(2.0 ** (t.scales.astype(np.float64) - 127), 32, axis=-1)
    scaled = np.abs(x / unit)
    precision = element.mantissa_bits
    step = 2.0**-precision if element.kind == "int" else 2.0 ** (np.maximum(np.floor(np.log2(scaled)), 1 - element.bias) - precision)
    inside = scaled <= element.max
    assert (np.abs(mx.dequantize(t) - x) / unit <= step / 2)[inside].all()
    assert inside.mean() > 0.9


def test_special_blocks():
    x = np.zeros((5, 32), dtype=np.float32)
    x[1, 3], x[2, 4], x[3, 5], x[4, 6] = np.nan, -np.inf, 2.0**-133, -(2.0**127)
    t = mx.quantize(x, "mxint8")
    np.testing.assert_array_equal(t.scales[:, 0], [0, 0xFF, 0xFF, 0, 254])
    back = mx.dequantize(t)
    assert np.isnan(back[1:3]).all()
    np.testing.assert_array_equal(back[[0, 3, 4]], x[[0, 3, 4]])


def test_the_last_axis_is_padded_with_zeros_and_cut_again():
    x = random_rows(6, 3, 45).reshape(1, 3, 45)
    t = mx.quantize(x, "mxint8")
    assert t.codes.shape == (1, 3, 64)
    assert t.scales.shape == (1, 3, 2)
    assert t.shape == (1, 3, 45)
    assert not t.codes[..., 45:].any()
    np.testing.assert_array_equal(mx.dequantize(t)[..., :32], mx.dequantize(mx.quantize(x[..., :32], "mxint8")))


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UnmaskError, match=r"'mxfp5'.*mxint8.*mxfp4"):
        mx.quantize(np.zeros(32, dtype=np.float32), "mxfp5")


@pytest.mark.parametrize("name", ALL)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 4), columns=st.integers(1, 100))
def test_packing_round_trips_at_the_true_width(name, seed, rows, columns):
    bits = mx.FORMATS[name].element.bits
    codes = np.random.default_rng(seed).integers(0, 2**bits, (rows, mx.padded(columns)), dtype=np.uint8)
    t = mx.MxTensor(codes, np.zeros((rows, codes.shape[1] // 32), dtype=np.uint8), mx.FORMATS[name], columns)
    packed = mx.pack(t)
    assert packed.shape == (rows, codes.shape[1] * bits // 8)
    back = mx.unpack(packed, t.scales, t.format, columns)
    np.testing.assert_array_equal(back.codes, codes)
    assert back.shape == t.shape
    # Little-endian: the row read as one integer holds element i at bit i * bits.
    assert int.from_bytes(packed[0].tobytes(), "little") == sum(int(c) << (i * bits) for i, c in enumerate(codes[0]))


def slow_reblock(t: mx.MxTensor) -> np.ndarray:
    """The values of the transpose, tile by tile from the definition."""
    rows, columns = t.shape
    values = mx.dequantize(t).astype(np.float64)
    out = np.zeros((columns, rows))
    for r in range(0, rows, 32):
        for c in range(0, columns, 32):
            tile, scales = values[r : r + 32, c : c + 32], t.scales[r : r + 32, c // 32]
            live = scales[(tile != 0).any(axis=1)]
            if (scales == 0xFF).any():
                out[c : c + 32, r : r + 32] = np.nan
            elif len(live):
                unit = 2.0 ** (int(live.max()) - 127)
                out[c : c + 32, r : r + 32] = formats.decode(formats.encode(tile / unit, t.format.element), t.format.element).T * unit
    return out


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("rows", "columns"), [(64, 64), (45, 70), (1, 32), (33, 5)])
def test_reblocking_rounds_every_tile_to_its_largest_scale(name, rows, columns):
    x = random_rows(rows + columns, rows, columns)
    x[rows // 2] = 0
    if rows == 45:
        x[3, 40] = np.nan
        x[2:40] *= np.float32(2.0**-100)
    t = mx.quantize(x, name)
    got = mx.reblock_transposed(t)
    assert got.shape == (columns, rows)
    assert got.codes.shape == (columns, mx.padded(rows))
    assert not got.codes[:, rows:].any()
    np.testing.assert_array_equal(mx.dequantize(got), slow_reblock(t))


@pytest.mark.parametrize("name", ALL)
def test_reblocking_is_the_plain_transpose_where_all_scales_agree(name):
    x = random_rows(7, 64, 64, 0, 1).clip(-1.5, 1.5)
    x[:, ::32] = 1.5
    t = mx.quantize(x, name)
    np.testing.assert_array_equal(mx.dequantize(mx.reblock_transposed(t)), mx.dequantize(t).T)


def test_reblocking_ignores_the_scale_of_an_all_zero_block():
    x = np.ones((32, 32), dtype=np.float32)
    t = mx.quantize(x, "mxint8")
    t.codes[5] = 0
    t.scales[5] = 254
    got = mx.reblock_transposed(t)
    assert (got.scales == 127).all()
    np.testing.assert_array_equal(mx.dequantize(got)[:, np.arange(32) != 5], 1)

"""The compiled loops are the definition of the element formats, for every pattern; quantizing is a projection."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.numerics import bf16, formats, mx

ALL = tuple(mx.FORMATS)
FORMATS = pytest.mark.parametrize("name", ALL)
#: Elements that many binades below the largest of their block are zero in every format.
BINADES = 40


def plain_quantize(x: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Codes and scales of blocks float32 [n, 32], in floating point and by `formats.encode`."""
    element = mx.FORMATS[name].element
    largest = np.abs(x).max(axis=1)
    broken = ~np.isfinite(largest)
    exponent = np.frexp(np.where(broken, 0, largest))[1].astype(np.int64) - 1 - element.emax
    exponent = np.where(largest == 0, -127, np.clip(exponent, -127, 127))
    scaled = np.ldexp(np.where(broken[:, None], 0, x).astype(np.float64), -exponent[:, None].astype(np.int32))
    return formats.encode(scaled.astype(np.float32), element), np.where(broken, 0xFF, exponent + 127).astype(np.uint8)


def assert_plain(patterns: np.ndarray, name: str) -> None:
    """Blocks of FP32 patterns uint32 [n, 32] quantize as the definition says."""
    x = patterns.astype(np.uint32).view(np.float32)
    got, (codes, scales) = mx.quantize(x, name), plain_quantize(x, name)
    np.testing.assert_array_equal(got.scales[:, 0], scales)
    np.testing.assert_array_equal(got.codes, codes)


def blocks(largest: int, elements: np.ndarray) -> np.ndarray:
    """Blocks that begin with the pattern `largest` and hold all the `elements`, none above it, filled up with +0."""
    padded = np.zeros(-(-len(elements) // 31) * 31, np.uint32)
    padded[: len(elements)] = elements
    rows = padded.reshape(-1, 31)
    return np.concatenate([np.full((len(rows), 1), largest, np.uint32), rows], axis=1)


@FORMATS
def test_every_bf16_pattern_under_every_scale(name):
    for field in range(255):
        below = np.arange(max(field - BINADES, 0) << 7, (field + 1) << 7, dtype=np.uint32)
        elements = np.concatenate([below, below | 0x8000]) << np.uint32(16)
        assert_plain(blocks(field << 23, elements), name)


@FORMATS
def test_patterns_beside_every_bf16_pattern_round_to_the_right_side(name):
    low = np.array([1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    for field in (0, 1, 2, 7, 9, 16, 17, 18, 24, 127, 254):
        below = np.arange(max(field - BINADES, 0) << 7, (field + 1) << 7, dtype=np.uint32) << np.uint32(16)
        assert_plain(blocks(field << 23, (below[:, None] | low).reshape(-1)), name)


@FORMATS
@given(seed=st.integers(0, 2**32 - 1), top=st.integers(0, 2**9 - 1), spread=st.integers(0, 12))
def test_random_patterns(name, seed, top, spread):
    rng = np.random.default_rng(seed)
    exponents = (top - rng.integers(0, spread + 1, (4, 32))).clip(0, 511)
    assert_plain(((exponents << 23) ^ rng.integers(0, 2**23, (4, 32))).astype(np.uint32), name)


@FORMATS
@given(seed=st.integers(0, 2**32 - 1), top=st.integers(0, 255), rows=st.integers(0, 3), columns=st.integers(0, 70))
def test_quantizing_what_was_quantized_gives_the_same_codes_and_scales(name, seed, top, rows, columns):
    rng = np.random.default_rng(seed)
    exponents = (top - rng.integers(0, 12, (rows, columns))).clip(0, 255)
    patterns = (exponents << 23) ^ rng.integers(0, 2**23, (rows, columns)) ^ (rng.integers(0, 2, (rows, columns)) << 31)
    once = mx.quantize(patterns.astype(np.uint32).view(np.float32), name)
    twice = mx.quantize(mx.dequantize(once), name)
    np.testing.assert_array_equal(twice.codes, once.codes)
    np.testing.assert_array_equal(twice.scales, once.scales)


@FORMATS
def test_bf16_patterns_need_not_be_widened(name):
    bits = np.random.default_rng(0).integers(0, 2**16, (3, 100)).astype(np.uint16)
    bits[0] &= 0x3FFF
    for case in (bits, bits.T, bits.reshape(3, 4, 25), bits[:, :0], bits[:0]):
        narrow, wide = mx.quantize_bf16(case, name), mx.quantize(bf16.from_bits(case), name)
        assert narrow.shape == case.shape
        np.testing.assert_array_equal(narrow.codes, wide.codes)
        np.testing.assert_array_equal(narrow.scales, wide.scales)


@FORMATS
def test_dequantizing_multiplies_every_code_by_every_scale(name):
    element = mx.FORMATS[name].element
    codes = np.arange(256).reshape(8, 32).astype(np.uint8) & np.uint8(2**element.bits - 1)
    for scale in range(256):
        t = mx.MxTensor(codes, np.full((8, 1), scale, np.uint8), mx.FORMATS[name], 32)
        factor = np.nan if scale == 0xFF else 2.0 ** (scale - 127)
        with np.errstate(over="ignore", invalid="ignore"):
            expected = (formats.decode(codes, element).astype(np.float64) * factor).astype(np.float32)
        np.testing.assert_array_equal(mx.dequantize(t), expected)


def test_tensors_whose_parts_do_not_fit_are_refused():
    t = mx.quantize(np.ones((2, 40), np.float32), "mxfp4")
    with pytest.raises(IndexError, match="4 bits"):
        mx.dequantize(mx.MxTensor(t.codes | 0x10, t.scales, t.format, 40))
    for broken in (mx.MxTensor(t.codes, t.scales[:, :1], t.format, 40), mx.MxTensor(t.codes, t.scales, t.format, 65)):
        with pytest.raises(ValueError, match="not those of length"):
            mx.dequantize(broken)
    with pytest.raises(ValueError, match="take 32 bytes"):
        mx.unpack(mx.pack(t)[:, :-1], t.scales, t.format, 40)


def test_read_only_and_strided_arrays_are_taken():
    x = np.random.default_rng(0).normal(size=(4, 6, 64)).astype(np.float32)
    x.flags.writeable = False
    for case in (x, x.transpose(1, 0, 2), x[:, ::2], x[..., ::2]):
        np.testing.assert_array_equal(mx.quantize(case, "mxfp6_e3m2").codes, mx.quantize(case.copy(), "mxfp6_e3m2").codes)

"""Element formats agree with ml_dtypes and gfloat, code by code and value by value."""

import gfloat
import gfloat.formats
import ml_dtypes
import numpy as np
import pytest

from unmask.numerics import formats

FLOATS = {
    formats.E4M3: (ml_dtypes.float8_e4m3fn, gfloat.formats.format_info_ocp_e4m3),
    formats.E5M2: (ml_dtypes.float8_e5m2, gfloat.formats.format_info_ocp_e5m2),
    formats.E3M2: (ml_dtypes.float6_e3m2fn, gfloat.formats.format_info_ocp_e3m2),
    formats.E2M3: (ml_dtypes.float6_e2m3fn, gfloat.formats.format_info_ocp_e2m3),
    formats.E2M1: (ml_dtypes.float4_e2m1fn, gfloat.formats.format_info_ocp_e2m1),
}
INTS = (formats.INT8, formats.INT4)
ALL = (*FLOATS, *INTS)


def codes_of(fmt: formats.ElementFormat) -> np.ndarray:
    return np.arange(2**fmt.bits, dtype=np.uint8)


def boundary_values(fmt: formats.ElementFormat) -> np.ndarray:
    """Every value, every tie between neighbours, and the float64 next to each on both sides; beyond the largest too."""
    values = np.unique(formats.decode(codes_of(fmt), fmt)[np.isfinite(formats.decode(codes_of(fmt), fmt))].astype(np.float64))
    points = np.concatenate([values, (values[1:] + values[:-1]) / 2, [fmt.max * 1.5, fmt.max * 1e6]])
    points = np.concatenate([points, np.nextafter(points, -np.inf), np.nextafter(points, np.inf)])
    return np.concatenate([points, -points])


@pytest.mark.parametrize("fmt", FLOATS, ids=lambda f: f.name)
def test_decoding_is_that_of_ml_dtypes_and_gfloat(fmt):
    dtype, info = FLOATS[fmt]
    got = formats.decode(codes_of(fmt), fmt)
    np.testing.assert_array_equal(got, codes_of(fmt).view(dtype).astype(np.float32))
    np.testing.assert_array_equal(got, [gfloat.decode_float(info, int(c)).fval for c in codes_of(fmt)])


def test_integers_are_twos_complement_fractions():
    info = gfloat.formats.format_info_ocp_int8
    np.testing.assert_array_equal(
        formats.decode(codes_of(formats.INT8), formats.INT8), [gfloat.decode_float(info, c).fval for c in range(256)]
    )
    np.testing.assert_array_equal(formats.decode(codes_of(formats.INT4), formats.INT4) * 4, [*range(8), *range(-8, 0)])


@pytest.mark.parametrize("fmt", FLOATS, ids=lambda f: f.name)
def test_encoding_is_that_of_gfloat_at_every_boundary(fmt):
    info = FLOATS[fmt][1]
    points = boundary_values(fmt)
    expected = [gfloat.encode_float(info, gfloat.round_float(info, float(v), gfloat.RoundMode.TiesToEven, True)) for v in points]
    np.testing.assert_array_equal(formats.encode(points, fmt), expected)


@pytest.mark.parametrize("fmt", FLOATS, ids=lambda f: f.name)
def test_encoding_is_that_of_ml_dtypes_on_random_values(fmt):
    # Of float32 only: ml_dtypes 0.6 rounds a float64 twice on its way to E5M2.
    rng = np.random.default_rng(3)
    x = (rng.normal(size=200_000) * 2.0 ** rng.integers(-20, 17, 200_000)).clip(-fmt.max, fmt.max).astype(np.float32)
    np.testing.assert_array_equal(formats.encode(x, fmt), x.astype(FLOATS[fmt][0]).view(np.uint8))


@pytest.mark.parametrize("fmt", INTS, ids=lambda f: f.name)
def test_integer_encoding_rounds_to_even_and_saturates_symmetrically(fmt):
    points = boundary_values(fmt)
    limit = 2 ** (fmt.bits - 1) - 1
    expected = np.clip(np.rint(points * 2.0**fmt.fraction), -limit, limit) / 2.0**fmt.fraction
    np.testing.assert_array_equal(formats.decode(formats.encode(points, fmt), fmt), expected)
    assert formats.encode(np.float32([-1e9]), fmt)[0] == 2 ** (fmt.bits - 1) + 1


@pytest.mark.parametrize("fmt", ALL, ids=lambda f: f.name)
def test_every_finite_code_survives_a_round_trip(fmt):
    codes = codes_of(fmt)[~formats.is_special(codes_of(fmt), fmt)]
    if fmt.kind == "int":
        codes = codes[codes != 2 ** (fmt.bits - 1)]
    np.testing.assert_array_equal(formats.encode(formats.decode(codes, fmt), fmt), codes)
    np.testing.assert_array_equal(formats.encode(formats.decode(codes, fmt).astype(np.float64), fmt), codes)


@pytest.mark.parametrize("fmt", ALL, ids=lambda f: f.name)
def test_significands_are_the_values_on_the_grid_of_the_format(fmt):
    values, significands = formats.decode(codes_of(fmt), fmt), formats.significand(codes_of(fmt), fmt)
    special = formats.is_special(codes_of(fmt), fmt)
    np.testing.assert_array_equal(special, ~np.isfinite(values))
    np.testing.assert_array_equal(significands[~special] * 2.0**-fmt.fraction, values[~special].astype(np.float64))
    assert (significands[special] == 0).all()
    assert (significands % 2 == 1).any()
    assert np.abs(significands).max() <= 2**fmt.significand_bits < 4 * np.abs(significands).max()


def test_ranges_are_those_of_the_specification():
    expected = {
        "int8": (127 / 64, 0),
        "int4": (7 / 4, 0),
        "e4m3": (448, 8),
        "e5m2": (57344, 15),
        "e3m2": (28, 4),
        "e2m3": (7.5, 2),
        "e2m1": (6, 2),
    }
    assert {f.name: (f.max, f.emax) for f in ALL} == expected


@pytest.mark.parametrize("fmt", ALL, ids=lambda f: f.name)
def test_values_that_are_not_finite(fmt):
    x = np.array([np.inf, -np.inf, np.nan], dtype=np.float32)
    got = formats.decode(formats.encode(x, fmt), fmt)
    np.testing.assert_array_equal(got, [fmt.max, -fmt.max, 0 if fmt.nan_code is None else np.nan])

"""The MX product is bit-exact, whatever path computes it, and does not depend on any order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.numerics import mx
from unmask.numerics.accumulator import MATRIX_FRACTION
from unmask.numerics.matmul import mx_matmul

from .oracles import matmul_element

ALL = tuple(mx.FORMATS)
PAIRS = [
    ("mxint8", "mxint8"),
    ("mxint8", "mxint4"),
    ("mxfp8", "mxfp8"),
    ("mxfp4", "mxfp6_e2m3"),
    ("mxfp8_e5m2", "mxfp8"),
    ("mxfp8_e5m2", "mxfp8_e5m2"),
]


def random_tensor(rng: np.random.Generator, rows: int, length: int, name: str, low: int, high: int, nan: bool = False) -> mx.MxTensor:
    """Random codes and random scales between 2^low and 2^high, with some all-zero blocks of the smallest scale."""
    fmt = mx.FORMATS[name]
    blocks = mx.padded(length) // 32
    codes = rng.integers(0, 2**fmt.element.bits, (rows, blocks, 32), dtype=np.uint8)
    magnitude = codes & (2 ** (fmt.element.bits - 1) - 1)
    codes = np.where((magnitude > fmt.element.max_code) & ~(nan & (rng.random(codes.shape) < 0.1)), codes & 1, codes)
    scales = rng.integers(low + 127, high + 128, (rows, blocks)).astype(np.uint8)
    zero = rng.random((rows, blocks)) < 0.2
    codes[zero], scales[zero] = 0, 0
    if nan:
        scales[rng.random((rows, blocks)) < 0.1] = 0xFF
    codes = codes.reshape(rows, -1)
    codes[:, length:] = 0
    return mx.MxTensor(codes, scales, fmt, length)


def check(a: mx.MxTensor, b: mx.MxTensor) -> np.ndarray:
    acc, invalid = mx_matmul(a, b)
    for i in range(len(a.codes)):
        for j in range(len(b.codes)):
            assert (int(acc[i, j]), bool(invalid[i, j])) == matmul_element(a, b, i, j, MATRIX_FRACTION)
    return invalid


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@pytest.mark.parametrize("nan", [False, True], ids=["finite", "nan"])
@pytest.mark.parametrize(("low", "high"), [(-8, -5), (-14, 2), (-40, -10), (-127, -90), (8, 20), (-127, 127)])
def test_product_is_that_of_exact_rationals(pair, nan, low, high):
    rng = np.random.default_rng(11)
    invalid = check(random_tensor(rng, 3, 150, pair[0], low, high, nan), random_tensor(rng, 4, 150, pair[1], low, high, nan))
    if not nan and high < 0:
        assert not invalid.any()


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    a=st.sampled_from(ALL),
    b=st.sampled_from(ALL),
    length=st.integers(1, 100),
    low=st.integers(-127, 100),
    span=st.integers(0, 40),
)
def test_product_is_that_of_exact_rationals_in_any_formats_and_ranges(seed, a, b, length, low, span):
    rng = np.random.default_rng(seed)
    # Centre the product of the two ranges where the accumulator's grid and limits are.
    other = max(-127, min(80, -low - int(rng.integers(0, 50))))
    check(random_tensor(rng, 2, length, a, low, min(127, low + span)), random_tensor(rng, 2, length, b, other, min(127, other + span)))


def test_quantized_activations_and_weights_multiply_as_their_values():
    rng = np.random.default_rng(5)
    a = mx.quantize(rng.normal(size=(16, 200)).astype(np.float32), "mxint8")
    b = mx.quantize((rng.normal(size=(24, 200)) * 0.02).astype(np.float32), "mxint8")
    acc, invalid = mx_matmul(a, b)
    assert not invalid.any()
    np.testing.assert_array_equal(acc * 2.0**-MATRIX_FRACTION, mx.dequantize(a).astype(np.float64) @ mx.dequantize(b).astype(np.float64).T)


def take_blocks(t: mx.MxTensor, blocks: np.ndarray) -> mx.MxTensor:
    codes = t.codes.reshape(len(t.codes), -1, 32)[:, blocks].reshape(len(t.codes), -1)
    return mx.MxTensor(codes, t.scales[:, blocks], t.format, codes.shape[1])


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@pytest.mark.parametrize(("low", "high"), [(-6, -2), (-30, 0), (10, 16)])
def test_order_and_splitting_of_k_do_not_matter(pair, low, high):
    rng = np.random.default_rng(6)
    a, b = (random_tensor(rng, 5, 320, name, low, high) for name in pair)
    acc, invalid = mx_matmul(a, b)
    order = rng.permutation(10)
    permuted = mx_matmul(take_blocks(a, order), take_blocks(b, order))
    np.testing.assert_array_equal(permuted[0], acc)
    np.testing.assert_array_equal(permuted[1], invalid)
    parts = [mx_matmul(take_blocks(a, part), take_blocks(b, part))[0] for part in (order[:3], order[3:4], order[4:])]
    np.testing.assert_array_equal(parts[0] + parts[1] + parts[2], acc)
    np.testing.assert_array_equal(mx_matmul(b, a)[0], acc.T)


def test_a_zero_block_hides_its_scale():
    rng = np.random.default_rng(8)
    a, b = random_tensor(rng, 4, 96, "mxint8", -3, 3), random_tensor(rng, 4, 96, "mxint8", -3, 3)
    expected = mx_matmul(a, b)[0]
    a.scales[~a.codes.reshape(4, 3, 32).any(axis=2)] = 254
    np.testing.assert_array_equal(mx_matmul(a, b)[0], expected)


def test_contributions_are_floored_one_block_at_a_time():
    a = mx.MxTensor(np.ones((1, 64), dtype=np.uint8), np.full((1, 2), 127 - 20, dtype=np.uint8), mx.FORMATS["mxint8"], 64)
    b = mx.MxTensor(np.zeros((1, 64), dtype=np.uint8), np.full((1, 2), 127 - 20, dtype=np.uint8), mx.FORMATS["mxint8"], 64)
    b.codes[0, [0, 32]] = 0xFF
    # Each block is -2^-52; their exact sum would floor to -1 as well, the sum of the floors is -2.
    assert mx_matmul(a, b)[0][0, 0] == -2


@pytest.mark.parametrize("spread", range(28, 43))
def test_a_small_block_is_not_lost_beside_a_large_one(spread):
    # The large block is as large as an MXINT8 block gets, the small one a single lsb: 19 + spread bits apart.
    codes = np.zeros((1, 64), dtype=np.uint8)
    codes[0, :32], codes[0, 40] = 127, 1
    scales = np.array([[127 - 14 + spread, 127 - 14]], dtype=np.uint8)
    a = mx.MxTensor(codes, scales, mx.FORMATS["mxint8"], 64)
    b = mx.MxTensor(codes, np.full_like(scales, 127 - 14), mx.FORMATS["mxint8"], 64)
    assert mx_matmul(a, b)[0][0, 0] == ((127 * 127 * 32) << spread) + 1


def test_a_contribution_out_of_range_is_reported_though_another_cancels_it():
    huge = np.float32(2.0**30)
    a = mx.quantize(np.full((1, 64), huge), "mxint8")
    b = mx.quantize(np.repeat(np.float32([1, -1]), 32)[None], "mxint8")
    acc, invalid = mx_matmul(a, b)
    assert (acc[0, 0], invalid[0, 0]) == (0, True)


def test_leaving_the_range_is_reported_and_cancelling_within_it_is_not():
    one = mx.quantize(np.float32([[2.0**22] * 64]), "mxint8")
    sign = mx.quantize(np.float32([[0.03125] * 64, [0.03125] * 32 + [-0.03125] * 32, [0.015] * 64]), "mxint8")
    acc, invalid = mx_matmul(one, sign)
    np.testing.assert_array_equal(invalid, [[True, False, False]])
    assert acc[0, 0] == -(2**63)
    assert acc[0, 1] == 0


def test_lengths_must_agree():
    a, b = (mx.quantize(np.ones((1, k), dtype=np.float32), "mxint8") for k in (32, 64))
    with pytest.raises(ValueError, match="32 columns and b has 64"):
        mx_matmul(a, b)

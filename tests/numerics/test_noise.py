"""The noise is Threefry's, depends on its index alone, and is distributed as it should be."""

import numpy as np
import pytest

from unmask.errors import UnmaskError
from unmask.numerics import bf16, noise

# Random123's known answers: counter, key, output.
KNOWN = [
    ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
]


@pytest.fixture(scope="module")
def bits() -> np.ndarray:
    return noise.uniform_bits(7, 3, np.arange(64), np.arange(8192))


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_threefry_gives_the_known_answers(counter, key, expected):
    left, right = noise.threefry2x32(key, (np.uint32([counter[0]]), np.uint32([counter[1]])))
    assert (int(left[0]), int(right[0])) == expected


def test_bits_are_threefry_of_position_and_token_pair():
    pair = 0x05A308D3
    got = noise.uniform_bits(0x13198A2E, 0x03707344, np.array([0x243F6A88]), np.array([2 * pair, 2 * pair + 1]))
    left, right = noise.threefry2x32((0x13198A2E, 0x03707344), (np.uint32([0x243F6A88]), np.uint32([pair])))
    assert got[0].tolist() == [int(left[0]), int(right[0])]


def test_bits_do_not_depend_on_the_tiling(bits):
    rng = np.random.default_rng(0)
    positions, tokens = rng.permutation(64)[:9], rng.permutation(8192)[:1001]
    np.testing.assert_array_equal(noise.uniform_bits(7, 3, positions, tokens), bits[np.ix_(positions, tokens)])


def test_seed_and_step_change_every_stream(bits):
    for seed, step in ((8, 3), (7, 4), (3, 7)):
        assert (noise.uniform_bits(seed, step, np.arange(64), np.arange(8192)) == bits).mean() < 1e-4


def test_bits_are_balanced_and_uncorrelated(bits):
    ones = ((bits[..., None] >> np.arange(32, dtype=np.uint32)) & 1).reshape(-1, 32)
    # Five standard deviations of a fair coin tossed 2^19 times.
    assert np.abs(ones.mean(axis=0) - 0.5).max() < 5 * 0.5 / np.sqrt(len(ones))
    u = noise.uniform(bits).astype(np.float64) - 0.5
    for a, b in ((u[:, 1:], u[:, :-1]), (u[1:], u[:-1])):
        assert abs((a * b).mean()) * 12 < 5 / np.sqrt(a.size)


@pytest.mark.parametrize("key", [(-1, 0), (0, 2**32)])
def test_a_key_out_of_range_is_refused(key):
    with pytest.raises(UnmaskError, match="out of range"):
        noise.uniform_bits(*key, np.arange(2), np.arange(2))


def test_uniform_is_the_top_24_bits():
    got = noise.uniform(np.uint32([0, 255, 256, 0xFFFFFFFF, 0x80000000]))
    np.testing.assert_array_equal(got, [0, 0, 2.0**-24, 1 - 2.0**-24, 0.5])


def gumbel_exact(bits: np.ndarray) -> np.ndarray:
    # 1 - u is exact in float64 too, which keeps the upper tail accurate.
    complement = (2.0**32 - bits - 0.5) * 2.0**-32
    return -np.log(-np.log1p(-complement))


def half_ulp(y: np.ndarray) -> np.ndarray:
    return 2.0 ** (np.frexp(np.abs(y))[1] - 9.0)


def test_gumbel_is_within_its_bound(bits):
    edges = np.concatenate([np.arange(5000, dtype=np.uint32), np.arange(2**32 - 5000, 2**32, dtype=np.int64).astype(np.uint32)])
    powers = (np.uint32(1) << np.arange(32, dtype=np.uint32))[:, None] + np.arange(-64, 64, dtype=np.int64).astype(np.uint32)
    near_zero = (np.exp(-1) * 2**32 + np.arange(-3000, 3000) * 1000).astype(np.uint32)
    for sample in (bits.reshape(-1), edges, powers.reshape(-1), near_zero):
        exact = gumbel_exact(sample)
        got = noise.gumbel(sample).astype(np.float64)
        assert (np.abs(got - exact) - half_ulp(exact)).max() < 1.5e-4


def test_fp32_gumbel_is_within_its_bound_and_rounds_to_the_bf16_one(bits):
    sample = bits.reshape(-1)
    got = noise.gumbel_fp32(sample)
    assert got.dtype == np.float32
    assert np.abs(got.astype(np.float64) - gumbel_exact(sample)).max() < 1.5e-4
    # Two roundings instead of one: a neighbour at most, and almost never that.
    assert (bf16.round(got) == noise.gumbel(sample)).mean() > 0.9999


def test_gumbel_never_decreases_with_its_bits_by_more_than_its_error():
    sample = np.sort(np.random.default_rng(2).integers(0, 2**32, 1 << 18, dtype=np.uint32))
    got = noise.gumbel(sample)
    assert (np.diff(got) >= -half_ulp(got[1:]) * 2).all()
    assert got[0] < -2
    assert got[-1] > 10
    assert noise.gumbel(np.uint32([0]))[0] == -3.125
    assert noise.gumbel(np.uint32([0xFFFFFFFF]))[0] == 22.875


def test_gumbel_has_the_moments_of_the_distribution(bits):
    g = noise.gumbel(bits).astype(np.float64)
    count = np.sqrt(g.size)
    # Mean Euler's constant, variance pi^2 / 6, fourth central moment 14.6; five standard deviations each.
    assert abs(g.mean() - 0.5772157) < 5 * 1.2825 / count + 1e-4
    assert abs(g.var() - np.pi**2 / 6) < 5 * np.sqrt(14.6 - 2.7) / count + 1e-3


def test_adding_gumbel_noise_samples_the_softmax():
    logits = np.float32([1.0, 0.0, -1.0, 2.0])
    g = noise.gumbel(noise.uniform_bits(1, 0, np.arange(40_000), np.arange(4)))
    frequency = np.bincount((logits + g).argmax(axis=1), minlength=4) / 40_000
    p = np.exp(logits) / np.exp(logits).sum()
    assert (np.abs(frequency - p) < 5 * np.sqrt(p * (1 - p) / 40_000)).all()

"""The noise is Threefry's, depends on its index alone, and is distributed as it should be."""

import itertools

import numpy as np
import pytest

from unmask.errors import UnmaskError
from unmask.numerics import noise

# Random123's known answers of 13 rounds: counter, key, output.
KNOWN = [
    ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x9D1C5EC6, 0x8BD50731)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0xFD36D048, 0x2D17272C)),
    ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xBA3E4725, 0xF27D669E)),
]


@pytest.fixture(scope="module")
def bits() -> np.ndarray:
    return noise.uniform_bits(7, 3, np.arange(64), np.arange(8192))


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_threefry_gives_the_known_answers(counter, key, expected):
    left, right = noise.threefry2x32(key, (np.uint32([counter[0]]), np.uint32([counter[1]])))
    assert (int(left[0]), int(right[0])) == expected


def test_bits_are_threefry_of_position_and_four_tokens_forwards_and_backwards():
    group = 0x05A308D3
    got = noise.uniform_bits(0x13198A2E, 0x03707344, np.array([0x243F6A88]), 4 * group + np.arange(4))
    left, right = noise.threefry2x32((0x13198A2E, 0x03707344), (np.uint32([0x243F6A88]), np.uint32([group])))
    read = [way for word in (int(left[0]), int(right[0])) for way in (word, int(f"{word:032b}"[::-1], 2))]
    assert got[0].tolist() == read


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


def test_tokens_of_a_counter_are_independent(bits):
    # 256 cells for each pair of tokens, by the upper four bits; 225 degrees of freedom: the 99.99 % quantile is 310.
    top = (bits >> 28).astype(np.int64).reshape(-1, 4)
    for one, other in itertools.combinations(range(4), 2):
        counts = np.bincount(top[:, one] * 16 + top[:, other], minlength=256)
        expected = len(top) / 256
        assert ((counts - expected) ** 2 / expected).sum() < 310


@pytest.mark.parametrize("key", [(-1, 0), (0, 2**32)])
def test_a_key_out_of_range_is_refused(key):
    with pytest.raises(UnmaskError, match="out of range"):
        noise.uniform_bits(*key, np.arange(2), np.arange(2))


def test_uniform_is_the_top_24_bits():
    got = noise.uniform(np.uint32([0, 255, 256, 0xFFFFFFFF, 0x80000000]))
    np.testing.assert_array_equal(got, [0, 0, 2.0**-24, 1 - 2.0**-24, 0.5])


def half_ulp(y: np.ndarray) -> np.ndarray:
    return 2.0 ** (np.frexp(np.abs(y))[1] - 9.0)


def gumbel_exact(bits: np.ndarray) -> np.ndarray:
    # 1 - u is exact in float64 too, which keeps the upper tail accurate.
    complement = (2.0**32 - bits - 0.5) * 2.0**-32
    return -np.log(-np.log1p(-complement))


@pytest.fixture(scope="module")
def cells() -> tuple[np.ndarray, np.ndarray]:
    """The first and the last bits of each run of words that the lanes' noise does not tell apart, in order."""
    width = noise.NARROW.mantissa_bits
    zeros, mantissa = (x.reshape(-1) for x in np.meshgrid(np.arange(32), np.arange(1 << width), indexing="ij"))
    # 2 bits + 1 lies in [1 + f, 1 + f + 2^-width) 2^(31 - zeros).
    first, end = (np.ceil(np.ldexp(1 + f / 2**width, 30 - zeros) - 0.5).astype(np.int64) for f in (mantissa, mantissa + 1))
    low = np.sort(first[end > first]), np.sort(end[end > first] - 1)
    return np.concatenate([low[0], 2**32 - 1 - low[1][::-1]]), np.concatenate([low[1], 2**32 - 1 - low[0][::-1]])


def test_gumbel_is_one_value_per_cell_and_the_cells_are_all_words(cells):
    first, last = cells
    assert first[0] == 0
    assert last[-1] == 2**32 - 1
    np.testing.assert_array_equal(first[1:], last[:-1] + 1)
    np.testing.assert_array_equal(noise.gumbel(first.astype(np.uint32)), noise.gumbel(last.astype(np.uint32)))


def test_gumbel_of_every_word_is_within_its_bound(cells):
    got = noise.gumbel(cells[0].astype(np.uint32)).astype(np.float64)
    for end in cells:
        exact = gumbel_exact(end)
        assert (np.abs(got - exact) - half_ulp(exact)).max() < 1.1e-3


def test_gumbel_never_decreases_with_its_bits(cells):
    got = noise.gumbel(cells[0].astype(np.uint32))
    assert (np.diff(got) >= 0).all()
    assert got[0] == -3.125
    assert got[-1] == 22.875


def test_gumbel_has_the_distribution(cells):
    """Exactly, by the weight of every value: mean, variance, and the largest difference of the distribution functions."""
    first, last = cells
    value, weight = noise.gumbel(first.astype(np.uint32)).astype(np.float64), (last - first + 1) / 2**32
    mean = (value * weight).sum()
    assert abs(mean - 0.5772157) < 1.5e-4
    assert abs((value**2 * weight).sum() - mean**2 - np.pi**2 / 6) < 3e-4
    # Up to half a step of BF16, next to 1 where the density is 0.25.
    assert np.abs(np.exp(-np.exp(-value)) - np.cumsum(weight)).max() < 2e-3


def test_drawn_gumbel_has_the_moments_of_the_distribution(bits):
    g = noise.gumbel(bits).astype(np.float64)
    count = np.sqrt(g.size)
    # Mean Euler's constant, variance pi^2 / 6, fourth central moment 14.6; five standard deviations each.
    assert abs(g.mean() - 0.5772157) < 5 * 1.2825 / count + 1.5e-4
    assert abs(g.var() - np.pi**2 / 6) < 5 * np.sqrt(14.6 - 2.7) / count + 1e-3
    # Tokens of a counter are no more alike than others.
    for distance in (1, 2, 3, 4):
        a, b = g[:, distance:] - g.mean(), g[:, :-distance] - g.mean()
        assert abs((a * b).mean()) < 5 * np.pi**2 / 6 / np.sqrt(a.size)


def test_fp32_gumbel_is_within_its_bound(bits):
    ends = np.concatenate([np.arange(5000), np.arange(2**32 - 5000, 2**32)])
    powers = (1 << np.arange(32, dtype=np.int64))[:, None] + np.arange(-64, 64)
    near_zero = (np.exp(-1) * 2**32 + np.arange(-3000, 3000) * 1000).astype(np.int64)
    for sample in (bits.reshape(-1), *(words.reshape(-1).astype(np.uint32) for words in (ends, powers % 2**32, near_zero))):
        got = noise.gumbel_fp32(sample)
        assert got.dtype == np.float32
        assert np.abs(got.astype(np.float64) - gumbel_exact(sample)).max() < 3e-5


def test_adding_gumbel_noise_samples_the_softmax():
    logits = np.float32([1.0, 0.0, -1.0, 2.0])
    g = noise.gumbel(noise.uniform_bits(1, 0, np.arange(40_000), np.arange(4)))
    frequency = np.bincount((logits + g).argmax(axis=1), minlength=4) / 40_000
    p = np.exp(logits) / np.exp(logits).sum()
    assert (np.abs(frequency - p) < 5 * np.sqrt(p * (1 - p) / 40_000)).all()

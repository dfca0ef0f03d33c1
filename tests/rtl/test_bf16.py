"""BF16 arithmetic in gates equals `unmask.numerics.bf16`, bit for bit, NaN canonical."""

import numpy as np
import pytest

from unmask.numerics import bf16 as numbers
from unmask.rtl import bf16

from .applied import apply
from .patterns import EVERY_BF16, bf16_pairs, fp32

A, B = bf16_pairs(40_000, seed=1)


def values(bits: np.ndarray) -> np.ndarray:
    return numbers.from_bits(bits)


@pytest.mark.parametrize("name", ["add", "multiply"])
@pytest.mark.parametrize("registers", [0, 2])
def test_an_operation_is_correctly_rounded(name: str, registers: int) -> None:
    (found,) = apply(getattr(bf16, name), bf16.PLACES, registers, a=(A, 16), b=(B, 16))
    expected = numbers.to_bits(getattr(numbers, name)(values(A), values(B)))
    wrong = np.flatnonzero(found != expected)
    assert not wrong.size, [(hex(A[i]), hex(B[i]), hex(found[i]), hex(expected[i])) for i in wrong[:5]]


def test_keys_compare_as_the_values_do() -> None:
    (found,) = apply(lambda p, a: bf16.ordered(p.m, a), 0, 0, a=(EVERY_BF16, 16))
    assert (found == numbers.ordered(values(EVERY_BF16))).all()


def test_fp32_is_rounded_to_bf16() -> None:
    bits = np.concatenate(
        [fp32(60_000, seed=3), np.random.default_rng(4).integers(0, 1 << 16, 9999).astype(np.uint32) << np.uint32(16) | 0x8000]
    )
    (found,) = apply(lambda p, a: bf16.round_fp32(p.m, a), 0, 0, a=(bits, 32))
    assert (found == numbers.to_bits(numbers.round(bits.view(np.float32)))).all()

"""A small network, a judge for it, and prompts."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.models.small import small_guide, small_model

from unmask.models.llada import Llada
from unmask.quality.measure import Judge
from unmask.quality.windows import Window


class Letters:
    """A tokenizer of tokens that are one letter each, but for the end token and the mask."""

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(ord("0") + token) for token in ids if token < 38)


@pytest.fixture(scope="module")
def model() -> Llada:
    return small_model()


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge(small_guide(), Letters())  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def windows() -> list[Window]:
    return [Window([1, 2, 3, 4], [5] * 8), Window([9, 8, 7, 6], [11, 12] * 4)]

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from unmask.errors import UnmaskError
from unmask.training.bound import diffusion_bound, exact_count_masks


@dataclass(frozen=True)
class Config:
    mask_token_id: int
    max_sequence_length: int = 16


class Uniform:
    """Gives every token of the vocabulary the same probability."""

    config = Config(mask_token_id=9)

    def hidden(self, ids: Tensor) -> Tensor:
        return torch.zeros(*ids.shape, 1)

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden.expand(*hidden.shape[:-1], 10)


class Counting:
    """Knows a bit of token 0 or 1 by how many positions are still masked, so its exact bound can be enumerated."""

    config = Config(mask_token_id=2)

    def hidden(self, ids: Tensor) -> Tensor:
        masked = (ids == 2).sum(1, keepdim=True).float()
        return torch.stack([masked.expand(ids.shape), torch.ones(ids.shape)], -1)

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden @ torch.tensor([[0.0, 0.3, -50.0], [0.0, 0.1, 0.0]])

    def exact_nats(self, window: list[int]) -> float:
        length, total = len(window), 0.0
        for count in range(1, length + 1):
            for positions in itertools.combinations(range(length), count):
                ids = torch.tensor(window)
                ids[list(positions)] = 2
                log_p = self.logits(self.hidden(ids[None])).log_softmax(-1)[0]
                loss = -sum(log_p[i, window[i]].item() for i in positions)
                total += loss / count / math.comb(length, count)
        return total


def test_a_uniform_model_needs_log2_of_the_vocabulary_per_token() -> None:
    texts = [[1] * 37, [2] * 5]
    bound = diffusion_bound(Uniform(), texts, characters=100, length=16)
    assert bound.bits_per_character == pytest.approx(42 * math.log2(10) / 100, rel=1e-6)
    assert bound.standard_error == pytest.approx(0, abs=1e-6)
    assert (bound.tokens, bound.characters) == (42, 100)


def test_the_estimate_agrees_with_full_enumeration_within_its_error() -> None:
    window = [0, 1, 1, 0, 1, 0]
    bound = diffusion_bound(Counting(), [window] * 400, characters=400, length=6, strata=6)
    assert bound.standard_error < 0.05
    assert abs(bound.bits_per_character - Counting().exact_nats(window) / math.log(2)) < 3 * bound.standard_error


def test_the_estimate_does_not_depend_on_the_batch() -> None:
    texts = [[0, 1] * 20, [1] * 9]
    one, many = (diffusion_bound(Counting(), texts, 49, length=8, batch=batch) for batch in (1, 64))
    assert one.bits_per_character == pytest.approx(many.bits_per_character, rel=1e-6)


def test_masks_have_exactly_their_counts() -> None:
    counts = torch.tensor([0, 1, 5, 8])
    assert torch.equal(exact_count_masks(counts, 8, torch.Generator().manual_seed(0)).sum(1), counts)


def test_every_number_of_masks_is_equally_likely_over_the_strata() -> None:
    seen = torch.zeros(9)

    class Recording(Uniform):
        def hidden(self, ids: Tensor) -> Tensor:
            seen.index_add_(0, (ids == 9).sum(1), torch.ones(len(ids)))
            return super().hidden(ids)

    diffusion_bound(Recording(), [[1] * 8] * 500, 1, length=8, strata=4)
    assert seen[0] == 0
    assert seen[1:].sum() == 2000
    assert (seen[1:] - 250).abs().max() < 70


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strata": 3}, "even number"),
        ({"length": 17}, "17 tokens do not fit the model's context of 16"),
        ({"texts": []}, "no text"),
    ],
)
def test_mistakes_are_named(arguments: dict[str, object], message: str) -> None:
    given = {"texts": [[1]], "characters": 1, "length": 8} | arguments
    with pytest.raises(UnmaskError, match=message):
        diffusion_bound(Uniform(), **given)  # type: ignore[arg-type]

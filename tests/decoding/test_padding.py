"""A padded batch gives each row what it gets alone."""

from __future__ import annotations

import pytest
import torch

from models.small import small_dream, small_model
from unmask.decoding.generate import generate
from unmask.decoding.policy import Policy

PROMPTS = [[5, 6], [1, 2, 3, 4], [7, 8, 9]]
NETWORKS = {"llada": small_model, "dream": small_dream}
POLICIES = {
    "llada": {},
    "guidance": {"cfg_scale": 1.0},
    "threshold": {"commit": "threshold", "threshold": 0.3},
    "entropy": {"remasking": "entropy", "schedule": "timesteps"},
    "freecache": {"cache": "freecache", "remasking": "entropy", "schedule": "shared_timesteps"},
    "prefix": {"cache": "prefix", "commit": "threshold", "threshold": 0.3},
    "dual": {"cache": "dual", "remasking": "maskgit_plus", "schedule": "timesteps"},
}


def padded(prompts: list[list[int]], filler: int = 38) -> tuple[list[list[int]], list[list[int]]]:
    """Prompts of one length, and their attention mask."""
    longest = max(map(len, prompts))
    return [[filler] * (longest - len(ids)) + ids for ids in prompts], [[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts]


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("seed", range(3))
def test_each_row_gets_the_tokens_that_it_gets_alone(network, name, seed):
    model = NETWORKS[network](seed=seed).double()
    policy = Policy(gen_length=8, block_length=4, steps=8, **POLICIES[name])
    prompts, mask = padded(PROMPTS)
    together = generate(model, prompts, policy, attention_mask=mask)
    for row, prompt in enumerate(PROMPTS):
        assert together.new_tokens(row) == generate(model, [prompt], policy).new_tokens()


@pytest.mark.parametrize("network", NETWORKS)
def test_what_the_padding_holds_does_not_matter(network):
    model, policy = NETWORKS[network](), Policy(gen_length=8, block_length=4, steps=8)
    one, other = (generate(model, padded(PROMPTS, filler)[0], policy, attention_mask=padded(PROMPTS)[1]) for filler in (0, 30))
    assert torch.equal(one.ids[:, 4:], other.ids[:, 4:])


@pytest.mark.parametrize("network", NETWORKS)
def test_faithful_mode_disregards_the_mask(network):
    model, policy = NETWORKS[network](), Policy(gen_length=8, block_length=4, steps=8, honour_padding=False)
    prompts, mask = padded(PROMPTS)
    assert torch.equal(generate(model, prompts, policy, attention_mask=mask).ids, generate(model, prompts, policy).ids)


def test_dream_counts_positions_from_its_first_token():
    """Without padding a row of logits depends on the canvas alone; with it, on where the padding ends."""
    model, ids = small_dream().double(), torch.tensor([[1, 2, 3, 4, 5]])
    visible = torch.tensor([[0, 0, 1, 1, 1]])
    with torch.no_grad():
        torch.testing.assert_close(model.hidden(ids, visible)[:, 2:], model.hidden(ids[:, 2:]), rtol=0, atol=1e-12)

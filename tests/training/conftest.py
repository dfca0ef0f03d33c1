"""A corpus and a recipe small enough to train in a second."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from unmask.training.corpus import Corpus, read_speeches, split_speeches
from unmask.training.recipe import Recipe, load_recipe

SPEECHES = Path(__file__).parent.parent / "data" / "speeches"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors this small only wait for each other's threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def corpus() -> Corpus:
    return split_speeches(read_speeches(SPEECHES), held_out=1, seed=0)


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return load_recipe(path)


@pytest.fixture
def guide_recipe(tmp_path: Path) -> Recipe:
    path = tmp_path / "tiny-guide.toml"
    path.write_text(TINY_GUIDE)
    return load_recipe(path)


TINY = """
bound_length = 64

[network]
width = 16
heads = 2
layers = 2
feed_forward = 24
vocabulary = 300
context = 64

[data]
held_out = 1

[optimiser]
muon_learning_rate = 0.02
muon_momentum = 0.95
muon_weight_decay = 0.1
adamw_learning_rate = 0.004
adamw_betas = [0.9, 0.98]
adamw_weight_decay = 0.01
gradient_norm = 1.0

[schedule]
steps = 6
warmup = 2
decay_from = 3
tokens_per_step = 128
lengths = [[0, 16], [4, 32]]
"""

TINY_GUIDE = 'objective = "autoregressive"\n' + TINY.replace("width = 16", "width = 16\nweight_tying = true")

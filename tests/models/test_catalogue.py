"""Published models by their sizes."""

import json
from dataclasses import replace

import pytest

from unmask.errors import UnmaskError
from unmask.models.catalogue import architecture, catalogue
from unmask.models.checkpoint import read_config, shipped_checkpoints

from .small import CONFIG, DREAM_CONFIG


def parameters(name: str) -> int:
    shape = architecture(name)
    kv_width = shape.kv_heads * shape.head_dim
    layer = 2 * shape.width**2 + 2 * kv_width * shape.width + 3 * shape.feed_forward * shape.width + 2 * shape.width
    layer += shape.qkv_bias * (shape.width + 2 * kv_width)
    return shape.layers * layer + (shape.embedding_rows + shape.vocab_size) * shape.width + shape.width


def test_published_models_have_their_published_sizes() -> None:
    assert parameters("llada-8b") == 8_015_581_184
    assert parameters("dream-7b") == 7_615_616_512
    shape = architecture("llada-8b")
    assert (shape.vocab_size, shape.mask_token_id, shape.eos_token_id, shape.shifted_logits) == (126464, 126336, 126081, False)
    assert architecture("dream-7b").shifted_logits


def test_a_folder_needs_no_weights(tmp_path) -> None:
    for config in (CONFIG, DREAM_CONFIG):
        (tmp_path / "config.json").write_text(json.dumps(config.to_json()))
        assert architecture(str(tmp_path)) == config.architecture


def test_shipped_checkpoints_count() -> None:
    for name, folder in shipped_checkpoints().items():
        assert architecture(name) == read_config(folder)[1].architecture


def test_every_name_is_a_network() -> None:
    for name, entry in catalogue().items():
        assert entry["summary"]
        assert replace(architecture(name), layers=1).layers == 1


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnmaskError, match=r"unknown model 'llada-9b': expected one of llada-8b, dream-7b, .*sotu.*, or a folder"):
        architecture("llada-9b")

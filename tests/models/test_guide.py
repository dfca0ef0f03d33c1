"""The causal network: what a row may see, its checkpoint folder, and the vocabulary it must share."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from unmask.errors import UnmaskError
from unmask.models.checkpoint import load_model, load_network, save_model
from unmask.models.guide import GuideNetwork, load_guide
from unmask.models.tokenizer import load_tokenizer
from unmask.quant.arithmetic import MachineArithmetic

from .small import CONFIG, GUIDE_CONFIG, small_guide, small_model


def some_ids(rows: int, length: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 38, (rows, length), generator=torch.Generator().manual_seed(seed))


def save_pair(root: Path) -> tuple[Path, Path]:
    """A guide and the model it is for, with the same tokenizer."""
    for name, model in (("guide", small_guide()), ("model", small_model(dataclasses.replace(CONFIG, embedding_size=40)))):
        save_model(model, root / name)
        tokenizer = {"model": {"vocab": {str(i): i for i in range(40)}}, "added_tokens": []}
        (root / name / "tokenizer.json").write_text(json.dumps(tokenizer))
    return root / "guide", root / "model"


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_no_row_depends_on_a_later_token():
    model, ids = small_guide(), some_ids(1, 12)
    with torch.no_grad():
        whole = model(ids)
        for changed in range(1, 12):
            other = ids.clone()
            other[0, changed:] = (other[0, changed:] + 1) % 38
            assert torch.equal(model(other)[:, :changed], whole[:, :changed])
            assert not torch.equal(model(other)[:, changed], whole[:, changed])


def test_the_machines_formats_stay_near_float32():
    model, ids = small_guide(), some_ids(2, 12)
    with torch.no_grad():
        whole = model(ids)
        model.arithmetic = MachineArithmetic("mxint8", "mxint8", "mxint8")
        assert (model(ids) - whole).abs().max() < 0.05 * whole.abs().max()


def test_the_last_row_is_that_of_the_bidirectional_network_in_a_single_layer():
    guide = small_guide(dataclasses.replace(GUIDE_CONFIG, n_layers=1))
    ids = some_ids(2, 9)
    with torch.no_grad():
        torch.testing.assert_close(guide(ids)[:, -1], guide.network(ids)[:, -1])


def test_padding_is_not_seen():
    model, ids = small_guide().double(), some_ids(1, 7)
    padded = torch.cat((torch.full((1, 3), 38), ids), dim=1)
    mask = torch.tensor([[False] * 3 + [True] * 7])
    with torch.no_grad():
        plain = model.logits(model.hidden(ids, positions=range(3, 10)))
        # The rotary embedding is relative, so where the text begins does not matter beyond rounding.
        torch.testing.assert_close(model(padded, mask)[:, 3:], plain)
        torch.testing.assert_close(plain, model(ids), rtol=1e-4, atol=1e-4)


def test_saved_guide_loads_the_same(tmp_path):
    model = small_guide(dataclasses.replace(GUIDE_CONFIG, tokenizer="sotu"))
    save_model(model, tmp_path)
    loaded = load_network(tmp_path)
    assert isinstance(loaded, GuideNetwork)
    assert loaded.config == model.config
    assert loaded.config.shifted_logits
    with torch.no_grad():
        assert torch.equal(loaded(some_ids(2, 9)), model(some_ids(2, 9)))
    names = load_file(tmp_path / "model.safetensors")
    assert not any(name.endswith("transformer.ff_out.weight") for name in names)


def test_a_guide_is_no_diffusion_model_and_a_diffusion_model_no_guide(tmp_path):
    guide, model = save_pair(tmp_path)
    with pytest.raises(UnmaskError, match="guide holds a unmask-guide network; a llada one"):
        load_model(guide)
    with pytest.raises(UnmaskError, match="model holds a llada network; a guide"):
        load_guide(model, model)


def test_a_guide_of_the_same_vocabulary_loads(tmp_path):
    guide, model = save_pair(tmp_path)
    assert load_guide(guide, model, torch.bfloat16).dtype == torch.bfloat16


def test_a_guide_of_another_vocabulary_is_refused(tmp_path):
    guide, model = save_pair(tmp_path)
    with pytest.raises(UnmaskError, match=r"guide has a vocabulary of 40; the model .*sotu has 4096"):
        load_guide(guide, "sotu")
    edit(guide / "tokenizer.json", added_tokens=[{"id": 39, "content": "<mask>"}])
    with pytest.raises(UnmaskError, match=r"guide has another tokenizer than the model .*model"):
        load_guide(guide, model)
    (guide / "tokenizer.json").write_text("{}")
    with pytest.raises(UnmaskError, match=r"tokenizer\.json is not a readable tokenizer"):
        load_guide(guide, model)


def test_a_guide_may_name_the_tokenizer_that_it_shares(tmp_path):
    save_model(small_guide(dataclasses.replace(GUIDE_CONFIG, tokenizer="sotu")), tmp_path)
    text = "My fellow citizens"
    assert load_tokenizer(tmp_path).encode(text) == load_tokenizer("sotu").encode(text)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tokenizer": 3}, r"config\.json: tokenizer is 3; the name of a shipped checkpoint"),
        ({"d_model": None}, r"config\.json: the key d_model is missing"),
        ({"n_heads": 3}, r"config\.json: d_model 16 must divide into n_heads 3"),
        ({"model_type": "guide"}, r"config\.json: model_type is 'guide'; supported families: .*unmask-guide"),
    ],
)
def test_a_mistake_in_the_configuration_names_file_and_key(tmp_path, values, message):
    guide, model = save_pair(tmp_path)
    edit(guide / "config.json", **values)
    with pytest.raises(UnmaskError, match=message) as caught:
        load_guide(guide, model)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_that_does_not_ship_is_named(tmp_path):
    save_model(small_guide(dataclasses.replace(GUIDE_CONFIG, tokenizer="nowhere")), tmp_path)
    with pytest.raises(UnmaskError, match=r"config\.json: tokenizer is 'nowhere', which is no shipped checkpoint"):
        load_tokenizer(tmp_path)

"""Checkpoint folders: what loads, and the one line that every bad folder gives."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from unmask.errors import UnmaskError
from unmask.models.checkpoint import load_model, resolve_checkpoint, save_model, shipped_checkpoints
from unmask.models.config import LladaConfig
from unmask.models.tokenizer import load_tokenizer

from .small import CONFIG, small_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(small_model(), tmp_path / "model")
    return tmp_path / "model"


def line_of(folder: Path, **kwargs: object) -> str:
    with pytest.raises(UnmaskError) as caught:
        load_model(folder, **kwargs)
    line = str(caught.value)
    assert "\n" not in line
    return line


def edit_config(folder: Path, **values: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    config.update(values)
    (folder / "config.json").write_text(json.dumps(config))


def edit_weights(folder: Path, change) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


def shard(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    placed = {name: f"model-{1 + (i > len(names) // 2)}.safetensors" for i, name in enumerate(names)}
    for file in set(placed.values()):
        save_file({name: weights[name] for name in names if placed[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    (folder / "model.safetensors").unlink()


def test_saved_model_loads_the_same(folder):
    model, loaded = small_model(), load_model(folder)
    assert loaded.config == CONFIG
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert not loaded.training
    assert load_model(folder, torch.bfloat16).dtype == torch.bfloat16
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_shards_load_like_one_file(folder):
    whole = load_model(folder).state_dict()
    shard(folder)
    assert all(torch.equal(tensor, whole[name]) for name, tensor in load_model(folder).state_dict().items())


def test_tied_head_is_not_stored(tmp_path):
    config = LladaConfig(**{**CONFIG.__dict__, "weight_tying": True})
    save_model(small_model(config), tmp_path)
    assert "model.transformer.ff_out.weight" not in load_file(tmp_path / "model.safetensors")
    assert load_model(tmp_path).config.weight_tying


def test_missing_folder_names_the_shipped_checkpoints(tmp_path):
    line = line_of(tmp_path / "nowhere")
    assert "nowhere" in line
    assert all(name in line for name in shipped_checkpoints())


def test_shipped_names_resolve():
    for name, path in shipped_checkpoints().items():
        assert resolve_checkpoint(name) == path


@pytest.mark.parametrize("content", [pickle.dumps([1]), b"PK\x03\x04rest"])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "weights.pt"])
def test_pickles_are_refused_whatever_their_name(folder, name, content):
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(content)
    assert "only safetensors are read" in line_of(folder)
    if name != "model.safetensors":
        assert "only folders with safetensors are read" in line_of(folder / name)


def test_path_of_the_weights_file_is_refused(folder):
    assert "a checkpoint is a folder" in line_of(folder / "model.safetensors")


def test_folder_without_weights(folder):
    (folder / "model.safetensors").unlink()
    assert "holds no weights" in line_of(folder)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_file(folder, keep):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    assert "model.safetensors is not a complete safetensors file" in line_of(folder)


def test_missing_shard(folder):
    shard(folder)
    (folder / "model-2.safetensors").unlink()
    assert "model-2.safetensors is missing" in line_of(folder)


def test_index_must_stay_in_its_folder(folder):
    shard(folder)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"] = dict.fromkeys(index["weight_map"], "../elsewhere.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "weight_map must map" in line_of(folder)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda w: w.pop("model.transformer.ln_f.weight"), "tensor model.transformer.ln_f.weight is missing"),
        (lambda w: w.update(extra=torch.zeros(1)), "tensor extra is unexpected"),
        (
            lambda w: w.update({"model.transformer.wte.weight": torch.zeros(3, 16)}),
            "tensor model.transformer.wte.weight has shape [3, 16]; expected [48, 16]",
        ),
        (lambda w: w["model.transformer.wte.weight"].fill_(float("nan")), "tensor model.transformer.wte.weight holds NaN"),
        (lambda w: w["model.transformer.wte.weight"][0].fill_(float("inf")), "model.transformer.wte.weight holds infinite values"),
        (
            lambda w: w.update({"model.transformer.ln_f.weight": torch.zeros(16, dtype=torch.int8)}),
            "tensor model.transformer.ln_f.weight has dtype int8",
        ),
    ],
)
def test_bad_tensor_is_named(folder, change, expected):
    edit_weights(folder, change)
    line = line_of(folder)
    assert expected in line
    assert "model.safetensors" in line


def test_missing_tensor_in_a_shard_is_named(folder):
    shard(folder)
    weights = load_file(folder / "model-1.safetensors")
    gone = sorted(weights)[0]
    weights.pop(gone)
    save_file(weights, folder / "model-1.safetensors")
    assert f"model-1.safetensors: tensor {gone} is missing" in line_of(folder)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"block_type": "sequential"}, "block_type is 'sequential'; supported: 'llama'"),
        ({"include_bias": True}, "include_bias is True; supported: False"),
        ({"activation_type": "gelu"}, "activation_type is 'gelu'"),
        ({"alibi": True}, "alibi is True"),
        ({"layer_norm_type": "default"}, "layer_norm_type is 'default'"),
        ({"d_model": None}, "the key d_model is missing"),
        ({"d_model": 18}, "d_model 18 must divide into n_heads 4"),
        ({"n_heads": 0}, "n_heads is 0; it must be positive"),
        ({"n_heads": "four"}, "n_heads is 'four'; an integer is needed"),
        ({"rope_theta": float("nan")}, "rope_theta is nan; a number is needed"),
        ({"n_kv_heads": 3}, "n_heads 4 must be a multiple of n_kv_heads 3"),
        ({"mask_token_id": 40}, "mask_token_id is 40, outside the vocabulary of 40"),
        ({"weight_tying": "yes"}, "weight_tying is 'yes'"),
        ({"model_type": "gpt2"}, "model_type is 'gpt2'; supported families: "),
    ],
)
def test_unsupported_configuration_is_named(folder, values, expected):
    edit_config(folder, **values)
    line = line_of(folder)
    assert expected in line
    assert "config.json" in line


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x80"])
def test_config_that_is_no_json_object(folder, text):
    (folder / "config.json").write_text(text, encoding="latin-1")
    assert "config.json" in line_of(folder)


def test_config_missing(folder):
    (folder / "config.json").unlink()
    assert "config.json is missing" in line_of(folder)


def test_keys_that_do_not_change_the_maths_are_ignored(folder):
    edit_config(folder, attention_dropout=0.1, architectures=["LLaDAModelLM"])
    assert load_model(folder).config == CONFIG


def test_unwritable_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnmaskError, match="cannot write the checkpoint"):
        save_model(small_model(), tmp_path / "file")


def test_tokenizer_round_trip_and_errors(folder):
    with pytest.raises(UnmaskError, match=r"tokenizer\.json is missing"):
        load_tokenizer(folder)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(UnmaskError, match=r"tokenizer\.json is not a readable tokenizer"):
        load_tokenizer(folder)
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    backend = Tokenizer(models.WordLevel({"one": 0, "two": 1, "<?>": 2}, unk_token="<?>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens([AddedToken("<mask>", special=True)])
    backend.save(str(folder / "tokenizer.json"))
    tokenizer = load_tokenizer(folder)
    assert tokenizer.vocab_size == 4
    assert tokenizer.encode("two one") == [1, 0]
    assert tokenizer.decode([1, 3, 0]) == "two one"
    assert tokenizer.decode([1, 3], skip_special=False) == "two <mask>"

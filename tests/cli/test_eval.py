"""`unmask eval` prints one table or document, goes on where it was stopped, and names mistakes."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from unmask import save_model
from unmask.cli.record import Record
from unmask.errors import UnmaskError
from unmask.models.guide import GuideConfig, GuideNetwork

from .conftest import SPEECH, VOCABULARY

ROW = {
    "name",
    "settings",
    "tokens",
    "tokens_per_forward",
    "steps",
    "forwards",
    "positions_fed",
    "guide_forwards",
    "perplexity",
    "bits_per_character",
    "bigram_bits_per_character",
    "distinct_2",
    "agreement",
    "wall_seconds",
    "generated",
}


def _guide(checkpoint, folder, vocabulary=VOCABULARY):
    torch.manual_seed(1)
    config = GuideConfig(
        d_model=32,
        n_heads=2,
        n_layers=1,
        mlp_hidden_size=64,
        vocab_size=vocabulary,
        embedding_size=vocabulary,
        max_sequence_length=64,
        mask_token_id=vocabulary - 1,
        eos_token_id=vocabulary - 2,
        rope_theta=1e4,
        weight_tying=True,
    )
    model = GuideNetwork(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    save_model(model, folder)
    shutil.copy(checkpoint / "tokenizer.json", folder)
    return folder


@pytest.fixture(scope="module")
def arguments(checkpoint, tmp_path_factory):
    guide, speeches = tmp_path_factory.mktemp("guide"), tmp_path_factory.mktemp("speeches")
    shutil.copy(SPEECH, speeches)
    sizes = ("--prompts", 2, "--prompt-tokens", 6, "--gen-length", 8, "--bound-windows", 2)
    return ("eval", "--model", checkpoint, "--guide", _guide(checkpoint, guide), "--speeches", speeches, *sizes)


def test_the_document_has_its_fields_and_the_table_its_rows(unmask, arguments):
    done = unmask(*arguments, "--policies", "fast-dllm:threshold=0.01,guided", "--json")
    assert done.status == 0, done.stderr
    document = json.loads(done.stdout)
    assert document.keys() == {"model", "guide", "corpus", "settings", "bound", "reference", "policies", "sweep", "published"}
    assert [row["name"] for row in document["policies"]] == ["llada", "fast-dllm:threshold=0.01", "guided"]
    assert all(row.keys() == ROW for row in document["policies"])
    assert document["policies"][0]["agreement"] == 1
    assert document["policies"][2]["guide_forwards"] > 0
    assert document["bound"]["length"] == 64
    assert document["corpus"]["characters"] == len(SPEECH.read_text().strip())
    assert document["reference"]["tokens"] == 8

    done = unmask(*arguments, "--policies", "guided", "--no-bound")
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["policy", "llada", "guided", "the"]


def test_a_sweep_prints_formats_and_published_figures_and_goes_on(unmask, arguments, tmp_path, monkeypatch):
    monkeypatch.setattr("unmask.quality.sweep.FORMAT_SETS", (None, *_formats()))
    output = tmp_path / "sweep.json"
    sweep = (*arguments, "--sweep", "--policies", "llada,fast-dllm")
    whole = json.loads(unmask(*sweep, "--json").stdout)
    first, second = whole["sweep"]["formats"][0], whole["sweep"]["bounds"][0]
    assert (first["formats"], second["formats"], first["agreement"]) == (None, None, 1)
    assert len(whole["sweep"]["logits"]) == 18

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("unmask.quality.sweep.formats_row", stop)
        stopped = unmask(*sweep, "--output", output)
    assert stopped.status == 130
    assert "fp64" in stopped.stdout, "what is finished is shown"
    assert len(json.loads(output.read_text())["sweep"]["logits"]) == 18

    with monkeypatch.context() as patched:
        patched.setattr("unmask.quality.sweep.logits_rows", stop)
        done = unmask(*sweep, "--output", output)
    assert done.status == 0, done.stderr
    assert "arXiv 2601.20706v2" in done.stdout
    assert _timeless(json.loads(output.read_text())) == _timeless(whole)


def test_policies_go_on_with_the_same_rows(unmask, arguments, tmp_path, monkeypatch):
    output = tmp_path / "eval.json"
    both = (*arguments, "--no-bound", "--policies", "llada,default", "--output", output)
    whole = json.loads(unmask(*both, "--json").stdout)
    kept = {**whole, "policies": whole["policies"][:1]}
    output.write_text(json.dumps(kept))
    assert _timeless(json.loads(unmask(*both, "--json").stdout)) == _timeless(whole)


def test_two_commands_do_not_write_over_each_other(tmp_path):
    path = tmp_path / "record.json"
    first = Record({"of": 1}, {"rows": []}, path)
    first.add("rows", rows=[{"name": "a"}])
    second = Record({"of": 1}, {"rows": []}, path)
    assert second.row("rows", name="a") == {"name": "a"}
    second.add("rows", rows=[{"name": "b"}])
    with pytest.raises(UnmaskError, match="changed by someone else"):
        first.set("rows", [])
    assert [row["name"] for row in json.loads(path.read_text())["rows"]] == ["a", "b"]


def _formats():
    from unmask.machine.config import Formats

    return (Formats(weights="mxint4", activations="mxint8", kv="mxint4", smoothing="baos"),)


def _timeless(value):
    if isinstance(value, dict):
        return {key: _timeless(inner) for key, inner in value.items() if key != "wall_seconds"}
    return [_timeless(inner) for inner in value] if isinstance(value, list) else value


def test_mistakes_are_named(unmask, arguments, checkpoint, tmp_path, monkeypatch):
    assert "either --corpus or --speeches" in unmask("eval").is_mistake()
    assert "unknown policy 'best': expected one of default, llada" in unmask(*arguments, "--policies", "best").is_mistake()
    assert "does not exist" in unmask("eval", "--corpus", tmp_path / "no", "--guide", arguments[4]).is_mistake()
    other = _guide(checkpoint, tmp_path, 400)
    assert "vocabulary of 400" in unmask(*arguments, "--guide", other).is_mistake()
    assert "expected at least 99999" in unmask(*arguments, "--prompts", 99999).is_mistake()
    assert "context has 64" in unmask(*arguments, "--gen-length", 64, "--policies", "llada").is_mistake()

    output = tmp_path / "kept.json"
    assert unmask(*arguments, "--no-bound", "--policies", "llada", "--output", output).status == 0
    again = (*arguments, "--no-bound", "--policies", "llada", "--output", output)
    assert "settings.seed is 17 there, 4 here" in unmask(*again, "--seed", 4).is_mistake()
    output.write_text("{")
    assert "not a record of this command" in unmask(*again).is_mistake()

    monkeypatch.setattr("unmask.models.checkpoint.shipped_checkpoints", lambda: {"sotu": checkpoint})
    assert "no guide ships" in unmask("eval", "--speeches", SPEECH.parent).is_mistake()

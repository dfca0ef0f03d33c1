"""`unmask quantize` and `unmask formats`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unmask.models.checkpoint import load_network
from unmask.numerics import mx
from unmask.quant.layout import read_formats

from .conftest import Command


def test_a_quantized_checkpoint_loads_and_says_its_formats(unmask: Command, checkpoint: Path, tmp_path: Path):
    chosen = ("--weights", "mxfp4", "--activations", "mxint8", "--kv", "mxint4", "--logits", "mxfp8")
    done = unmask("quantize", checkpoint, *chosen, "--output", tmp_path / "packed", "--json")
    assert done.status == 0
    facts = json.loads(done.stdout)
    assert facts["formats"] == read_formats(tmp_path / "packed")
    assert facts["formats"] == {"weights": "mxfp4", "activations": "mxint8", "kv": "mxint4", "logits": "mxfp8", "embedding": "bf16"}
    assert facts["packed"] == 15
    assert facts["converted_bytes"] == facts["source_bytes"] > facts["stored_bytes"]
    assert (tmp_path / "packed" / "tokenizer.json").read_bytes() == (checkpoint / "tokenizer.json").read_bytes()
    assert load_network(tmp_path / "packed").config == load_network(checkpoint).config


def test_the_result_is_told_in_words(unmask: Command, checkpoint: Path, tmp_path: Path):
    done = unmask("quantize", checkpoint, "--weights", "mxint8", "--output", tmp_path / "packed")
    assert done.stdout.startswith("15 tensors in mxint8, 6 in bf16\n")
    assert f"machine checkpoint in {tmp_path / 'packed'}" in done.stdout
    assert done.stderr == ""


def test_mistakes_are_one_line(unmask: Command, checkpoint: Path, tmp_path: Path):
    where = ("--output", tmp_path / "packed")
    assert "weights: unknown format 'fp4'" in unmask("quantize", checkpoint, "--weights", "fp4", *where).is_mistake()
    assert "no checkpoint" in unmask("quantize", tmp_path / "nowhere", "--weights", "mxfp4", *where).is_mistake()
    assert "exists already" in unmask("quantize", checkpoint, "--weights", "mxfp4", "--output", checkpoint).is_mistake()
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_says_how_to_go_on(unmask: Command, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(_chunk: object, _form: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("unmask.quant.stream.to_mx", interrupted)
        done = unmask("quantize", checkpoint, "--weights", "mxfp4", "--output", tmp_path / "packed")
    assert done.status == 130
    assert "the same command goes on" in done.stderr
    assert not (tmp_path / "packed").exists()
    assert unmask("quantize", checkpoint, "--weights", "mxfp4", "--output", tmp_path / "packed").status == 0


def test_formats_are_listed_with_the_errors_of_the_functions(unmask: Command):
    listed = json.loads(unmask("formats", "--json").stdout)
    rows = {row["name"]: row for row in listed["formats"]}
    assert list(rows) == ["bf16", *mx.FORMATS]
    assert (
        rows["mxfp8"] | {"element": "e4m3", "bits_per_value": 8.25, "max": 448, "min_normal": 2**-6, "min_positive": 2**-9} == rows["mxfp8"]
    )
    assert rows["mxint4"] | {"block": 32, "element_bits": 4, "max": 1.75, "min_normal": None, "min_positive": 0.25} == rows["mxint4"]
    worst = {(f["name"], f["domain"]): f for f in listed["functions"]}
    assert 0.5 < worst["exp", "all"]["ulp"] < 0.512
    assert worst["silu", "x > -88.5"]["ulp"] < 2.09
    assert worst["silu", "x <= -88.5"]["absolute"] < 2.0**-120
    for name, domain in (("reciprocal", "all"), ("reciprocal_fp32", "all"), ("rsqrt_fp32", "x > 0")):
        assert worst[name, domain]["ulp"] <= 0.5
    table = unmask("formats").stdout
    assert all(name in table for name in (*mx.FORMATS, "exp", "rsqrt_fp32", "0.5111"))


def test_what_a_format_does_to_the_weights_is_measured(unmask: Command, checkpoint: Path, tmp_path: Path):
    listed = json.loads(unmask("formats", "--checkpoint", checkpoint, "--json").stdout)["formats"]
    errors = {row["name"]: row["weight_error"] for row in listed if row["name"] != "bf16"}
    assert 0 < errors["mxint8"] < errors["mxfp8"] < errors["mxfp4"] < errors["mxint4"] < 0.2
    unmask("quantize", checkpoint, "--weights", "mxfp4", "--output", tmp_path / "packed")
    assert "is a machine checkpoint" in unmask("formats", "--checkpoint", tmp_path / "packed").is_mistake()

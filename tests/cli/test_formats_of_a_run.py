"""The formats of a run: those of the machine, of a machine checkpoint, or given."""

import json
from pathlib import Path

from .conftest import Command

SHORT = ("--gen-length", "4", "--block-length", "4", "--steps", "2")


def formats(unmask: Command, *arguments) -> dict:
    done = unmask("generate", "Fellow citizens,", *SHORT, "--machine", "nano", "--json", "--check", *arguments)
    assert done.status == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["check"]["identical"]
    return result["formats"]


def test_options_replace_the_machines_formats(unmask: Command, checkpoint: Path):
    given = {"weights": "mxfp4", "activations": "mxfp8", "kv": "mxint4", "logits": "mxfp8", "smoothing": "baos"}
    found = formats(unmask, "--model", checkpoint, *(text for role, name in given.items() for text in (f"--{role}", name)))
    assert found == {**given, "softmax_sums": "lanes"}


def test_a_machine_checkpoint_brings_its_formats(unmask: Command, checkpoint: Path, tmp_path: Path):
    folder = tmp_path / "packed"
    assert unmask("quantize", checkpoint, "--output", folder, "--weights", "mxfp8", "--kv", "mxint4", "--logits", "mxfp8").status == 0
    found = formats(unmask, "--model", folder, "--kv", "mxint8")
    assert (found["weights"], found["kv"], found["logits"]) == ("mxfp8", "mxint8", "mxfp8")
    mistake = unmask("generate", "Fellow", "--model", folder, "--weights", "mxint4").is_mistake()
    assert "holds weights in mxfp8; expected no other --weights, not mxint4" in mistake


def test_an_unknown_format_is_named(unmask: Command, checkpoint: Path):
    assert "kv: " in unmask("generate", "Fellow", "--model", checkpoint, "--kv", "mxint5").is_mistake()

"""A machine file may ask for smoothed keys and values; commands find the checkpoint's scales themselves."""

from __future__ import annotations

import json
from importlib import resources

import pytest

SHORT = ["--gen-length", "4", "--block-length", "4", "--steps", "2"]


@pytest.fixture
def machine(tmp_path):
    """Writes a machine file: `small` with a 4-bit cache and a smoothing method."""
    text = (resources.files("unmask.machine") / "presets" / "small.toml").read_text("utf-8")

    def write(method: str) -> str:
        path = tmp_path / f"{method}.toml"
        path.write_text(text.replace('kv = "mxint8"', f'kv = "mxint4"\nsmoothing = "{method}"'))
        return str(path)

    return write


@pytest.mark.parametrize("method", ["static", "baos-bf16"])
def test_generate_checks_a_smoothed_cache(unmask, machine, method):
    done = unmask("generate", "My fellow citizens,", "--machine", machine(method), "--check", "--json", *SHORT)
    assert done.status == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["check"]["identical"]
    assert result["cycles_by_phase"]["smoothing"] > 0


def test_compile_puts_the_scales_into_the_program(unmask, machine, tmp_path):
    out = tmp_path / "step.unmask"
    assert unmask("compile", "My fellow citizens,", "-o", out, "--machine", machine("static"), *SHORT).status == 0
    assert unmask("run", out).status == 0


def test_an_unknown_method_is_named(unmask, machine):
    message = unmask("generate", "My fellow citizens,", "--machine", machine("rotation"), *SHORT).is_mistake()
    assert "formats.smoothing" in message
    assert "'baos'" in message

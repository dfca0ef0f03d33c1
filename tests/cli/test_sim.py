"""`unmask sim` and `unmask bench gemm`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from .conftest import Command

SHORT = ("--prompt", 16, "--generate", 16, "--block", 8)


def test_a_checkpoint_folder_is_timed_from_its_config_alone(unmask: Command, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((checkpoint / "config.json").read_text())
    found = json.loads(unmask("sim", tmp_path, *SHORT, "--cache", "dual", "--batch", 2, "--json").stdout)
    assert (found["batch"], found["prompt"], found["generate"], found["block"], found["steps"]) == (2, 16, 16, 8, 16)
    assert found["tokens"] == 32
    assert {step: run["runs"] for step, run in found["by_step"].items()} == {"rows-32": 2, "rows-8": 14}
    assert sum(phase["cycles"] for phase in found["by_phase"].values()) == found["cycles"]
    assert found["policy"]["remasking"] == "low_confidence"
    assert found["wall_seconds"].keys() == {"compile", "timing"}


def test_formats_and_tokens_per_step_are_stated(unmask: Command) -> None:
    options = ("--policy", "fast-dllm", "--tokens-per-step", 4, "--weights", "mxfp4", "--kv", "mxint4", "--logits", "mxfp8")
    found = json.loads(unmask("sim", "sotu", *SHORT, *options, "--json").stdout)
    assert found["formats"] | {"weights": "mxfp4", "kv": "mxint4", "logits": "mxfp8"} == found["formats"]
    assert found["steps"] == 4
    assert any("a step commits 4 tokens of a sequence on average" in line for line in found["assumptions"])


def test_the_command_of_a_run_makes_it_again(unmask: Command) -> None:
    found = json.loads(unmask("sim", "sotu", *SHORT, "--cache", "dual", "--json").stdout)
    name, *words = shlex.split(found["command"])
    assert name == "unmask"
    assert json.loads(unmask(*words).stdout)["cycles"] == found["cycles"]
    assert words[-3:] == ["--cache", "dual", "--json"]


def test_tables_name_every_phase_engine_and_layer(unmask: Command) -> None:
    done = unmask("sim", "sotu", *SHORT, "--machine", "published-512")
    for name in ("attention", "feed-forward", "lm-head", "sampling-1-confidence", "matrix", "vector", "transformer", "rows-32", "HBM"):
        assert name in done.stdout
    assert "assumed: every step of a kind takes as long as its first" in done.stdout
    assert "tokens/s" in done.stdout


def test_plots_are_pictures_and_pages_of_their_own(unmask: Command, tmp_path: Path) -> None:
    found = json.loads(unmask("sim", "sotu", *SHORT, "--plot", tmp_path / "new", "--json").stdout)
    assert {Path(path).name for path in found["plots"]} == {"roofline.png", "roofline.html", "steps.png", "steps.html"}
    for path in map(Path, found["plots"]):
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")
        else:
            page = path.read_text()
            assert "<svg" in page
            assert "feed-forward" in page
            assert "src=" not in page


def test_a_folder_for_plots_that_cannot_be_is_one_line(unmask: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot make the folder" in unmask("sim", "sotu", "--plot", tmp_path / "file").is_mistake()


@pytest.mark.parametrize("name", ["llada-8b", "dream-7b", "llada-moe-7b-a1b"])
def test_full_size_models_are_timed(unmask: Command, name: str) -> None:
    options = ("--machine", "published-2048", "--cache", "dual", "--schedule", "timesteps", "--generate", 64, "--block", 32)
    found = json.loads(unmask("sim", name, *options, "--json").stdout)
    assert found["steps"] == 64
    assert found["wall_seconds"]["compile"] + found["wall_seconds"]["timing"] < 60
    assert 10 < found["tokens_per_second"] < 1000
    assert any("experts take rows alike" in line for line in found["assumptions"]) == ("moe" in name)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("llada-9b",), "unknown model 'llada-9b': expected one of llada-8b, dream-7b"),
        (("llada-8b",), "machine small cannot run this model and policy: the matrix SRAM cannot hold"),
        (("sotu", "--tokens-per-step", 2), "tokens per step are scheduled"),
        (("sotu", "--commit", "guided", "--block", 256), "commit 'guided' also runs a guide"),
        (("sotu", "--machine", "large"), "unknown machine 'large'"),
        (("sotu", "--weights", "mxfp5"), "unknown MX format 'mxfp5'"),
        (("sotu", "--prompt", 500), "the prompt is too long"),
        (("sotu", "--block", 48), "block_length 48 does not divide gen_length 256"),
    ],
)
def test_mistakes_are_one_line(unmask: Command, arguments: tuple[object, ...], match: str) -> None:
    assert match in unmask("sim", *arguments).is_mistake()


def test_bench_gemm_prints_cycles_beside_the_ideal(unmask: Command) -> None:
    found = json.loads(unmask("bench", "gemm", 256, 4096, 4096, "--machine", "published-2048", "--json").stdout)
    assert found["ideal_cycles"] == max(found["ideal_compute_cycles"], found["ideal_memory_cycles"])
    assert found["ideal_compute_cycles"] == 256 * 4096 * 4096 // (2048 * 64)
    assert found["ideal_cycles"] <= found["cycles"] < 1.3 * found["ideal_cycles"]
    assert found["wall_seconds"] > 0
    assert found["startup_seconds"] > 0
    assert "at best" in unmask("bench", "gemm", 64, 64, 64).stdout


def test_bench_gemm_s_mistakes_are_one_line(unmask: Command) -> None:
    assert "unknown machine" in unmask("bench", "gemm", 1, 1, 1, "--machine", "none").is_mistake()
    assert "cannot run this product" in unmask("bench", "gemm", 1, 2**20 - 1, 32).is_mistake()

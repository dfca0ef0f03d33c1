"""`unmask generate`: what it prints where, the contract of its JSON, and the mistakes that a user will make."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import sys
from importlib import resources
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import unmask.compiler.check
from unmask import Machine, load_tokenizer
from unmask.cli.text import printable
from unmask.machine.cycle import time_program
from unmask.models.tokenizer import Tokenizer

from .conftest import SPEECH, VOCABULARY, Command, Done

PROMPT = "Fellow citizens,"
SHORT = ["--machine", "nano", "--gen-length", "8", "--block-length", "4", "--steps", "4"]


@pytest.fixture
def generate(unmask: Command, checkpoint: Path) -> Command:
    return lambda *options: unmask("generate", PROMPT, "--model", checkpoint, *SHORT, *options)


def parsed(done: Done) -> dict:
    assert (done.status, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout)


def test_the_json_states_text_costs_and_check(generate: Command, checkpoint: Path) -> None:
    result = parsed(generate("--temperature", "0.3", "--check", "--json"))
    assert isinstance(result["text"], str)
    assert len(result["tokens"]) == 8
    assert all(isinstance(token, int) and 0 <= token < VOCABULARY - 1 for token in result["tokens"])
    kept = result["tokens"][: (*result["tokens"], VOCABULARY - 2).index(VOCABULARY - 2)]
    assert result["text"] == load_tokenizer(checkpoint).decode(kept)
    assert result["steps"] == len(result["commits"]) == 4
    committed = {at: token for step in result["commits"] for at, token in zip(step["positions"], step["tokens"], strict=True)}
    assert [committed[at] for at in sorted(committed)] == result["tokens"]
    machine = Machine.preset("nano")
    assert isinstance(result["cycles"], int)
    assert result["cycles"] > 0
    assert result["seconds_at_clock"] == pytest.approx(result["cycles"] / (machine.clock_ghz * 1e9))
    assert result["tokens_per_second"] == pytest.approx(8 / result["seconds_at_clock"])
    assert {"matrix", "vector", "load"} <= result["cycles_by_engine"].keys()
    assert all(isinstance(cycles, int) and 0 <= cycles <= result["cycles"] for cycles in result["cycles_by_engine"].values())
    assert all(isinstance(cycles, int) and cycles >= 0 for cycles in result["cycles_by_phase"].values())
    assert sum(result["cycles_by_phase"].values()) == result["cycles"]
    sampling = sum(cycles for phase, cycles in result["cycles_by_phase"].items() if phase.startswith("sampling"))
    assert result["sampling_share"] == pytest.approx(sampling / result["cycles"])
    assert result["transformer_share"] + result["sampling_share"] == pytest.approx(1)
    assert result["check"]["identical"] is True
    assert isinstance(result["check"]["float32_agreement"], float)
    assert 0 <= result["check"]["float32_agreement"] <= 1
    assert result["policy"]["temperature"] == 0.3
    assert result["temperature_bf16"] == 0.30078125


def test_every_backend_states_the_same_keys(generate: Command) -> None:
    npu, torch = parsed(generate("--json")), parsed(generate("--backend", "torch", "--json"))
    assert npu.keys() == torch.keys()
    assert npu["check"] is None
    assert {name for name, value in torch.items() if value is None} >= {
        "cycles",
        "seconds_at_clock",
        "tokens_per_second",
        "cycles_by_engine",
        "cycles_by_phase",
        "temperature_bf16",
        "check",
    }
    assert len(torch["tokens"]) == 8
    assert torch["forwards"] == torch["steps"] == 4


def test_the_seed_decides_the_text(generate: Command) -> None:
    for backend in ("npu", "torch"):
        first, again, other = (parsed(generate("--backend", backend, "--seed", seed, "--json"))["text"] for seed in (1, 1, 2))
        assert first == again
        assert first != other


def test_the_check_fails_the_command_when_pytorch_commits_otherwise(generate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    different = unmask.compiler.check.Check(identical=False, first_difference=2, float32_agreement=0.5)
    monkeypatch.setattr(unmask.compiler.check, "check", lambda *_, **__: different)
    done = generate("--check", "--json")
    assert done.status == 1
    assert json.loads(done.stdout)["check"] == {"identical": False, "first_difference": 2, "float32_agreement": 0.5}
    done = generate("--check")
    assert done.status == 1
    assert "different from PyTorch in the machine's number formats from step 3 on" in done.stderr
    assert "shares 50.0% of the commits" in done.stderr


def test_without_a_terminal_standard_output_holds_the_text_alone(generate: Command) -> None:
    result, done = parsed(generate("--json")), generate("--check")
    assert done.status == 0
    assert done.stdout == f"{PROMPT}{printable(result['text'])}\n"
    lines = done.stderr.splitlines()
    assert [line.split(":")[0] for line in lines[:4]] == [f"step {step}/4, {8 - 2 * step} masks left" for step in range(1, 5)]
    for expected in (f"{result['cycles']:,} cycles", "sampling-1-confidence", "busy cycles", "check: identical"):
        assert expected in done.stderr
    assert f"{result['tokens_per_second']:,.0f} tokens/s" in lines
    assert all(len(line) <= 80 for line in lines[4:])


def test_a_long_run_prints_eight_lines_of_canvas(generate: Command) -> None:
    done = generate("--backend", "torch", "--gen-length", "20", "--steps", "20")
    steps = [line for line in done.stderr.splitlines() if line.startswith("step ")]
    assert len(steps) == 8
    assert steps[-1].startswith("step 20/20, 0 masks left: ")
    assert "(PyTorch, float32)" in done.stderr


def test_on_a_terminal_everything_is_on_standard_output(
    unmask: Command, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    done = unmask("generate", PROMPT, "--model", checkpoint, *SHORT, "--check")
    assert (done.status, done.stderr) == (0, "")
    for expected in ("step 4 of 4", " text ", "tokens/s", "sampling-1-confidence", "identical"):
        assert expected in done.stdout


def test_names_and_text_are_never_markup_nor_control_characters(
    unmask: Command, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = tmp_path / "machine.toml"
    machine.write_text(preset().replace('name = "nano"', 'name = "[/bold]n[red]"'))
    decode = Tokenizer.decode
    monkeypatch.setattr(Tokenizer, "decode", lambda *given, **options: "[/b]\x1b[2J\n" + decode(*given, **options))

    def phased(*given: object, **options: object) -> object:
        timing = time_program(*given, **options)
        timing.phases["[/x]"] = 0
        return timing

    monkeypatch.setattr("unmask.compiler.host.time_program", phased)
    done = unmask("generate", "[/i]Fellow", "--model", checkpoint, *SHORT, "--machine", machine)
    assert done.status == 0
    assert "on machine [/bold]n[red]\n" in done.stderr
    assert "[/x] " in done.stderr
    assert done.stdout.startswith("[/i]Fellow[/b]\ufffd[2J\n")
    assert "\x1b" not in done.stdout + done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("step ")]) == 4


def preset() -> str:
    return (resources.files("unmask.machine") / "presets" / "nano.toml").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--machine", "huge"], "unknown machine 'huge': expected one of"),
        (["--block-length", "3"], "block_length 3 does not divide gen_length 8"),
        (["--steps", "3"], "steps 3 is not a multiple of the 2 blocks"),
        (["--cache", "dkv"], "cache 'dkv' has no program: it feeds rows that are not consecutive"),
        (["--backend", "torch", "--check"], "--check compares the machine with PyTorch"),
        (["--model", "/nowhere"], "no checkpoint '/nowhere'"),
        (["--temperature", "-1"], "--temperature"),
        (["--temperature", "nan"], "temperature"),
        (["--temperature", "1e39"], "temperature"),
        (["--gen-length", "0"], "--gen-length"),
        (["--gen-length", "many"], "--gen-length"),
        (["--seed", "-1"], "--seed"),
        (["--seed", str(2**32)], "--seed"),
        (["--remasking", "foo"], "--remasking"),
        (["--backend", "fpga"], "--backend"),
        (["--frobnicate"], "No such option: --frobnicate (see `unmask generate --help`)"),
    ],
)
def test_an_option_that_is_wrong_is_named(generate: Command, options: list[str], message: str) -> None:
    assert message in generate(*options).is_mistake()


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "the prompt is empty"),
        (" \n", "the prompt is empty"),
        ("\udcff", "the prompt is not valid UTF-8"),
        ("Fellow <|mask|> citizens", "the prompt spells the special token <|mask|>"),
        ("Fellow citizens<|endoftext|>", "the prompt spells the special token <|endoftext|>"),
        (SPEECH.read_text()[:1000], "context"),
    ],
)
@pytest.mark.parametrize("backend", ["npu", "torch"])
def test_a_prompt_that_cannot_be_continued_is_refused(unmask: Command, checkpoint: Path, backend: str, prompt: str, message: str) -> None:
    assert message in unmask("generate", prompt, "--model", checkpoint, *SHORT, "--backend", backend).is_mistake()


def test_a_missing_prompt_is_named(unmask: Command) -> None:
    assert "Missing argument 'PROMPT'" in unmask("generate").is_mistake()


@pytest.mark.parametrize("memory", ["matrix_kib", "float_words"])
def test_a_machine_that_cannot_hold_a_tile_is_refused(generate: Command, tmp_path: Path, memory: str) -> None:
    lines = [f"{memory} = 1" if line.startswith(memory) else line for line in preset().splitlines()]
    machine = tmp_path / "tight.toml"
    machine.write_text("\n".join(lines))
    assert "machine nano cannot run this model" in generate("--machine", machine).is_mistake()


def test_a_damaged_checkpoint_is_named(generate: Command, checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(checkpoint, folder)
    weights = folder / "model.safetensors"
    whole, tensors = weights.read_bytes(), load_file(weights)
    name = sorted(tensors)[0]

    save_file({other: tensor for other, tensor in tensors.items() if other != name}, weights)
    assert f"tensor {name} is missing" in generate("--model", folder).is_mistake()
    save_file({**tensors, name: tensors[name][1:].contiguous()}, weights)
    assert f"tensor {name} has shape" in generate("--model", folder).is_mistake()
    for size in (0, 5, 100, len(whole) - 1):
        weights.write_bytes(whole[:size])
        assert "model.safetensors is not a complete safetensors file" in generate("--model", folder).is_mistake()
    weights.write_bytes(pickle.dumps(io.BytesIO(b"not run")))
    assert "is a pickle under another name" in generate("--model", folder).is_mistake()
    weights.rename(folder / "pytorch_model.bin")
    assert "holds only a pickle" in generate("--model", folder).is_mistake()
    assert "is a pickle" in generate("--model", folder / "pytorch_model.bin").is_mistake()


def test_a_checkpoint_without_its_tokenizer_is_named(generate: Command, checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint, tmp_path / "mute")
    (tmp_path / "mute" / "tokenizer.json").unlink()
    assert "tokenizer.json is missing" in generate("--model", tmp_path / "mute").is_mistake()

"""`unmask compile`, `run`, `disasm`, `asm`, `isa` and `machines`, on a network small enough to write here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from unmask import Machine, Policy, Program, compile, load_model, load_tokenizer, simulate
from unmask.cli.main import app
from unmask.errors import UnmaskError
from unmask.isa.manual import manual
from unmask.machine.config import presets
from unmask.models.tokenizer import Tokenizer

from .conftest import Command

PROMPT = "Fellow citizens,"
POLICY = Policy(gen_length=8, block_length=4, steps=4, temperature=0.5, remasking="random", seed=3)
OPTIONS = [
    "--machine",
    "nano",
    "--gen-length",
    "8",
    "--block-length",
    "4",
    "--steps",
    "4",
    "--temperature",
    "0.5",
    "--remasking",
    "random",
    "--seed",
    "3",
]


@pytest.fixture(scope="module")
def program(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("programs") / "step.unmask"
    ok("compile", PROMPT, "-o", path, "--model", checkpoint, *OPTIONS)
    return path


def ok(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def mistake(*arguments: object) -> str:
    """The one line of a mistake."""
    with pytest.raises(UnmaskError) as caught:
        CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "unmask.cli.main", *(str(argument) for argument in arguments)]


def test_compile_sums_up_the_program_that_it_wrote(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "step.unmask"
    summary = json.loads(ok("compile", PROMPT, "-o", path, "--model", checkpoint, "--json", *OPTIONS))
    written = Program.load(path)
    ids = load_tokenizer(checkpoint).encode(PROMPT)
    direct = compile(load_model(checkpoint), POLICY, Machine.preset("nano"), len(ids))
    assert (written.words == direct.words).all()
    assert written.about == {**json.loads(json.dumps(direct.about)), "checkpoint": str(checkpoint.resolve()), "prompt_ids": ids}
    assert summary["instructions"] == len(direct.words)
    assert summary["file_bytes"] == path.stat().st_size
    assert summary["hbm_bytes"] == direct.hbm_bytes
    assert summary["sram_high_water"] == direct.about["sram_high_water"]
    assert all(0 < used <= summary["sram_capacity"][name] for name, used in summary["sram_high_water"].items())
    [step] = summary["entries"].values()
    assert step["cycles_per_step"] == simulate(direct, ids).cycles // summary["steps"]
    table = ok("compile", PROMPT, "-o", path, "--model", checkpoint, *OPTIONS)
    assert f"{step['cycles_per_step']:,}" in table
    assert [entry.name for entry in tmp_path.iterdir()] == ["step.unmask"]


def test_run_gives_what_compile_and_simulate_give(checkpoint: Path, program: Path) -> None:
    tokenizer = load_tokenizer(checkpoint)
    ids = tokenizer.encode(PROMPT)
    direct = compile(load_model(checkpoint), POLICY, Machine.preset("nano"), len(ids))
    for options, seed in (([], 3), (["--seed", "8"], 8)):
        done = simulate(direct, ids, seed=seed)
        result = json.loads(ok("run", program, "--json", *options))
        assert (result["tokens"], result["cycles"], result["seed"]) == (done.new_tokens(), done.cycles, seed)
    assert json.loads(ok("run", program, "--json"))["tokens"] != result["tokens"]
    assert f"{done.cycles:,} cycles" in ok("run", program)


def test_run_and_generate_give_the_same_tokens(checkpoint: Path, program: Path) -> None:
    generated = json.loads(ok("generate", PROMPT, "--model", checkpoint, "--json", *OPTIONS))
    ran = json.loads(ok("run", program, "--json"))
    assert {name: ran[name] for name in ("text", "tokens", "cycles", "steps")} == {
        name: generated[name] for name in ("text", "tokens", "cycles", "steps")
    }


def test_run_takes_another_prompt_of_the_same_length(checkpoint: Path, program: Path) -> None:
    tokenizer = load_tokenizer(checkpoint)
    ids = tokenizer.encode(PROMPT)
    other = tokenizer.decode([ids[-1], *ids[:-1]])
    assert len(tokenizer.encode(other)) == len(ids)
    result = json.loads(ok("run", program, other, "--json"))
    assert result["tokens"] == simulate(Program.load(program), tokenizer.encode(other)).new_tokens()
    assert f"compiled for a prompt of {len(ids)} tokens" in mistake("run", program, PROMPT + " and friends")


def test_without_the_checkpoint_run_prints_ids_and_says_why(program: Path, tmp_path: Path) -> None:
    moved = Program.load(program)
    moved.about["checkpoint"] = str(tmp_path / "gone")
    moved.save(tmp_path / "moved.unmask")
    result = json.loads(ok("run", tmp_path / "moved.unmask", "--json"))
    assert result["tokens"] == json.loads(ok("run", program, "--json"))["tokens"]
    assert result["text"] is None
    assert "gone" in result["no_text_because"]
    assert " ".join(map(str, result["tokens"])) in ok("run", tmp_path / "moved.unmask")
    assert "cannot read the prompt: no checkpoint" in mistake("run", tmp_path / "moved.unmask", PROMPT)


def test_disasm_then_asm_gives_the_identical_program(program: Path, tmp_path: Path) -> None:
    text, again = tmp_path / "step.s", tmp_path / "again.unmask"
    ok("disasm", program, "-o", text)
    assert text.read_text() == ok("disasm", program)
    assert "# phase lm-head\n" in text.read_text()
    ok("asm", text, "-o", again, "--like", program)
    assert Program.load(again).phases == Program.load(program).phases
    assert again.read_bytes() == program.read_bytes()


def test_an_edited_listing_runs(program: Path, tmp_path: Path) -> None:
    text, edited = tmp_path / "step.s", tmp_path / "edited.unmask"
    text.write_text("# phase overture\nSYNC engine=1\n" + ok("disasm", program))
    ok("asm", text, "-o", edited, "--like", program)
    assert Program.load(edited).phases[:2] == ["overture", Program.load(program).phases[0]]
    assert json.loads(ok("run", edited, "--json"))["tokens"] == json.loads(ok("run", program, "--json"))["tokens"]


def test_bad_assembly_names_its_line_and_writes_nothing(program: Path, tmp_path: Path) -> None:
    text, out = tmp_path / "bad.s", tmp_path / "bad.unmask"
    for content, message in (
        ("# phase a\nSYNC engine=1\nJUMP r1\nHALT\n", "bad.s: line 3: unknown instruction 'JUMP'"),
        ("# phase a\nSYNC motor=1\nHALT\n", "bad.s: line 2: SYNC has no operand 'motor'"),
        ("# phase a\nSYNC engine=1\n", "bad.s: a program ends in HALT"),
    ):
        text.write_text(content)
        assert message in mistake("asm", text, "-o", out, "--like", program)
    text.write_bytes(b"\xff\xfe")
    assert "bad.s: not a text file" in mistake("asm", text, "-o", out, "--like", program)
    assert "none.s: cannot read: No such file" in mistake("asm", tmp_path / "none.s", "-o", out, "--like", program)
    assert not out.exists()


def test_what_is_no_program_is_one_line(program: Path, tmp_path: Path) -> None:
    cut, other = tmp_path / "cut.unmask", tmp_path / "other.unmask"
    cut.write_bytes(program.read_bytes()[:5000])
    other.write_text("HALT\n")
    for name in ("run", "disasm"):
        assert "not a program file but a folder" in mistake(name, tmp_path)
        assert "no such program file" in mistake(name, tmp_path / "missing.unmask")
        assert "cut.unmask: not a readable unmask program" in mistake(name, cut)
        assert "other.unmask: not a readable unmask program" in mistake(name, other)
    bare = Program.load(program)
    bare.about = {"model": bare.about["model"]}
    bare.save(cut)
    assert "it does not state its policy, positions" in mistake("run", cut)
    bare.about = {**Program.load(program).about}
    del bare.about["prompt_ids"]
    bare.save(cut)
    assert "the program holds no prompt" in mistake("run", cut)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--machine", "huge"], "unknown machine 'huge': expected one of"),
        (["--block-length", "3"], "block_length 3 does not divide gen_length 8"),
        (["--steps", "3"], "steps 3 is not a multiple of the 2 blocks"),
        (["--gen-length", "800", "--steps", "200"], "the prompt is too long"),
        (["--model", "/nowhere"], "no checkpoint '/nowhere'"),
    ],
)
def test_compile_names_the_option_that_is_wrong(checkpoint: Path, tmp_path: Path, options: list[str], message: str) -> None:
    assert message in mistake("compile", PROMPT, "-o", tmp_path / "x.unmask", "--model", checkpoint, *OPTIONS, *options)
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_cannot_be_written_is_one_line(checkpoint: Path, program: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("")
    for path in (tmp_path, tmp_path / "no" / "x", tmp_path / "text" / "x", Path(os.devnull)):
        for arguments in (["compile", PROMPT, "--model", checkpoint], ["disasm", program], ["isa"], ["asm", program, "--like", program]):
            assert f"{path}: cannot write" in mistake(*arguments, "-o", path)
    assert Path(os.devnull).is_char_device()
    assert [entry.name for entry in tmp_path.iterdir()] == ["text"]
    assert "the prompt is empty" in mistake("compile", " ", "-o", tmp_path / "x", "--model", checkpoint)


def test_isa_prints_the_manual(tmp_path: Path) -> None:
    assert ok("isa") == manual()
    ok("isa", "-o", tmp_path / "isa.md")
    assert (tmp_path / "isa.md").read_text() == manual()


def test_machines_lists_every_preset_or_shows_one() -> None:
    every = json.loads(ok("machines", "--json"))
    assert [machine["name"] for machine in every] == presets()
    for machine in every:
        array = machine["matrix"]
        sub_arrays = array["rows"] * array["mlen"] // array["blen"]
        assert machine["peak_multiplies_per_cycle"] == sub_arrays * array["blen"] ** 2
        assert json.loads(ok("machines", machine["name"], "--json")) == machine
        assert machine["name"] in ok("machines")
        assert "matrix.mlen" in ok("machines", machine["name"])
    assert "unknown machine 'huge'" in mistake("machines", "huge")


def test_the_file_of_a_machine_is_the_machine_again(tmp_path: Path) -> None:
    for name in ("small", "a6000-class"):
        (tmp_path / "mine.toml").write_text(ok("machines", name, "--toml"))
        assert Machine.load(str(tmp_path / "mine.toml")) == Machine.preset(name)
    assert "expected a NAME" in mistake("machines", "--toml")


def test_the_light_commands_load_no_network() -> None:
    code = """
import sys
from unmask.cli.main import app
try:
    app({})
except SystemExit:
    assert not {{"torch", "numba"}} & sys.modules.keys()
"""
    for arguments in (["--help"], ["isa"], ["machines"], ["compile", "--help"]):
        subprocess.run([sys.executable, "-c", code.format(arguments)], check=True, stdout=subprocess.DEVNULL, timeout=60)


@pytest.mark.parametrize(
    ("where", "key", "value", "message"),
    [
        ("machine", "wings", 2, "wings"),
        ("policy", "wings", 2, "wings"),
        ("policy", "steps", "many", "steps"),
        ("model", "eos_token_id", None, "eos_token_id"),
        ("model", "mask_token_id", "last", "mask_token_id"),
        ("about", "policy", 3, "policy"),
        ("about", "model", [], "mask_token_id"),
        ("about", "positions", "all", ""),
        ("about", "prompt_ids", "Fellow", "prompt_ids"),
        ("about", "prompt_ids", [1.5], "prompt_ids"),
    ],
)
def test_a_program_of_another_version_is_one_line_that_names_it(
    unmask: Command, program: Path, tmp_path: Path, where: str, key: str, value: object, message: str
) -> None:
    damaged = Program.load(program)
    {"machine": damaged.machine, "about": damaged.about, **damaged.about}[where][key] = value
    damaged.save(tmp_path / "damaged.unmask")
    done = unmask("run", tmp_path / "damaged.unmask")
    done.is_mistake()
    assert done.stderr.startswith(f"unmask: {tmp_path / 'damaged.unmask'}: ")
    assert message in done.stderr


def test_run_refuses_a_prompt_that_spells_a_special_token(unmask: Command, program: Path) -> None:
    assert "spells the special token <|mask|>" in unmask("run", program, "Fellow <|mask|>").is_mistake()
    assert "the prompt is empty" in unmask("run", program, "").is_mistake()


def test_run_shows_control_characters_of_a_model_replaced(unmask: Command, program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tokenizer, "decode", lambda *_, **__: " \x1b[2Jgone\x07\u202e\n")
    done = unmask("run", program)
    assert done.stdout.startswith("\ufffd[2Jgone\ufffd\ufffd\n")
    assert json.loads(unmask("run", program, "--json").stdout)["text"] == " \x1b[2Jgone\x07\u202e\n"


def test_golden_without_a_case_is_a_mistake(unmask: Command, tmp_path: Path) -> None:
    assert "no golden case found" in unmask("golden", tmp_path).is_mistake()
    assert "no such file or folder" in unmask("golden", tmp_path / "none").is_mistake()


def test_golden_keeps_a_skipped_case_on_one_line(unmask: Command, tmp_path: Path) -> None:
    (tmp_path / "case.json").write_text(json.dumps({"source": "[b]nobody knows[/b] " * 10, "prompt_ids": [], "events": []}))
    rows = [line for line in unmask("golden", tmp_path).stdout.splitlines() if line.startswith("│")]
    assert len(rows) == 1
    assert "skipped" in rows[0]
    assert "[b]nobody" in rows[0]
    assert len(rows[0]) <= 80


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["frobnicate"], "No such command 'frobnicate' (see `unmask --help`)"),
        (["--frobnicate"], "No such option: --frobnicate"),
        (["disasm", "--frobnicate"], "No such option: --frobnicate"),
        (["compile", "a prompt"], "Missing option '--output'"),
        (["run"], "Missing argument 'PROGRAM'"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_a_mistake(unmask: Command, arguments: list[str], message: str) -> None:
    assert message in unmask(*arguments).is_mistake()


def test_without_a_command_there_is_help_and_status_2(unmask: Command) -> None:
    done, asked = unmask(), unmask("--help")
    assert (done.status, asked.status) == (2, 0)
    assert done.stderr == asked.stderr == ""
    assert "generate" in done.stdout
    assert done.stdout.strip() == asked.stdout.strip()


def test_a_mistake_is_one_line_and_status_2() -> None:
    done = subprocess.run(command("machines", "huge"), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("unmask: unknown machine 'huge': expected one of")
    assert done.stderr.count("\n") == 1


def test_an_interrupt_is_one_line_and_status_130(program: Path) -> None:
    code = """
import unmask.compiler.host
from unmask.cli.main import run
def interrupted(*arguments, **options):
    raise KeyboardInterrupt
unmask.compiler.host.simulate = interrupted
run()
"""
    done = subprocess.run([sys.executable, "-c", code, "run", str(program)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr == "unmask: interrupted\n"


@pytest.mark.parametrize("arguments", [["isa"], ["machines"], ["--help"]])
def test_a_reader_that_goes_away_is_no_mistake(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command(*arguments), stdout=write, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(write)
    assert done.stderr == ""
    assert done.returncode == 1

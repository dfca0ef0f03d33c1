"""From options to a policy: what is given, then the named policy, then the defaults; templates and batches on the command line."""

from __future__ import annotations

import inspect
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from unmask import Policy, load_model, load_tokenizer, save_model
from unmask.cli.compile import compile_prompt
from unmask.cli.generate import generate
from unmask.cli.policy import policy_from
from unmask.cli.template import read_template
from unmask.decoding.cache.registry import caches
from unmask.decoding.policies import NAMED
from unmask.models.dream import Dream, DreamConfig
from unmask.models.guide import GuideConfig, GuideNetwork

from .conftest import VOCABULARY, Command

MASK, EOS = VOCABULARY - 1, VOCABULARY - 2
SHORT = ["--backend", "torch", "--gen-length", "8", "--block-length", "4", "--steps", "4"]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, Policy(64, 32, 64, temperature=0.7, remasking="random", seed=17)),
        ({"gen_length": 8}, Policy(8, 8, 8, temperature=0.7, remasking="random", seed=17)),
        ({"temperature": 0.0, "seed": 1}, Policy(64, 32, 64, remasking="random", seed=1)),
        ({"commit": "threshold", "threshold": 0.8}, Policy(64, 32, 64, commit="threshold", threshold=0.8, seed=17)),
        ({"commit": "guided"}, Policy(64, 64, 64, commit="guided", seed=17)),
        ({"policy": "llada"}, Policy(64, 32, 64, seed=17)),
        ({"policy": "fast-dllm", "cache": "none"}, Policy(64, 32, 64, commit="threshold", seed=17)),
        (
            {"policy": "guided", "gen_length": 16, "accept_top_k": 3},
            Policy(16, 16, 16, commit="guided", cache="prompt", accept_top_k=3, seed=17),
        ),
    ],
)
def test_what_is_given_comes_first_then_the_named_policy_then_the_defaults(chosen, expected):
    assert policy_from({**dict.fromkeys(("policy", "steps", "remasking")), **chosen}) == expected


@pytest.mark.parametrize(
    ("gaps", "chosen", "sizes"),
    [
        ("..xx..", {}, (6, 6, 4)),
        ("..xx..", {"block_length": 2}, (6, 2, 6)),
        ("..xx..", {"block_length": 3, "steps": 2}, (6, 3, 2)),
        (".", {"policy": "fast-dllm"}, (1, 1, 1)),
    ],
)
def test_a_template_is_one_block_with_a_step_per_gap_token(gaps, chosen, sizes):
    policy = policy_from(chosen, [place == "." for place in gaps])
    assert (policy.gen_length, policy.block_length, policy.steps) == sizes
    assert policy.suppress_eos
    assert not policy_from({**chosen, "suppress_eos": False}, [place == "." for place in gaps]).suppress_eos


def test_generate_and_compile_have_the_same_decoding_options():
    ours, theirs = (set(inspect.signature(command).parameters) for command in (generate, compile_prompt))
    fields = set(inspect.signature(Policy).parameters) - {"eps", "exclude_mask", "honour_padding"}
    assert fields | {"policy"} <= ours & theirs


def test_help_names_every_cache(unmask: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "300")
    text = unmask("generate", "--help").stdout
    line = next(line for line in text.splitlines() if "--cache" in line)
    assert all(name in line for name in ("none", *caches()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--policy", "greedy"], "unknown policy 'greedy': expected one of llada, "),
        (["--cache", "rolling"], "cache is 'rolling'; supported: none, dkv, "),
        (["--commit", "some"], "--commit"),
        (["--schedule", "cosine"], "--schedule"),
        (["--commit", "threshold", "--threshold", "0"], "threshold is 0.0; it must lie in (0, 1]"),
        (["--threshold", "0.5"], "--threshold belongs to --commit threshold; commit is 'schedule'"),
        (["--factor", "2"], "--factor belongs to --commit factor; commit is 'schedule'"),
        (["--accept-top-k", "2"], "--accept-top-k belongs to --commit guided"),
        (["--commit", "threshold", "--schedule", "timesteps"], "--schedule belongs to --commit schedule; commit is 'threshold'"),
        (["--eot-token-id", "7"], "--eot-token-id belongs to --defer-eos"),
        (["--defer-eos"], "--defer-eos takes confidence from end-of-text tokens; expected --remasking low_confidence, not 'random'"),
        (["--top-p", "0.5"], "top_p belongs to Dream's scorers"),
        (["--kv", "mxint4"], "--kv is for the machine; --backend torch computes in float32"),
        (["--smoothing", "baos"], "--smoothing is for the machine; --backend torch computes in float32"),
        (["--guide", "someone"], "--guide belongs to --commit guided; commit is 'schedule'"),
        (["--commit", "threshold", "--remasking", "random"], "commit 'threshold' compares probabilities"),
        (["--template", "a [3]"], "a template holds its prompt: expected either PROMPT or --template"),
    ],
)
def test_an_option_that_does_not_fit_is_one_line(unmask: Command, checkpoint: Path, options: list[str], message: str):
    assert message in unmask("generate", "Fellow", "--model", checkpoint, *SHORT, *options).is_mistake()


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("no gap", "the template has no gap: expected text with [n]"),
        ("", "the template has no gap"),
        (r"a \[3]", "the template has no gap"),
        ("a [0] b", "a gap of 0 tokens"),
        ("a [x] b", "'[x]' in the template is no gap: expected [n] with a number of tokens"),
        ("a [-3] b", "'[-3]' in the template is no gap"),
        ("a [3", "'[' in the template is no gap"),
        ("a [] b", "'[]' in the template is no gap"),
        ("a [63] b", "the template needs 65 positions or more; the model's context has 64"),
        ("a [999999999]", "the model's context has 64"),
        ("a [9999999999]", "in the template is no gap"),
        ("a <|mask|> [3]", "the template spells the special token <|mask|>"),
        ("[3]<|endoftext|>", "the template spells the special token <|endoftext|>"),
        ("a [3] \udcff", "the template is not valid UTF-8"),
    ],
)
def test_a_template_that_cannot_be_filled_is_one_line(unmask: Command, checkpoint: Path, template: str, message: str):
    assert message in unmask("generate", "--model", checkpoint, "--backend", "torch", "--template", template).is_mistake()


def test_a_template_decides_how_much_is_new(unmask: Command, checkpoint: Path):
    done = unmask("generate", "--model", checkpoint, "--template", "a [3]", "--gen-length", "8")
    assert "the template decides how many tokens are new: expected no --gen-length" in done.is_mistake()


def test_a_space_before_a_gap_belongs_to_the_gap(checkpoint: Path):
    tokenizer = load_tokenizer(checkpoint)
    with_space, without = (read_template(text, tokenizer, (MASK, EOS), MASK, 64) for text in ("My [2] fellow [1].", "My[2] fellow[1]."))
    assert with_space == without
    assert read_template("[1] [1]", tokenizer, (MASK, EOS), MASK, 64).content == [MASK, MASK]
    assert read_template("My  [1]", tokenizer, (MASK, EOS), MASK, 64).prompt == "My "


def test_a_template_is_read_as_tokens(checkpoint: Path):
    tokenizer = load_tokenizer(checkpoint)
    parsed = read_template(r"My \[dear] fellow[2][1] the state]\ [3]", tokenizer, (MASK, EOS), MASK, 64)
    assert parsed.prompt == "My [dear] fellow"
    assert parsed.prompt_ids == tokenizer.encode("My [dear] fellow")
    between = tokenizer.encode(" the state]\\")
    assert parsed.content == [MASK] * 3 + between + [MASK] * 3
    assert parsed.gaps == (range(2), range(2, 3), range(3 + len(between), 6 + len(between)))
    assert [gap for gap, is_gap in zip(parsed.content, parsed.is_gap, strict=True) if is_gap] == [MASK] * 6
    assert MASK not in [token for token, is_gap in zip(parsed.content, parsed.is_gap, strict=True) if not is_gap]


@pytest.mark.parametrize("options", [[], ["--policy", "fast-dllm"], ["--policy", "dream"], ["--cache", "dkv", "--block-length", "1"]])
@pytest.mark.parametrize("template", ["My fellow citizens, [4] the state of our Union is [3].", "[2] and [1]"])
def test_a_filled_template_keeps_its_text(unmask: Command, checkpoint: Path, template: str, options: list[str]):
    arguments = ["generate", "--model", checkpoint, "--backend", "torch", "--template", template, *options]
    done = unmask(*arguments, "--json")
    assert (done.status, done.stderr) == (0, "")
    result, tokenizer = json.loads(done.stdout), load_tokenizer(checkpoint)
    given = read_template(template, tokenizer, (MASK, EOS), MASK, 64)
    assert result["prompt"] == given.prompt
    assert [new for new, was in zip(result["tokens"], given.content, strict=True) if was != MASK] == [t for t in given.content if t != MASK]
    assert MASK not in result["tokens"]
    assert EOS not in result["tokens"]
    assert result["text"] == tokenizer.decode([*given.prompt_ids, *result["tokens"]])
    assert result["gaps"] == [tokenizer.decode([result["tokens"][place] for place in gap]) for gap in given.gaps]
    printed = unmask(*arguments)
    assert printed.stdout.startswith(given.prompt)
    assert "░░" in printed.stderr


def test_progress_is_counted_in_masks_where_steps_are_not_known(unmask: Command, checkpoint: Path):
    done = unmask("generate", "Fellow", "--model", checkpoint, *SHORT, "--commit", "threshold", "--threshold", "1e-9")
    lines = [line for line in done.stderr.splitlines() if line.startswith("step ")]
    assert [line.split(":")[0] for line in lines] == ["step 1, 4 masks left", "step 2, 0 masks left"]


def test_several_prompts_are_a_batch(unmask: Command, checkpoint: Path):
    prompts, options = ["Fellow citizens,", "The", "Gentlemen of the Senate"], ["--policy", "llada", *SHORT, "--model", checkpoint]
    together = json.loads(unmask("generate", *prompts, *options, "--json").stdout)
    alone = [json.loads(unmask("generate", prompt, *options, "--json").stdout) for prompt in prompts]
    for name in ("prompt", "prompt_tokens", "text", "tokens"):
        assert together[name] == [result[name] for result in alone]
    for name in ("steps", "forwards", "policy"):
        assert together[name] == alone[0][name]
    assert together.keys() == alone[0].keys()
    done = unmask("generate", *prompts, *options)
    assert done.stdout == "".join(f"{prompt}{result['text']}\n" for prompt, result in zip(prompts, alone, strict=True))
    assert next(line for line in done.stderr.splitlines() if line.startswith("step ")).count(" | ") == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["--template", "My [2] the state[1].", "--policy", "fast-dllm"],
        ["--template", "[2] and [1]", "--temperature", "0"],
        ["Fellow citizens,", "The", "--gen-length", "4", "--policy", "llada"],
        ["The", "--gen-length", "4", "--policy", "dream"],
        ["The", "--gen-length", "4", "--policy", "flashdlm", "--cfg-scale", "1"],
    ],
)
def test_the_machine_decodes_as_pytorch_does(unmask: Command, checkpoint: Path, arguments: list[str]):
    done = unmask("generate", *arguments, "--model", checkpoint, "--machine", "nano", "--check", "--json")
    assert (done.status, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert result["check"]["identical"]
    reference = json.loads(unmask("generate", *arguments, "--model", checkpoint, "--backend", "torch", "--json").stdout)
    assert result.keys() == reference.keys()
    assert result["prompt"] == reference["prompt"]


@pytest.fixture(scope="module")
def guide(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A guide of the same tokenizer."""
    folder = tmp_path_factory.mktemp("guide")
    torch.manual_seed(1)
    network = GuideNetwork(GuideConfig(**{**asdict(load_model(checkpoint).config), "max_sequence_length": 96})).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    save_model(network, folder)
    shutil.copy(checkpoint / "tokenizer.json", folder)
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ["The", "--gen-length", "8"],
        ["The", "--gen-length", "8", "--accept-top-k", "100", "--cache", "none"],
        ["--template", "My [3] the state[3]."],
    ],
)
def test_a_guide_decides_on_the_machine_and_in_pytorch(unmask: Command, checkpoint: Path, guide: Path, arguments: list[str]):
    decoding = ["--model", checkpoint, "--policy", "guided", "--guide", guide, "--json"]
    for backend in (["--backend", "torch"], ["--machine", "nano", "--check"]):
        done = unmask("generate", *arguments, *decoding, *backend)
        assert (done.status, done.stderr) == (0, "")
        result = json.loads(done.stdout)
        assert MASK not in result["tokens"]
        assert 1 <= result["steps"] <= 8
        assert result["check"] is None or result["check"]["identical"]
    several = unmask("generate", "The", "A", "--gen-length", "8", *decoding, "--backend", "torch")
    assert "commit 'guided' decodes one row; the batch has 2" in several.is_mistake()


@pytest.fixture(scope="module")
def dream(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Dream network of the same tokenizer."""
    folder = tmp_path_factory.mktemp("dream")
    torch.manual_seed(2)
    network = Dream(DreamConfig(VOCABULARY, 32, 64, 2, 2, 1, 64, MASK, EOS)).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    save_model(network, folder)
    shutil.copy(checkpoint / "tokenizer.json", folder)
    return folder


@pytest.mark.parametrize("options", [["--policy", "dream"], ["--policy", "fast-dllm", "--threshold", "0.2"], ["--policy", "flashdlm"]])
def test_a_dream_checkpoint_decodes_on_both_backends(unmask: Command, dream: Path, options: list[str]):
    for backend in (["--backend", "torch"], ["--machine", "nano", "--check"]):
        done = unmask("generate", "--template", "The [3] of[2].", "--model", dream, *options, "--json", *backend)
        assert (done.status, done.stderr) == (0, "")
        result = json.loads(done.stdout)
        assert MASK not in result["tokens"]
        assert result["check"] is None or result["check"]["identical"]


def test_without_a_guide_the_models_own_is_looked_for(unmask: Command, checkpoint: Path):
    done = unmask("generate", "The", "--model", checkpoint, "--policy", "guided", "--gen-length", "8")
    assert f"no checkpoint '{checkpoint}-guide'" in done.is_mistake()


def test_policies_are_listed_with_settings_and_papers(unmask: Command):
    listed = json.loads(unmask("policies", "--json").stdout)
    assert [entry["name"] for entry in listed] == list(NAMED)
    assert all(entry["paper"] and entry["summary"] for entry in listed)
    table = unmask("policies").stdout
    for name in NAMED:
        assert name in table
    assert "--cache dual" in table


@pytest.mark.parametrize("command", [["generate"], ["compile", "-o", "step.unmask"]])
def test_a_guide_is_no_diffusion_model(unmask: Command, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert "sotu-guide holds a guide; a diffusion model is needed here" in unmask(*command, "Fellow", "--model", "sotu-guide").is_mistake()
    assert list(tmp_path.iterdir()) == []

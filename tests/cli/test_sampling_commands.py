"""`unmask bench sampling`, and `--sampling` where programs are compiled."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Command

SMALL = ("bench", "sampling", "--machine", "small", "--batch", 2, "--block", 4, "--vocab", 200, "--width", 64)
STREAMING = ("four-phase", "single-pass", "fused")


@pytest.mark.parametrize("program", STREAMING)
def test_a_workload_is_timed_and_taken_apart(unmask: Command, program: str) -> None:
    found = json.loads(unmask(*SMALL, "--program", program, "--temperature", 0.5, "--json").stdout)
    assert found.keys() >= {"cycles", "ms", "breakdown", "hbm_bytes", "bound_ms", "sram_bytes"}
    assert sum(found["breakdown"].values()) == found["cycles"]
    assert (found["batch"], found["block"], found["vocabulary"], found["temperature"]) == (2, 4, 200, 0.5)
    assert "published" not in found
    assert ("added" in found) == (program == "fused")


def test_published_figures_stand_beside_their_own_workload(unmask: Command) -> None:
    done = unmask("bench", "sampling", "--program", "single-pass")
    assert "published, arXiv 2601.20706v1" in done.stdout
    assert "477,696" in done.stdout
    found = json.loads(unmask("bench", "sampling", "--program", "single-pass", "--json").stdout)
    assert (found["published"]["ms"], found["published"]["cycles"]) == (0.99, 991_038)


def test_scaling_is_drawn(unmask: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unmask.cli import sampling_plots

    for name in ("_BATCHES", "_STEPS", "_VOCABULARIES", "_CHUNKS"):
        monkeypatch.setattr(sampling_plots, name, getattr(sampling_plots, name)[-2:])
    found = json.loads(
        unmask(*SMALL, "--machine", "published-2048", "--program", "single-pass", "--plot", tmp_path / "new", "--json").stdout
    )
    assert [Path(path).read_bytes()[1:4] for path in found["plots"]] == [b"PNG"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--program", "two-phase"), "sampling program 'two-phase': expected one of general, four-phase, single-pass, fused"),
        (("--program", "fused", "--chunk", 64), "a chunk belongs to the program 'four-phase', not 'fused'"),
        (("--program", "four-phase", "--chunk", 33), "chunk 33: expected a positive multiple of 32"),
        (("--machine", "nowhere"), "unknown machine 'nowhere'"),
    ],
)
def test_a_mistake_is_one_line(unmask: Command, options: tuple[object, ...], message: str) -> None:
    assert message in unmask(*SMALL, *options).is_mistake()


@pytest.mark.parametrize("sampling", STREAMING)
def test_a_generation_by_each_program_is_checked(unmask: Command, checkpoint: Path, sampling: str) -> None:
    decoding = ("--gen-length", 8, "--block-length", 8, "--steps", 4, "--remasking", "low_confidence")
    found = json.loads(
        unmask("generate", "My fellow", "--model", checkpoint, *decoding, "--sampling", sampling, "--check", "--json").stdout
    )
    assert found["check"]["identical"]


def test_a_program_that_cannot_serve_a_policy_says_so(unmask: Command, checkpoint: Path) -> None:
    done = unmask("generate", "My fellow", "--model", checkpoint, "--policy", "dream", "--gen-length", 8, "--sampling", "fused")
    assert "do not serve" in done.is_mistake()
    assert "--sampling is for the machine" in unmask("generate", "a", "--backend", "torch", "--sampling", "fused").is_mistake()


def test_sim_times_the_sampling_that_is_asked_for(unmask: Command) -> None:
    short = ("sim", "sotu", "--prompt", 16, "--generate", 16, "--block", 8, "--json")
    cycles = {sampling: json.loads(unmask(*short, "--sampling", sampling).stdout)["cycles"] for sampling in ("four-phase", "fused")}
    assert cycles["fused"] < cycles["four-phase"]

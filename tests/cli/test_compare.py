"""`unmask compare`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unmask.baselines.gpu import Gpu
from unmask.machine.config import Machine
from unmask.report.comparison import with_fewer_multiplies

from .conftest import Command

SHORT = ("--prompt", 16, "--generate", 16, "--block", 8, "--machine", "small")


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text((checkpoint / "config.json").read_text())
    return tmp_path


def test_ratios_are_those_of_the_two_sides_and_both_do_the_same(unmask: Command, folder: Path) -> None:
    found = json.loads(unmask("compare", folder, *SHORT, "--batch", 2, "--json").stdout)
    npu, gpu = found["npu"], found["gpu"]
    assert npu["tokens_per_s"] * npu["seconds"] == pytest.approx(32)
    assert gpu["tokens_per_s"] * gpu["seconds"] == pytest.approx(32)
    for name in ("tokens_per_s", "tokens_per_j"):
        assert found["ratio"][name] == pytest.approx(npu[name] / gpu[name])
    assert found["sampling_share"] == {side: found[side]["sampling_share"] for side in ("npu", "gpu")}
    assert 0 < found["sampling_share"]["npu"] < 1
    assert (found["machine_area_mm2"], found["machine_power_w"]) == (npu["area_mm2"], npu["power_w"])
    assert found["published"]["ratio"] == {"tokens_per_s": 4.91, "tokens_per_j": 23.3}


def test_targets_hold_at_their_batch_alone(unmask: Command, folder: Path) -> None:
    assert json.loads(unmask("compare", folder, *SHORT, "--batch", 2, "--json").stdout)["targets"] == []
    found = json.loads(unmask("compare", folder, *SHORT, "--gpu", "h100", "--json").stdout)
    assert [(target["name"], target["target"]) for target in found["targets"]] == [("tokens_per_s", 4), ("tokens_per_j", 30)]
    fixed = found["bounds"]["fixed_energy"]
    assert fixed["allowed_j"] * 30 == pytest.approx(found["npu"]["energy_j"] * found["ratio"]["tokens_per_j"])


@pytest.mark.parametrize(("model", "machine", "met"), [(None, "small", True), ("sotu", "nano", False)])
def test_a_missed_target_says_what_bounds_it_and_one_that_is_met_does_not(
    unmask: Command, folder: Path, model: str | None, machine: str, met: bool
) -> None:
    arguments = ("compare", model or folder, *SHORT, "--machine", machine, "--gpu", "h100")
    found = json.loads(unmask(*arguments, "--json").stdout)
    shown = unmask(*arguments).stdout
    reasons = ("with the busiest unit of every phase", "the target leaves the machine")
    for target, unit, reason in zip(found["targets"], ("tokens/s", "tokens/J"), reasons, strict=True):
        assert target["met"] == (target["found"] >= target["target"]) == met
        assert f"target {target['target']:g}x {unit}: {'met' if met else 'missed'}" in shown
        assert (reason in shown) != met
    assert found["bounds"]["speedup_if_busy"] >= 1
    fixed = found["bounds"]["fixed_energy"]
    assert fixed["ratio"] > found["ratio"]["tokens_per_j"], "moving and multiplying is not all"
    if met:
        assert fixed["least_bytes"] is fixed["least_ratio"] is None
    else:
        assert fixed["least_bytes"] <= fixed["moved_bytes"] * 1.001
        assert fixed["least_ratio"] >= fixed["ratio"] * 0.999


def test_rows_change_one_side_at_a_time(unmask: Command, folder: Path) -> None:
    found = json.loads(unmask("compare", folder, *SHORT, "--json").stdout)
    rows = {row["name"]: row for row in found["rows"]}
    same, multiplies = rows["same number formats"], rows["no more peak multiplies than the GPU"]
    assert same["npu"] == found["npu"]
    assert same["gpu"]["tokens_per_s"] >= found["gpu"]["tokens_per_s"]
    assert multiplies["gpu"] == found["gpu"]
    assert multiplies["npu"]["peak_multiplies"] <= found["gpu"]["peak_multiplies"]


@pytest.mark.parametrize(("machine", "gpu"), [("a6000-class", "a6000"), ("h100-class", "h100"), ("h100-class", "a6000"), ("small", "h100")])
def test_a_machine_is_cut_to_the_multiplies_of_a_gpu_and_no_further(machine: str, gpu: str) -> None:
    whole, yardstick = Machine.preset(machine), Gpu.load(gpu)
    cut = with_fewer_multiplies(whole, yardstick)
    most = yardstick.bf16_tflops / 2 * 1000 / whole.clock_ghz
    assert cut.peak_multiplies <= most
    if cut is not whole:
        assert cut.peak_multiplies + cut.matrix.mlen * cut.matrix.blen > most
    assert cut.model_copy(update={"matrix": whole.matrix}) == whole


def test_a_measured_profile_goes_before_the_model(unmask: Command, tmp_path: Path) -> None:
    arguments = ("compare", "sotu", *SHORT, "--batch", 1)
    sizes = {"batch": 1, "rows": 32, "keys": 32, "head_rows": 8}
    steps = [{**sizes, "transformer_s": 0.5, "sampling_s": 0.5, "repeats": 1}]
    policy = {"temperature": 0.0, "remasking": "low_confidence", "commit": "schedule", "cache": "none", "exclude_mask": True}
    about = {"device": "a board", "software": {}, "model": "sotu", "dtype": "bfloat16", "power_w": 100.0}
    profile = {**about, "policy": {**policy, "cfg_scale": 0.0}, "steps": steps}
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(profile))
    found = json.loads(unmask(*arguments, "--profile", path, "--json").stdout)
    assert found["gpu"]["seconds"] == pytest.approx(16)
    assert found["gpu"]["average_w"] == pytest.approx(100)
    assert found["gpu_basis"] == "measured"
    path.write_text(json.dumps(profile | {"model": "llada-8b"}))
    assert "a profile of llada-8b; expected one of sotu" in unmask(*arguments, "--profile", path).is_mistake()


def test_an_unknown_gpu_is_one_line(unmask: Command) -> None:
    assert "unknown GPU 'tpu'" in unmask("compare", "sotu", "--gpu", "tpu").is_mistake()

"""Replaying recordings: those of the shared folder, those written by a plain reference, and damaged ones."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.small import small_model
from unmask.decoding.golden import replay
from unmask.errors import UnmaskError
from unmask.models.checkpoint import save_model

from .plain_reference import record, write_case

SHARED = Path(os.environ.get("UNMASK_SHARED", Path(__file__).parents[3] / "shared")) / "golden"
PROMPT = [[1, 2, 3, 4], [5, 6, 7, 8]]
KINDS = {
    "plain": {"gen_length": 8, "block_length": 8, "steps": 4},
    "uneven": {"gen_length": 12, "block_length": 4, "steps": 9},
    "guided_uneven": {"gen_length": 10, "block_length": 5, "steps": 6, "cfg_scale": 0.5},
    "temperature": {"gen_length": 8, "block_length": 4, "steps": 4, "temperature": 0.8},
    "random": {"gen_length": 8, "block_length": 4, "steps": 4, "remasking": "random"},
    "no_eos": {"gen_length": 8, "block_length": 4, "steps": 4, "logits_eos_inf": True, "temperature": 1.0, "remasking": "random"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small model."""
    folder = tmp_path_factory.mktemp("golden") / "llada"
    save_model(small_model(), folder)
    return folder


def replayed(folder: Path, case: dict) -> tuple[str, str]:
    """Outcome and reason of one case in a folder with a model."""
    write_case(case, folder / "case.json")
    (result,) = replay(folder / "case.json").results
    return result.outcome, result.reason


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the shared golden vectors are not at {SHARED}")
@pytest.mark.parametrize("threads", ["1", "2"])
def test_shared_recordings_pass(threads):
    command = [sys.executable, "-m", "unmask.cli.main", "golden", str(SHARED), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": threads}, check=True)
    report = json.loads(done.stdout)
    assert report["failed"] == report["skipped"] == []
    assert report["cases"] > 0
    assert report["cases"] == report["passed"] + len(report["skipped"])


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the shared golden vectors are not at {SHARED}")
def test_shared_recordings_pass_with_this_machines_kernels_too():
    assert replay(SHARED).names("failed") == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_recordings_of_the_plain_reference_pass(folder, kind, dtype):
    case = record(small_model().to(dtype), PROMPT, 3, **KINDS[kind])
    assert replayed(folder, case) == ("passed", "")


def tampered(case: dict, event: int, field: str, path: tuple[int, ...], value: object) -> dict:
    case = copy.deepcopy(case)
    place = case["events"][event]
    for key in (field, *path[:-1]):
        place = place[key]
    place[path[-1]] = value
    return case


@pytest.mark.parametrize("kind", KINDS)
def test_any_tampering_is_found(folder, kind):
    case = record(small_model(), PROMPT, 3, **KINDS[kind])
    start, guilty = len(PROMPT[0]), []
    ops = [event["op"] for event in case["events"]]
    last, last_topk = len(ops) - 1 - ops[::-1].index("forward"), len(ops) - 1
    conf = case["events"][last_topk]["conf"]
    eligible = next(i for i, value in enumerate(conf) if value != "-inf")
    guilty.append(tampered(case, last, "ids", (1, start), (case["events"][last]["ids"][1][start] + 1) % 39))
    guilty.append(tampered(case, last, "argmax", (0, start), (case["events"][last]["argmax"][0][start] + 1) % 39))
    guilty.append(tampered(case, last, "max_prob_f64", (0, start), case["events"][last]["max_prob_f64"][0][start] + 3e-5))
    guilty.append(tampered(case, last_topk, "conf", (eligible,), conf[eligible] + 3e-5))
    guilty.append(tampered(case, last_topk, "conf", (0,), 0.5))
    guilty.append(tampered(case, ops.index("topk"), "indices", (0,), start + 7))
    guilty.extend({**case, key: value} for key, value in (("n_forward", 99), ("seed", 4), ("output_ids", [[1]]), ("kwargs", {"steps": 4})))
    guilty.append({**case, "events": case["events"][:-1]})
    guilty.append({**case, "events": [*case["events"], case["events"][0]]})
    changed = copy.deepcopy(case)
    changed["output_ids"][1][-1] = (changed["output_ids"][1][-1] + 1) % 39
    guilty.append(changed)
    logits = copy.deepcopy(case)
    logits["tensors"]["logits_0"][0, 2, 5] += 1e-3
    guilty.append(logits)
    random = {"rand", "rand_like"} & set(ops)
    for index, wrong in enumerate(guilty):
        outcome, reason = replayed(folder, wrong)
        harmless = wrong.get("seed") == 4 and not random
        assert outcome == ("passed" if harmless else "failed"), f"tampering {index}: {reason}"
        assert harmless or reason
        assert "\n" not in reason


def test_a_tie_may_be_broken_either_way(tmp_path):
    model = small_model()
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)  # every logit is zero, so every choice ties
    save_model(model, tmp_path)
    case = record(model, PROMPT[:1], 0, gen_length=4, block_length=4, steps=2)
    first, second = (event for event in case["events"] if event["op"] == "topk")
    first["indices"], second["indices"] = [7, 5], [4, 6]
    case["events"][2]["ids"][0][4:] = [39, 0, 39, 0]
    second["conf"] = [value if i in (4, 6) else "-inf" for i, value in enumerate(first["conf"])]
    assert replayed(tmp_path, case) == ("passed", "1 ties broken as recorded")


def test_names_counts_and_skips(folder, tmp_path):
    for name in ("a/known", "b/other", "b/strange"):
        file = tmp_path / f"{name}.json"
        file.parent.mkdir(exist_ok=True)
        case = record(small_model(), PROMPT, 3, **KINDS["plain"])
        if name == "b/other":
            case["source"] = "somebody/else@123 sampler.py"
        if name == "b/strange":
            case["kwargs"]["beam"] = 2
        write_case(case, file)
        save_model(small_model(), file.parent)
    (tmp_path / "a" / "broken.json").write_text("{")
    (tmp_path / "a" / "notes.json").write_text("[1, 2]")
    (tmp_path / "c").mkdir()
    write_case(record(small_model(), PROMPT, 3, **KINDS["plain"]), tmp_path / "c" / "without_model.json")
    assert replay(tmp_path).to_json() == {
        "cases": 5,
        "passed": 1,
        "failed": ["a/broken", "c/without_model"],
        "skipped": ["b/other", "b/strange"],
    }


def test_missing_path_is_one_line(tmp_path):
    with pytest.raises(UnmaskError, match="no such file or folder"):
        replay(tmp_path / "nowhere")


def test_command_prints_a_table_and_fails_when_a_case_does(folder, tmp_path):
    from typer.testing import CliRunner

    from unmask.cli.main import app

    good = record(small_model(), PROMPT, 3, **KINDS["plain"])
    write_case(good, folder / "case.json")
    done = CliRunner().invoke(app, ["golden", str(folder)])
    assert done.exit_code == 0
    assert "1 cases: 1 passed, 0 failed, 0 skipped" in done.stdout
    write_case({**good, "n_forward": 5}, folder / "case.json")
    done = CliRunner().invoke(app, ["golden", str(folder), "--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout) == {"cases": 1, "passed": 0, "failed": ["case"], "skipped": []}

"""`unmask sim --trace` and the mistakes of `unmask trace`."""

from __future__ import annotations

import json
from pathlib import Path

from .conftest import Command

SHORT = ("sim", "sotu", "--prompt", 16, "--generate", 8, "--block", 8)


def test_a_generation_leaves_a_trace(unmask: Command, tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    found = json.loads(unmask(*SHORT, "--cache", "dual", "--trace", file, "--trace-window", "100:2000", "--json").stdout)
    assert found["trace"]["file"] == str(file)
    assert {name: step["runs"] for name, step in found["by_step"].items()}.keys() == found["trace"]["steps"].keys()
    trace = json.loads(file.read_text())
    assert trace["otherData"]["model"] == "sotu"
    assert trace["otherData"]["generate"] == 8
    assert trace["otherData"]["command"].startswith("unmask sim sotu --prompt 16")
    for name, step in found["trace"]["steps"].items():
        assert trace["otherData"]["steps"][name]["window_cycles"] == [step["start"], step["end"]] == [100, 2000]
    assert f"unmask trace {file}" in unmask(*SHORT, "--trace", file).stdout


def test_mistakes_of_a_trace_are_one_line(unmask: Command, tmp_path: Path) -> None:
    assert "expected START:END" in unmask(*SHORT, "--trace-window", "9:1").is_mistake()
    assert "no folder" in unmask(*SHORT, "--trace", tmp_path / "none" / "trace.json").is_mistake()
    assert "no such trace file" in unmask("trace", tmp_path / "none.json").is_mistake()

"""Searches: the same points whatever the processes and whenever killed; fronts, reasons, and files that time to what was found."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import Executor
from math import inf
from pathlib import Path

import pytest
from tests.cli.conftest import Command

from unmask import Machine, Policy, UnmaskError
from unmask.explore.evaluate import Outcome, Reading, Task, Workload, evaluate
from unmask.explore.fields import Varied
from unmask.explore.front import front_of
from unmask.explore.search import search
from unmask.explore.space import Space
from unmask.explore.store import Point, Store
from unmask.explore.workers import Here, workers
from unmask.models.catalogue import architecture
from unmask.silicon.cost.table import load_costs

WORKLOAD = Workload(architecture("sotu"), Policy(16, 8, 16), 8, 1)
FIELDS = {
    "vector.vlen": {"powers_of_two": [16, 256]},
    "matrix.rows": {"range": [1, 4]},
    "sram.vector_kib": {"powers_of_two": [2, 1024]},
}
FILE = """machine = "small"
model = "sotu"
[fields]
"vector.vlen" = { powers_of_two = [16, 256] }
"matrix.rows" = { range = [1, 4] }
"sram.vector_kib" = { powers_of_two = [2, 1024] }
[workload]
prompt = 8
generate = 16
block = 8
"""


def task(*objectives: str, **limits: float) -> Task:
    fields = {name: Varied.model_validate(values) for name, values in FIELDS.items()}
    return Task(Space(Machine.preset("small"), fields), WORKLOAD, objectives, load_costs(), limits)


def searched(folder: Path, of: Task, trials: int, executor: Executor | None = None, resume: bool = False) -> list[Point]:
    store = Store(folder / "study.db", of, {"of": of.objectives}, resume)
    return search(of, store, trials, 1, 16, executor or Here(), lambda point: None)


def plain(points: list[Point]) -> list[tuple[dict[str, object], dict[str, float], str]]:
    return [(dict(point.parameters), dict(point.outcome.measures), point.outcome.reason) for point in points]


@pytest.mark.parametrize("objectives", [("latency",), ("latency", "area")])
def test_a_search_that_goes_on_tries_what_one_at_once_tries(objectives: tuple[str, ...], tmp_path: Path) -> None:
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = searched(tmp_path / "whole", task(*objectives), 70)
    for trials in (20, 55, 70):
        parts = searched(tmp_path / "parts", task(*objectives), trials, resume=True)
    assert plain(parts) == plain(whole)
    assert len({tuple(point.parameters.values()) for point in whole}) > 20
    assert dict(whole[0].parameters) == task(*objectives).space.first


def test_optuna_reads_the_study(tmp_path: Path) -> None:
    import optuna

    points = searched(tmp_path, task("latency", "sram"), 20)
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{tmp_path / 'study.db'}")
    for point, trial in zip(points, study.trials, strict=True):
        assert (trial.number, trial.params, trial.state.name) == (point.number, dict(point.parameters), "COMPLETE")
        assert trial.values == point.objectives(("latency", "sram"))
    assert {trial.number for trial in study.best_trials} >= {point.number for point in front_of(points, ("latency", "sram"))}


def test_what_does_not_compile_is_a_trial_with_its_reason() -> None:
    failed = evaluate(task("latency"), {"sram.vector_kib": 2})
    assert "the vector SRAM cannot hold" in failed.reason
    assert failed.measures == {}
    impossible = evaluate(task("latency"), {"matrix.mlen": 3, "matrix.blen": 2})
    assert "mlen 3 is not a multiple of blen 2" in impossible.reason
    assert failed.excess == impossible.excess > 1000


def test_a_machine_over_a_limit_is_not_timed() -> None:
    over = evaluate(task("latency", multiplies=1.0), {"matrix.rows": 4})
    assert over.reason == "multiplies over 1 per cycle"
    assert over.excess == over.measures["multiplies"] - 1
    assert "latency" not in over.measures
    late = evaluate(task("area", latency=1e-9), {})
    assert late.reason == "latency over 1e-09 s"
    assert late.excess > 0


def test_the_readings_of_a_point_agree_but_for_time() -> None:
    of = task("latency", "energy", "area")
    analytic, cycle = evaluate(of, {}, Reading.ANALYTIC), evaluate(of, {}, Reading.CYCLE)
    assert analytic.measures["area"] == cycle.measures["area"]
    assert analytic.measures["latency"] == pytest.approx(cycle.measures["latency"], rel=0.05)
    assert analytic.measures["energy"] == pytest.approx(cycle.measures["energy"], rel=0.05)


def test_a_front_has_what_nothing_beats() -> None:
    def point(number: int, *measures: float, reason: str = "") -> Point:
        return Point(number, {}, {}, Outcome(reason, 0.0, dict(zip(("latency", "area"), measures, strict=True)), {}, 0.0))

    points = [point(0, 3, 3), point(1, 1, 9), point(2, 3, 2), point(3, 1, 9), point(4, 0, 0, reason="over"), point(5, 9, 2), point(6, 2, 8)]
    assert [found.number for found in front_of(points, ("latency", "area"))] == [1, 6, 2]
    assert Point(0, {}, {}, Outcome("no", 1.0, {}, {}, 0.0)).objectives(("latency",)) == [inf]


def test_a_search_of_other_settings_does_not_go_on(tmp_path: Path) -> None:
    searched(tmp_path, task("latency"), 1)
    with pytest.raises(UnmaskError, match="another search, with other of"):
        searched(tmp_path, task("area"), 1, resume=True)
    with pytest.raises(UnmaskError, match="--resume goes on with it"):
        searched(tmp_path, task("latency"), 1)


@pytest.mark.slow
@pytest.mark.parametrize("where", [(), ("--cluster", "dask")], ids=["here", "cluster"])
def test_a_killed_search_loses_no_trial(where: tuple[str, ...], tmp_path: Path) -> None:
    if where:
        pytest.importorskip("distributed")
    (tmp_path / "space.toml").write_text(FILE)
    words = [sys.executable, "-m", "unmask.cli.main", "search", "space.toml", "--objective", "latency,area", "--no-cycle", "--json"]
    running = subprocess.Popen(
        [*words, "--trials", "2000", "-o", "killed", *where], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    def trials() -> int:
        try:
            with sqlite3.connect(f"file:{tmp_path / 'killed' / 'study.db'}?mode=ro", uri=True) as database:
                return int(database.execute("SELECT COUNT(*) FROM trials").fetchone()[0])
        except sqlite3.Error:
            return 0

    deadline = time.monotonic() + 300
    while trials() < 20 and time.monotonic() < deadline:
        assert running.poll() is None
        time.sleep(0.05)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    there = trials()
    assert 20 <= there < 2000
    after = there + 10
    fronts = []
    for options in (("-o", "killed", "--resume", *where), ("-o", "whole")):
        done = subprocess.run([*words, "--trials", f"{after}", *options], cwd=tmp_path, capture_output=True, text=True, check=True)
        fronts.append(json.loads(done.stdout))
    assert fronts[0]["trials"] == fronts[1]["trials"] == after
    assert fronts[0]["infeasible"] == fronts[1]["infeasible"]
    assert [(entry["trial"], entry["fields"]) for entry in fronts[0]["front"]] == [
        (entry["trial"], entry["fields"]) for entry in fronts[1]["front"]
    ]


def test_processes_and_a_cluster_find_the_same(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    found = []
    for name, jobs, cluster in (("here", 1, None), ("processes", 2, None), ("cluster", 1, "dask")):
        (tmp_path / name).mkdir()
        with workers(jobs, cluster) as (executor, width):
            assert width == jobs
            found.append(plain(searched(tmp_path / name, task("latency", "area"), 24, executor)))
    assert found[0] == found[1] == found[2]


def test_a_cluster_that_is_not_there_is_told() -> None:
    pytest.importorskip("distributed")
    with pytest.raises(UnmaskError, match="expected 'dask', or the address"), workers(1, "ray"):
        pass


def test_a_search_that_cannot_begin_leaves_no_study(unmask: Command, tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text(FILE)
    words = ("search", tmp_path / "space.toml", "-o", tmp_path / "out", "--trials", 2, "--no-cycle")
    assert "expected 'dask', or the address" in unmask(*words, "--cluster", "ray").is_mistake()
    assert "expected one of llada-8b" in unmask(*words, "--model", "nothing").is_mistake()
    assert "2 trials" in unmask(*words).stdout


def test_the_front_is_left_with_commands_that_find_the_same(unmask: Command, tmp_path: Path) -> None:
    space = tmp_path / "space.toml"
    space.write_text(FILE)
    found = json.loads(
        unmask("search", space, "--objective", "latency,multiplies", "--trials", 20, "-o", tmp_path / "out", "--json").stdout
    )
    assert found["trials"] == 20
    assert 0 < found["feasible"] < 20
    assert any("the vector SRAM cannot hold" in reason for reason in found["infeasible"])
    for entry in found["front"]:
        words = entry["command"].split()
        again = json.loads(unmask(*words[1:], "--json").stdout)
        assert again["seconds"] == entry["cycle"]["latency"]
        assert Machine.load(entry["machine"]).peak_multiplies == entry["cycle"]["multiplies"]
    kept = json.loads((tmp_path / "out" / "front.json").read_text())
    assert kept["command"] == found["command"]
    assert [entry["trial"] for entry in kept["front"]] == [entry["trial"] for entry in found["front"]]
    assert (tmp_path / "out" / "front.png").read_bytes().startswith(b"\x89PNG")
    assert "src=" not in (tmp_path / "out" / "front.html").read_text()[:2000]
    more = unmask("search", space, "--objective", "latency,multiplies", "--trials", 22, "-o", tmp_path / "out", "--resume", "--no-cycle")
    assert "22 trials" in more.stdout


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (("prompt = 8", "prompts = 8"), "workload.prompts: no option of the workload"),
        (("prompt = 8", "prompt = 'x'"), "workload.prompt = 'x': Input should be a valid integer"),
        (('model = "sotu"', ""), "names no model; expected --model"),
        (("[workload]", "[limits]\nprice = 3\n[workload]"), "unknown measure 'price'"),
    ],
)
def test_mistakes_are_one_line(change: tuple[str, str], match: str, unmask: Command, tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text(FILE.replace(*change))
    assert match in unmask("search", tmp_path / "space.toml", "-o", tmp_path / "out").is_mistake()

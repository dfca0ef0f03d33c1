"""The report as one HTML file: what is in it, and that it needs nothing else."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from unmask.baselines.gpu import Gpu
from unmask.compiler.analytic import estimate_generation
from unmask.compiler.generation import time_generation
from unmask.decoding.policies import NAMED
from unmask.errors import UnmaskError
from unmask.machine.config import Machine
from unmask.models.catalogue import architecture
from unmask.report.comparison import Workload, compare
from unmask.report.html.figures import Data, table
from unmask.report.html.page import page
from unmask.report.html.plots import ranked
from unmask.report.html.runs import Run, read_run
from unmask.report.trace import steps_of, write_trace
from unmask.silicon.cost.table import load_costs

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
VOID = {"meta", "link", "input", "br"}
# Runs after the page's own script, in a copy of the page.
PROBE = """<script>
const plots = [...document.querySelectorAll("svg.plot")];
const drawn = (box) => box.width > 0 && box.height > 0;
const empty = plots.filter((plot) => !drawn(plot.getBBox()) || !drawn(plot.getBoundingClientRect()));
const broken = plots.filter((plot) => /NaN|Infinity|undefined/.test(plot.outerHTML));
const slider = document.querySelector(".canvas input");
slider.value = 1; slider.dispatchEvent(new Event("input"));
const masked = document.querySelectorAll(".t.mask").length;
const cells = () => [...document.querySelector("table").tBodies[0].rows].map((row) => row.cells[1].dataset.value);
document.querySelectorAll("table")[0].querySelectorAll("th button")[1].click();
const sorted = cells().map(Number);
const found = {plots: plots.length, empty: empty.length, broken: broken.length, masked, sorted,
  requests: performance.getEntriesByType("resource").filter((entry) => !entry.name.startsWith("data:")).length,
  wide: document.documentElement.scrollWidth > innerWidth};
document.title = "probe " + JSON.stringify(found);
</script>"""


def generated() -> dict[str, Any]:
    commits = [{"step": step, "positions": [5 + step], "tokens": [100 + step]} for step in range(4)]
    return {
        "prompt": "<b>prompt</b> & more",
        "model": "no-such-model</script>",
        "policy": {"gen_length": 4, "steps": 4},
        "tokens": [100, 101, 102, 103],
        "steps": 4,
        "commits": commits,
        "text": "text",
        "energy": None,
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A comparison, a trace, a generation and a front."""
    folder = tmp_path_factory.mktemp("runs")
    machine, shape = Machine.preset("small"), architecture("sotu")
    policy = NAMED["llada"].policy(gen_length=16, block_length=8, cache="dual")
    work = Workload(shape, policy, 16, 2)
    found = compare(
        work, machine, Gpu.load("a6000"), lambda on: estimate_generation(shape, policy, on, 16, 2), load_costs(None), "bf16"
    ) | {"model": "sotu", "reading": "analytic"}
    found["sim"] |= {"model": "sotu", "reading": "analytic", "command": "unmask sim sotu --batch 2 '<b>'"}
    front = [
        {"trial": n, "fields": {"matrix.rows": n}, "analytic": {"latency": 1.0 / n, "area": float(n)}, "command": f"unmask sim sotu {n}"}
        for n in (1, 2, 4)
    ]
    search = {
        "objectives": ["latency", "area"],
        "units": {"latency": "s", "area": "mm2"},
        "limits": {},
        "trials": 3,
        "feasible": 3,
        "front": front,
    }
    paths = []
    for name, content in (("compare", found), ("sim", found["sim"]), ("generate", generated()), ("search", search)):
        paths.append(folder / f"{name}.json")
        paths[-1].write_text(json.dumps(content))
    paths.append(folder / "trace.json")
    about = {"command": "unmask sim sotu --trace trace.json"}
    write_trace(paths[-1], steps_of(time_generation(shape, policy, machine, 16, 2)), machine, about=about, room=3_000_000)
    return paths


@pytest.fixture(scope="module")
def text(files: list[Path]) -> str:
    return page([read_run(path) for path in files])


class Tags(HTMLParser):
    """Whether elements are closed in order, and whatever would be loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "action", "poster", "data")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_page_is_well_formed_and_loads_nothing(text: str) -> None:
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert [link for link in tags.loads if not link.startswith(("data:", "#"))] == []
    assert len(text.encode()) < 8_000_000


def test_every_section_that_has_data_is_there(text: str) -> None:
    titles = ("Gains over", "Like with like", "Time by phase", "Roofline", "Energy by part", "block by block", "Engines over time")
    for title in (*titles, "HBM load over time", "SRAM over time", "step by step", "Pareto front", "Configuration and commands"):
        assert title in text, title
    assert text.count("<figure>") == text.count('class="csv"')
    assert "NaN" not in text.partition("<script>")[0]


def test_what_a_run_holds_is_text_and_no_markup(text: str) -> None:
    assert "<b>prompt" not in text
    assert "&lt;b&gt;prompt&lt;/b&gt; &amp; more" in text
    assert text.count("</script>") == 1


def test_the_data_of_a_plot_is_its_data(text: str, files: list[Path]) -> None:
    found = json.loads(files[1].read_text())
    link = re.search(r'download="energy-by-part.csv" href="data:text/csv;charset=utf-8;base64,([^"]+)"', text)
    assert link is not None
    lines = base64.b64decode(link.group(1)).decode().splitlines()[1:]
    assert sum(float(line.split(",")[1]) for line in lines) == pytest.approx(found["energy"]["total_j"])


def test_the_command_of_a_run_is_shown_as_its_file_states_it(text: str) -> None:
    assert "unmask sim sotu --batch 2 '&lt;b&gt;'" in text or "unmask sim sotu --batch 2 &#x27;&lt;b&gt;&#x27;" in text
    assert "unmask sim sotu --trace trace.json" in text


def test_a_phase_has_one_colour_in_all_drawings(text: str) -> None:
    for phase in ("attention", "feed-forward", "lm-head", "sampling-1-confidence"):
        colours = re.findall(rf"class=(c\d) /></svg>{phase}", text)
        assert len(colours) > 2
        assert len(set(colours)) == 1, phase


def test_a_small_energy_is_in_a_smaller_unit() -> None:
    assert ">2.5 mJ</text>" in ranked("energy", {"HBM": 0.0025, "wires": 1e-5}, "J")
    assert ">0.01 mJ</text>" in ranked("energy", {"HBM": 0.0025, "wires": 1e-5}, "J")
    assert ">12 J</text>" in ranked("energy", {"HBM": 12.0}, "J")
    assert ">0.5 mm2</text>" in ranked("area", {"matrix": 0.5}, "mm2")


def test_the_datapath_by_width_is_shown_with_noise_and_without(tmp_path: Path) -> None:
    sizes = {"area_mm2": 1.0, "area_um2_per_lane": 2.0, "power_mw": 3.0, "power_mw_per_lane": 4.0, "wns_ps": 5.0}
    rows = [
        {"vlen": 8, "noise": noise, "how": "synthesized", **sizes, "published_mm2": None, "published_mw": None} for noise in (False, True)
    ]
    about = {"library": "cells", "clock_ps": 1000.0, "checked_vlen": 32, "area_error": 0.0, "power_error": 0.0, "parts": []}
    (tmp_path / "table.json").write_text(json.dumps({**about, "rows": rows, "command": "unmask synth --unit datapath --table --json"}))
    shown = page([read_run(tmp_path / "table.json")])
    assert "vector datapath by width" in shown
    assert "8, with noise" in shown
    assert "8, without noise" in shown


def test_a_share_is_shown_with_two_places_and_kept_in_full() -> None:
    shown = table("shares", Data(("part", "% of it"), [("a", 1.23456), ("b", 8.4e-7), ("c", 0.0)]))
    assert '"1.23456">1.23<' in shown
    assert ">&lt; 0.01<" in shown
    assert ">0.00<" in shown


def test_a_file_that_is_no_run_is_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    for content, message in (("{", "not JSON"), ("[]", "not a run"), ('{"phase": 1}', "not a run that a report shows")):
        path.write_text(content)
        with pytest.raises(UnmaskError, match=message):
            read_run(path)
    with pytest.raises(UnmaskError, match="cannot read"):
        read_run(tmp_path / "missing.json")
    with pytest.raises(UnmaskError, match=r"run\.json: not what this version"):
        page([Run("sim", "run.json", "", {"by_phase": {}, "by_step": {}, "peak_tops": {}, "model": "", "machine": "", "batch": 1})])


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_chromium_draws_every_plot_without_errors_or_requests(text: str, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(text.replace("</body>", PROBE + "</body>"))
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--window-size=1280,800", "--dump-dom")
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, *options, f"--user-data-dir={tmp_path / 'profile'}", path.as_uri()], capture_output=True, text=True, timeout=240
    )
    title = re.search(r"<title>probe (.*?)</title>", done.stdout)
    assert title is not None, done.stderr
    found = json.loads(title.group(1))
    assert "CONSOLE" not in done.stderr
    assert found["plots"] > 10
    assert (found["empty"], found["broken"], found["requests"], found["wide"]) == (0, 0, 0, False)
    assert found["masked"] == 3
    assert found["sorted"] == sorted(found["sorted"])

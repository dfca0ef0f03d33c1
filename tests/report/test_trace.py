"""A trace shows what the cycle reading found: nothing twice, nothing invented, and no more than fits."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unmask import Machine, Policy, UnmaskError
from unmask.compiler.context import capacities
from unmask.compiler.generation import GenerationTime, time_generation
from unmask.isa.encoding import assemble
from unmask.isa.program import Program
from unmask.isa.table import Engine
from unmask.machine.access import Access
from unmask.models.layers import Architecture
from unmask.report import trace
from unmask.report.occupancy import Occupancy
from unmask.report.trace import BINS, Step, Window, steps_of, write_trace

SHAPE = Architecture(32, 2, 2, 2, 16, 64, 320, 320, 64, 1e-5, 1e4, 319, 318, False)
SMALL = Machine.preset("small")
PUBLISHED = Machine.preset("published-512")
DRAM = PUBLISHED.model_copy(update={"vector": PUBLISHED.vector.model_copy(update={"granule": 8})})
ODD = SMALL.model_copy(update={"clock_ghz": 0.7})
EXP = "V_EXP dst=r1 a=r1 rows=4 cols=64 dst_stride=2 a_stride=2"


@pytest.fixture(scope="module", params=[SMALL, ODD, DRAM], ids=["small", "0.7 GHz", "DRAM"])
def done(request: pytest.FixtureRequest) -> GenerationTime:
    return time_generation(SHAPE, Policy(16, 8, 16, cache="dual"), request.param, 13, 2)


@pytest.fixture(scope="module")
def written(done: GenerationTime, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("trace") / "trace.json"
    write_trace(path, steps_of(done), done.machine, about={"model": "tiny"})
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def slices(found: dict[str, Any], step: int) -> dict[str, list[dict[str, Any]]]:
    """The slices of a step by the name of their track, in the order of their times."""
    pid = 1000 * (step + 1)
    events = [event for event in found["traceEvents"] if event["pid"] == pid]
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    tracks: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            tracks[names[event["tid"]]].append(event)
    return {name: sorted(track, key=lambda event: event["args"]["start"]) for name, track in tracks.items()}


def counters(found: dict[str, Any], step: int) -> dict[str, list[tuple[float, float]]]:
    """(microseconds, value) of each counter of a step, by its name."""
    values: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for event in found["traceEvents"]:
        if event["pid"] == 1000 * (step + 1) and event["ph"] == "C":
            [value] = event["args"].values()
            values[event["name"]].append((event["ts"], value))
    return values


def looped(body: str, count: int, name: str = "loop", phases: tuple[str, ...] = ("all",)) -> Step:
    words = assemble(f"LOOP count={count}\n{body}\nEND\nHALT")
    return Step(name, name, Program(words, [phases[i % len(phases)] for i in range(len(words))], 0, {}, {}, {}))


def test_slices_are_the_busy_cycles_of_the_engines(done: GenerationTime, written: dict[str, Any]) -> None:
    for step, run in enumerate(done.runs):
        timing, tracks = done.timings[run.entry], slices(written, step)
        for engine in ("load", "store", "matrix", "vector"):
            assert sum(event["args"]["cycles"] for event in tracks[engine]) == timing.busy[engine]
            assert len(tracks[engine]) == timing.instructions[engine]
        dispatched = sum(timing.instructions[engine] for engine in ("load", "store", "matrix", "vector"))
        assert sum(event["args"]["cycles"] for event in tracks["sequencer"]) == timing.busy["sequencer"] - dispatched


def test_the_slices_of_a_track_do_not_overlap(done: GenerationTime, written: dict[str, Any]) -> None:
    for step in range(len(done.runs)):
        for track in slices(written, step).values():
            for before, after in pairwise(track):
                assert before["args"]["start"] + before["args"]["cycles"] <= after["args"]["start"]
                assert round(1000 * before["ts"]) + round(1000 * before["dur"]) <= round(1000 * after["ts"])


def test_times_are_microseconds_at_the_clock(done: GenerationTime, written: dict[str, Any]) -> None:
    for track in slices(written, 0).values():
        for event in track:
            assert event["ts"] == pytest.approx(event["args"]["start"] / done.machine.clock_ghz / 1000, abs=0.0006)


def test_phases_are_as_long_as_the_reading_says(done: GenerationTime, written: dict[str, Any]) -> None:
    for step, run in enumerate(done.runs):
        cycles: dict[str, int] = defaultdict(int)
        for event in slices(written, step)["phases"]:
            cycles[event["name"]] += event["args"]["cycles"]
        assert cycles == {phase: count for phase, count in done.timings[run.entry].phases.items() if count}


def test_counters_stay_within_the_machine(done: GenerationTime, written: dict[str, Any]) -> None:
    limits = {f"{name.split('_')[0]} SRAM": capacity for name, capacity in capacities(done.machine).items()}
    limits |= {f"HBM {engine}": done.machine.memory_gbps for engine in ("load", "store")}
    for step in range(len(done.runs)):
        found = counters(written, step)
        assert found.keys() == limits.keys()
        for name, values in found.items():
            assert all(0 <= value <= limits[name] + 0.001 for _, value in values), name
            assert max(value for _, value in values) > 0
            assert values[-1][1] == 0
            assert len(values) <= BINS + 1


def test_the_bandwidth_adds_up_to_the_bytes_moved(done: GenerationTime, written: dict[str, Any]) -> None:
    for step, run in enumerate(done.runs):
        for engine, moved in done.timings[run.entry].hbm_bytes.items():
            values = counters(written, step)[f"HBM {engine}"]
            gigabytes = sum(value * (until - at) / 1e6 for (at, value), (until, _) in pairwise(values))
            assert gigabytes * 1e9 == pytest.approx(moved, rel=0.02)


def test_no_more_of_an_sram_is_in_use_than_the_compiler_gave_out(done: GenerationTime, written: dict[str, Any]) -> None:
    given = {f"{name.split('_')[0]} SRAM": used for name, used in done.program.about["sram_high_water"].items()}
    for step in range(len(done.runs)):
        for name, used in given.items():
            assert max(value for _, value in counters(written, step)[name]) <= -(-used // 32) * 32


def test_operands_are_addresses_and_sizes(written: dict[str, Any]) -> None:
    product = next(event for event in slices(written, 0)["matrix"] if event["name"] == "M_MM")
    assert {"pc", "dst", "a", "b", "m", "n", "k", "start", "cycles"} <= product["args"].keys()
    assert product["cat"] == "attention"
    load = slices(written, 0)["load"][0]
    assert load["args"]["done"] >= load["args"]["start"] + load["args"]["cycles"]


def test_what_is_shown_is_stated(done: GenerationTime, written: dict[str, Any]) -> None:
    stated = written["otherData"]
    assert (stated["model"], stated["machine"], stated["clock_ghz"]) == ("tiny", done.machine.name, done.machine.clock_ghz)
    for run in done.runs:
        step = stated["steps"][run.entry]
        assert step["window_cycles"] == [0, done.timings[run.entry].cycles]
        assert step["left_out"] == "nothing"


def test_a_window_shows_what_starts_in_it(done: GenerationTime, written: dict[str, Any], tmp_path: Path) -> None:
    window = Window(500, 900)
    drawn = write_trace(tmp_path / "part.json", steps_of(done), done.machine, window)
    part = json.loads((tmp_path / "part.json").read_text())
    for step, run in enumerate(done.runs):
        assert drawn[run.entry][:2] == window
        whole, found = slices(written, step), slices(part, step)
        assert set(found) <= set(whole)
        for engine in whole.keys() - {"phases"}:
            assert found.get(engine, []) == [event for event in whole[engine] if 500 <= event["args"]["start"] < 900]
        assert sum(event["args"]["cycles"] for event in found["phases"]) <= 400
    assert all(step["left_out"] != "nothing" for step in part["otherData"]["steps"].values())


@pytest.mark.parametrize("room", [5_000_000, 7_000_000])
def test_a_long_run_is_cut_to_the_room(tmp_path: Path, room: int) -> None:
    body = f"{EXP}\nS_LI rd=r2 value=64\n{EXP.replace('r1', 'r2')}\nSYNC engine=1"
    steps = [looped(body, 30_000, "one"), looped(body, 30_000, "two", ("a", "b"))]
    drawn = write_trace(tmp_path / "long.json", steps, SMALL, room=room)
    assert room / 4 < (tmp_path / "long.json").stat().st_size <= room
    found = json.loads((tmp_path / "long.json").read_text())
    for step, shown in zip(found["otherData"]["steps"].values(), drawn.values(), strict=True):
        assert step["instructions_executed"] == shown.executed == 5 * 30_000 + 2
        assert 0 < step["instructions_drawn"] < 5 * 30_000
        assert shown.end < shown.cycles
    assert all(event["args"]["start"] < drawn["one"].end for track in slices(found, 0).values() for event in track)


def test_of_a_huge_run_only_the_first_instructions_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = looped(f"{EXP}\nS_LI rd=r2 value=64\nSYNC engine=1", 500)
    whole = write_trace(tmp_path / "whole.json", [step], SMALL)["loop"]
    monkeypatch.setattr(trace, "MOST_TRACED", 1001)
    part = write_trace(tmp_path / "part.json", [step], SMALL)["loop"]
    assert part.executed == whole.executed == 2002
    assert part.cycles == whole.cycles > part.end
    everything, found = (slices(json.loads((tmp_path / name).read_text()), 0) for name in ("whole.json", "part.json"))
    for engine in ("sequencer", "vector", "load"):
        assert found[engine] == [event for event in everything[engine] if event["args"]["start"] < part.end]
    with pytest.raises(UnmaskError, match="its first 1,001 instructions take"):
        write_trace(tmp_path / "late.json", [step], SMALL, Window(part.end, 10**6))


@pytest.mark.parametrize("text", ["", "5", "7:7", "9:2", "-3:2", "a:b", "1:2:3"])
def test_a_window_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UnmaskError, match="expected START:END"):
        Window.parse(text)


def test_a_window_may_be_open() -> None:
    assert Window.parse("10:")[0] == 10
    assert Window.parse(":20") == (0, 20)


def test_a_window_after_the_end_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text("old")
    with pytest.raises(UnmaskError, match=r"step loop: the window begins at cycle 1,000,000; the step has \d+"):
        write_trace(tmp_path / "old.json", [looped(EXP, 2)], SMALL, Window(10**6, 10**7))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"old.json": "old"}


def test_infinities_are_still_json(tmp_path: Path) -> None:
    fill = "V_FILL dst=r1 rows=1 cols=64 dst_stride=2 value=-inf"
    write_trace(tmp_path / "fill.json", [looped(fill, 1)], SMALL)
    found = json.loads((tmp_path / "fill.json").read_text(), parse_constant=pytest.fail)
    assert slices(found, 0)["vector"][0]["args"]["value"] == "-inf"


def peaks(touched: list[tuple[Access, int, int]], width: int = 10) -> list[int]:
    occupancy = Occupancy(SMALL, 0, 100)
    for access, start, end in touched:
        occupancy.add([access], start, end)
    [found] = [values for (name, _), values in occupancy.peaks(np.arange(0, 101, width)).items() if name == "vector SRAM"]
    return [int(value) for value in found]


def test_a_value_occupies_its_place_from_its_write_to_its_last_read() -> None:
    tile = Access("vector", 64, 2, 32, 64, True)
    read = tile._replace(write=False)
    assert peaks([(tile, 20, 25), (read, 30, 35), (read, 30, 48), (tile, 60, 65)]) == [0, 0, 64, 64, 64, 0, 64, 0, 0, 0]


def test_a_part_written_again_and_what_was_there_before() -> None:
    both, half = Access("vector", 0, 1, 64, 64, False), Access("vector", 32, 1, 32, 32, True)
    assert peaks([(both, 10, 40), (half, 20, 30), (half._replace(write=False), 50, 60)]) == [64, 64, 64, 64, 32, 32, 0, 0, 0, 0]


def test_a_result_in_the_place_of_its_operand_counts_once() -> None:
    tile = Access("vector", 0, 1, 32, 32, True)
    assert peaks([(tile, 0, 10), (tile._replace(write=False), 10, 20), (tile, 10, 20)])[:3] == [32, 32, 0]


def test_an_address_beyond_the_memory_is_refused() -> None:
    with pytest.raises(UnmaskError, match="the vector SRAM holds"):
        peaks([(Access("vector", SMALL.vector_elements, 1, 32, 32, True), 0, 1)])


def test_every_engine_has_a_track(written: dict[str, Any]) -> None:
    named = {event["args"]["name"] for event in written["traceEvents"] if event["name"] == "thread_name"}
    assert named == {"phases", *(engine.name.lower() for engine in Engine)}


def test_steps_are_titled_with_how_often_they_run(done: GenerationTime, written: dict[str, Any]) -> None:
    titles = [event["args"]["name"] for event in written["traceEvents"] if event["name"] == "process_name"]
    assert titles == [f"{run.entry}, {run.count} of {done.steps} steps" for run in done.runs]

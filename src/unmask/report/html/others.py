"""Sections of sampling alone, of a search, and of synthesized units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from unmask.report.html import plots
from unmask.report.html.figures import Cell, Data, command, facts, figure, table
from unmask.report.html.simulation import costs


def sampling(found: Mapping[str, Any]) -> str:
    """Everything of the JSON of `unmask bench sampling`."""
    published = found.get("published")
    about = [
        ("latency", f"{found['ms']:.4f} ms, {found['cycles']:,} cycles at {found['clock_ghz']:g} GHz"),
        ("memory bound", f"{found['bound_ms']:.4f} ms"),
        (
            "workload",
            f"batch {found['batch']}, block {found['block']}, vocabulary {found['vocabulary']:,}, temperature {found['temperature']:g}",
        ),
        ("program", f"{found['program']}, logits in {found['logits']}"),
    ]
    if published is not None:
        about.append(("published", f"{published['ms']:g} ms, {published['source']}"))
    per_cycle = 1e-6 / found["clock_ghz"]
    bars = {"here": {part: cycles * per_cycle for part, cycles in found["breakdown"].items()}}
    if published is not None and published["breakdown"]:
        bars["published"] = {part: cycles * per_cycle for part, cycles in published["breakdown"].items()}
    kinds = plots.colours(list(dict.fromkeys(part for parts in bars.values() for part in parts)))
    rows = [(bar, part, value) for bar, parts in bars.items() for part, value in parts.items()]
    drawing = plots.stacked("sampling by part", bars, "ms", kinds)
    return facts(about) + figure("A step's sampling by part", drawing, Data(("bar", "part", "ms"), rows)) + costs(found)


def search(found: Mapping[str, Any]) -> str:
    """Everything of the JSON of `unmask search`: the front, and the command of each of its points."""
    objectives, units, front = found["objectives"], found["units"], found["front"]
    about = [
        ("trials", f"{found['trials']:,}, {found['feasible']:,} feasible"),
        ("minimized", ", ".join(objectives)),
        ("limits", ", ".join(f"{name} {limit:g} {units.get(name, '')}" for name, limit in found["limits"].items()) or "none"),
    ]
    if not front:
        return facts(about)
    measures = [entry.get("cycle", entry["analytic"]) for entry in front]
    titles = [f"{name}, {units[name]}" if units.get(name) else name for name in objectives]
    fields = list(front[0]["fields"])
    rows: list[Sequence[Cell]] = []
    for entry, measured in zip(front, measures, strict=True):
        rows.append([entry["trial"], *(measured[name] for name in objectives), *(entry["fields"][name] for name in fields)])
    data = Data(("trial", *titles, *fields), rows)
    drawn = ""
    for first, second in combinations(range(len(objectives)), 2):
        points = [
            plots.Point(measured[objectives[first]], measured[objectives[second]], f"trial {entry['trial']}", "c0")
            for entry, measured in zip(front, measures, strict=True)
        ]
        title = f"Pareto front: {objectives[first]} and {objectives[second]}"
        drawn += figure(title, plots.scatter(title, points, titles[first], titles[second], log=False), data)
    commands = command("\n".join(entry["command"] for entry in front))
    return facts(about) + drawn + table("The front", data) + f"<details><summary>The command of every point</summary>{commands}</details>"


def unit(found: Mapping[str, Any]) -> str:
    """Everything of the JSON of `unmask synth`."""
    slack = "no path" if found["wns_ps"] is None else f"{found['wns_ps']:.1f} ps"
    about = facts(
        [
            ("area", f"{found['area_um2']:,.1f} um2, before layout"),
            ("power", f"{found['power_mw']:.3f} mW ({found['activity']})"),
            ("worst slack", f"{slack} at {found['clock_ps']:g} ps"),
            ("cells", f"{found['cells']:,}, {found['registers']:,} flip-flops, {found['library']}"),
        ]
    )
    parts = sorted(((part["name"] or "(top)", part["area_um2"], part["power_mw"]) for part in found["parts"]), key=lambda part: -part[1])
    areas = {name: area for name, area, _ in parts[:20] if area}
    drawn = figure("Area by part", plots.ranked("area by part", areas, "um2"), Data(("part", "um2", "mW"), parts)) if areas else ""
    blocks = [
        (block["name"], block["instances"], block["cells"], block["area_um2"], block["instances"] * block["area_um2"])
        for block in found["blocks"]
    ]
    return about + drawn + table("Blocks", Data(("block", "instances", "cells", "um2 each", "um2 in all"), blocks))


def widths(found: Mapping[str, Any]) -> str:
    """Everything of the JSON of `unmask synth --table`."""
    columns = {
        "vlen": "VLEN",
        "noise": "noise",
        "how": "how",
        "area_mm2": "mm2",
        "area_um2_per_lane": "um2/lane",
        "power_mw": "mW",
        "power_mw_per_lane": "mW/lane",
        "wns_ps": "slack, ps",
        "published_mm2": "published mm2",
        "published_mw": "published mW",
    }
    # Only the vector datapath is there with noise and without.
    names = [name for name in columns if name in found["rows"][0]]
    rows = [[("with" if row[name] else "without") if name == "noise" else row[name] for name in names] for row in found["rows"]]
    about = facts(
        [
            ("clock", f"{found['clock_ps']:g} ps, {found['library']}; before layout, no wires, no memory macros"),
            (
                "composed of smaller ones",
                f"{found['area_error']:+.2%} off in area, {found['power_error']:+.2%} in power at {found['checked_vlen']} lanes",
            ),
        ]
    )
    bars: dict[str, float] = {}
    kinds: dict[str, str] = {}
    for row in found["rows"]:
        ours = {None: "here", True: "with noise", False: "without noise"}[row.get("noise")]
        for who, area, kind in ((ours, row["area_mm2"], "c0"), ("published", row["published_mm2"], "c1")):
            if area is not None:
                bars[f"{row['vlen']}, {who}"], kinds[f"{row['vlen']}, {who}"] = area, kind
    drawn = figure("Area by width", plots.ranked("area by width", bars, "mm2", kinds), Data(("VLEN", "mm2"), list(bars.items())))
    return about + drawn + table("Widths", Data([columns[name] for name in names], rows))

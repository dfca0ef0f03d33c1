"""Sections of a timed generation: time by phase, roofline, energy, the die."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unmask.report.html import plots
from unmask.report.html.figures import Data, facts, figure, number, table
from unmask.report.html.treemap import treemap
from unmask.report.names import part_title

_LEAST_OF_RUN = 1e-4
"""A phase with less of the time is no point of the roofline."""


def simulation(found: Mapping[str, Any]) -> str:
    """Everything of the JSON of `unmask sim`."""
    moved, peak = found["bandwidth_gbps"], found["peak_bandwidth_gbps"]
    head = facts(
        [
            ("tokens/s", number(float(found["tokens_per_second"]))),
            ("tokens/J", number(float(found["tokens_per_joule"]))),
            ("latency", f"{found['seconds']:.4g} s, {found['cycles']:,} cycles at {found['clock_ghz']:g} GHz"),
            ("memory", f"{moved:,.1f} GB/s of {peak:,.1f}, {moved / peak:.1%}"),
            ("steps", f"{found['steps']:,}, {found['tokens']:,} tokens, {found['reading']} reading"),
            ("formats", ", ".join(f"{role.replace('_', ' ')} {form}" for role, form in found["formats"].items())),
            ("assumed", "; ".join(found["assumptions"])),
        ]
    )
    return "".join((head, _phases(found), _bounds(found), _roofline(found), memories(found), costs(found)))


def _phases(found: Mapping[str, Any]) -> str:
    kinds = plots.phase_colours(found["by_phase"])
    per_cycle = 1e-6 / found["clock_ghz"]
    bars = {"whole run": {phase: work["cycles"] * per_cycle for phase, work in found["by_phase"].items()}}
    for name, step in found["by_step"].items():
        bars[f"{name}, {step['runs']:,} times"] = {phase: cycles * per_cycle for phase, cycles in step["cycles_by_phase"].items()}
    rows = [(bar, phase, value) for bar, parts in bars.items() for phase, value in parts.items()]
    drawing = plots.stacked("time by phase", bars, "ms", kinds, shares=True)
    return figure("Time by phase", drawing, Data(("bar", "phase", "ms"), rows), "Each bar is a whole; the length of a part is its share.")


def _bounds(found: Mapping[str, Any]) -> str:
    rows = [
        (
            phase,
            work["cycles"] / found["clock_ghz"] / 1e6,
            100 * work["share"],
            work["hbm_bytes"] / max(work["cycles"], 1) * found["clock_ghz"],
            work["bound"]["by"],
            100 * min(work["bound"]["share"], 1.0),
            100 * found_energy(found, phase),
        )
        for phase, work in found["by_phase"].items()
    ]
    return table(
        "What bounds each phase", Data(("phase", "ms", "% of the time", "GB/s", "busiest", "busy, %", "% of the energy of events"), rows)
    )


def found_energy(found: Mapping[str, Any], phase: str) -> float:
    """A phase's share of the energy that events take."""
    by_phase: Mapping[str, float] = found["energy"]["by_phase"]
    return by_phase.get(phase, 0.0) / (sum(by_phase.values()) or 1)


def _roofline(found: Mapping[str, Any]) -> str:
    kinds = plots.phase_colours(found["by_phase"])
    bandwidth, points = found["peak_bandwidth_gbps"], []
    for phase, work in found["by_phase"].items():
        engine = "matrix" if work["operations"].get("matrix") else "vector"
        operations = work["operations"].get(engine, 0)
        if operations and work["hbm_bytes"] and work["share"] >= _LEAST_OF_RUN:
            seconds = work["cycles"] / found["clock_ghz"] / 1e9
            points.append(plots.Point(operations / work["hbm_bytes"], operations / seconds / 1e12, f"{phase} ({engine})", kinds[phase]))
    if not points:
        return ""
    ridges = {engine: peak * 1000 / bandwidth for engine, peak in found["peak_tops"].items()}
    right = 2 * max(*ridges.values(), *(point.x for point in points))
    left = min(*ridges.values(), *(point.x for point in points)) / 2
    roofs = [
        (f"{engine} engine, {number(float(peak))} TOP/s", [(ridges[engine], peak), (right, peak)])
        for engine, peak in found["peak_tops"].items()
    ]
    top = max(ridges.values())
    roofs.append((f"memory, {number(float(bandwidth))} GB/s", [(left, left * bandwidth / 1000), (top, top * bandwidth / 1000)]))
    drawing = plots.scatter("roofline", points, "operations per byte of HBM traffic", "TOP/s", roofs=roofs)
    drawing += plots.legend({point.name: point.kind for point in points})
    data = Data(("phase", "operations per byte", "TOP/s"), [(point.name, point.x, point.y) for point in points])
    note = "A phase's time is what it adds to the run's: work done ahead, in the time of the phase before, may lift it above a roof."
    return figure("Roofline", drawing, data, note)


def memories(found: Mapping[str, Any]) -> str:
    """The most in use of every on-chip memory."""
    rows: list[tuple[str, int, int, float, str]] = []
    for name, used in found["sram_high_water"].items():
        memory, unit = name.split("_")
        capacity = found["sram_capacity"][name]
        rows.append((f"{memory} SRAM", used, capacity, 100 * used / capacity, unit))
    return table("On-chip memories", Data(("memory", "most used", "capacity", "% of it", "unit"), rows))


def costs(found: Mapping[str, Any]) -> str:
    """Energy, power and the die: what `unmask.silicon.cost.figures.cost_figures` gives."""
    energy, area = found["energy"], found["area"]
    parts = {part_title(name): value for name, value in sorted(energy["by_part"].items(), key=lambda item: -item[1]) if value}
    power = facts(
        [
            ("energy", f"{energy['total_j']:.4g} J, {energy['basis']}"),
            ("power", f"{found['power_w']:,.4g} W on average, {found['peak_power_w']:,.4g} W at the most"),
            ("die", f"{area['total_mm2']:,.4g} mm2 at {area['node_nm']:g} nm"),
        ]
    )
    whole = sum(parts.values())
    shown = {name: value for name, value in parts.items() if value >= 0.001 * whole}
    of_energy = figure("Energy by part", plots.ranked("energy by part", shown, "J"), Data(("part", "J"), list(parts.items())))
    blocks = {part_title(name): value for name, value in sorted(area["by_block"].items(), key=lambda item: -item[1]) if value}
    note = "Areas are to scale, places are not a floorplan; the memory interface is the die's side of the DRAM."
    of_area = figure("The machine, block by block", treemap(blocks, "mm2"), Data(("block", "mm2"), list(blocks.items())), note)
    return power + of_energy + of_area

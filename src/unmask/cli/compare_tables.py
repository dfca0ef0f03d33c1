"""The tables of `unmask compare`."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unmask.report.names import part_title

_WIDTH = 120
"""Where there is no terminal: wide enough for all tables."""
_RATES = {"tokens_per_s": "tokens/s", "tokens_per_j": "tokens/J"}
_CONDITIONS = {"memory_gbps": "memory bandwidth", "area_mm2": "die area", "power_w": "power"}


def show(found: dict[str, Any]) -> None:
    """Print the figures of `unmask.report.comparison.compare`."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH)
    console.print(
        f"{escape(found['model'])} on {escape(found['machine'])} and on {escape(found['gpu_name'])}: batch {found['batch']}, "
        f"prompt {found['prompt']}, {found['generate']} new tokens in blocks of {found['block']}, cache {found['policy']['cache']}, "
        f"commit {found['policy']['commit']}, {found['sim']['steps']:,} steps"
    )
    formats = ", ".join(f"{role.replace('_', ' ')} {form}" for role, form in found["formats"].items())
    console.print(f"machine: {formats}; {found['reading']} reading")
    console.print(f"GPU: {escape(found['gpu_basis'])}")
    console.print("assumed: " + "; ".join(found["assumptions"]) + "\n")
    console.print(_sides(found))
    console.print()
    console.print(_rows(found))
    for row in found["rows"]:
        console.print(f"  {row['name']}: {row['note']}")
    console.print()
    for condition in found["conditions"]:
        relation = "no more" if condition["met"] else "more"
        sides = " and ".join(_number(condition[side]) for side in ("npu", "gpu"))
        console.print(f"{relation} {_CONDITIONS[condition['name']]} than the GPU: {sides}")
    for target in found["targets"]:
        state = "met" if target["met"] else "missed"
        console.print(f"target {target['target']:g}x {_RATES[target['name']]}: {state}, {target['found']:.2f}x")
    _show_bounds(found, console)
    if found["published"] is not None:
        console.print(f"published: {found['published']['source']}; its tokens/s and tokens/J here are its gains times this GPU's")


def _number(value: float) -> str:
    """Four digits, never an exponent of a large one."""
    return f"{value:,.4g}" if value < 1e4 else f"{value:,.0f}"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(columns[0], no_wrap=True)
    for column in columns[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _sides(found: dict[str, Any]) -> Table:
    npu, gpu, published = found["npu"], found["gpu"], found["published"]
    theirs = published or {}
    table = _table("", escape(found["machine"]), escape(found["gpu_name"]), "here", *(["published NPU"] if published else []))
    for name, title in _RATES.items():
        cells = [_number(npu[name]), _number(gpu[name]), f"{found['ratio'][name]:.2f}x"]
        table.add_row(title, *cells, *([f"{_number(theirs[name])}, {theirs['ratio'][name]:g}x"] if published else []))
    table.add_row("latency, s", _number(npu["seconds"]), _number(gpu["seconds"]), f"{gpu['seconds'] / npu['seconds']:.2f}x")
    shares = [f"{side['sampling_share']:.2%}" for side in (npu, gpu)]
    table.add_row("sampling, of the time", *shares, "", *([f"under {theirs['sampling_share_below']:.0%}"] if published else []))
    for name, title in (
        ("energy_j", "energy, J"),
        ("average_w", "power on average, W"),
        ("power_w", "power at the most, W"),
        ("area_mm2", "die, mm2"),
        ("memory_gbps", "memory, GB/s"),
    ):
        table.add_row(title, _number(npu[name]), _number(gpu[name]), f"{npu[name] / gpu[name]:.2f}x")
    multiplies = [_number(side["peak_multiplies"] / 1e12) for side in (npu, gpu)]
    table.add_row("peak multiplies, 10^12/s", *multiplies, f"{npu['peak_multiplies'] / gpu['peak_multiplies']:.2f}x")
    return table


def _rows(found: dict[str, Any]) -> Table:
    table = _table("with", "tokens/s", "GPU", "ratio", "tokens/J", "GPU", "ratio")
    as_is = {"name": "both as they are", **{side: found[side] for side in ("npu", "gpu", "ratio")}}
    for row in (as_is, *found["rows"]):
        cells: list[str] = []
        for name in _RATES:
            cells += [_number(row["npu"][name]), _number(row["gpu"][name]), f"{row['ratio'][name]:.2f}x"]
        table.add_row(row["name"], *cells)
    return table


def _show_bounds(found: dict[str, Any], console: Console) -> None:
    """What stands in the way, where a target is missed."""
    missed = {target["name"] for target in found["targets"] if not target["met"]}
    bounds = found["bounds"]
    if "tokens_per_s" in missed:
        for phase in bounds["phases"]:
            console.print(f"  {phase['phase']}: {phase['share']:.0%} of the time, bound by {phase['by']}, busy {phase['busy']:.0%} of it")
        gain = found["ratio"]["tokens_per_s"] * bounds["speedup_if_busy"]
        console.print(f"  with the busiest unit of every phase always busy: {gain:.2f}x tokens/s")
    if "tokens_per_j" in missed:
        parts = ", ".join(f"{part_title(name)} {share:.0%}" for name, share in bounds["energy"].items())
        console.print(f"  energy: {parts}")
        fixed = bounds["fixed_energy"]
        both, a_byte = fixed["moving"] + fixed["products"], fixed["moving"] / fixed["moved_bytes"] * 1e12
        console.print(
            f"  the target leaves the machine {_number(fixed['allowed_j'])} J; moving {_number(fixed['moved_bytes'] / 1e9)} GB takes "
            f"{_number(fixed['moving'])} J ({_number(a_byte)} pJ a byte, DRAM and interface), products "
            f"{_number(fixed['products'])} J: {_number(both)} J, which is {fixed['ratio']:.1f}x, before any SRAM, wire, clock or leakage; "
            f"with room for all rows on the die {_number(fixed['least_bytes'] / 1e9)} GB, and {fixed['least_ratio']:.1f}x"
        )

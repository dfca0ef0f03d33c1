"""The section of a comparison with a GPU and with the published NPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unmask.report.html import plots
from unmask.report.html.figures import Cell, Data, facts, figure, table
from unmask.report.names import part_title

RATES = {"tokens_per_s": "tokens/s", "tokens_per_j": "tokens/J"}
_FIGURES = {
    "tokens_per_s": "tokens/s",
    "tokens_per_j": "tokens/J",
    "seconds": "latency, s",
    "sampling_share": "sampling, share of the time",
    "energy_j": "energy, J",
    "average_w": "power on average, W",
    "power_w": "power at the most, W",
    "area_mm2": "die, mm2",
    "memory_gbps": "memory, GB/s",
    "peak_multiplies": "peak multiplies, 10^12/s",
}


def versus(found: Mapping[str, Any]) -> str:
    """Everything of the JSON of `unmask compare` but its simulation."""
    return "".join((_head(found), _gains(found), _sides(found), _variants(found), _time(found), _bound(found)))


def _head(found: Mapping[str, Any]) -> str:
    states = {True: "met", False: "missed"}
    pairs = [
        (f"target {target['target']:g}x {RATES[target['name']]}", f"{states[target['met']]}: {target['found']:.2f}x")
        for target in found["targets"]
    ]
    names = {"memory_gbps": "memory bandwidth", "area_mm2": "die area", "power_w": "power"}
    for condition in found["conditions"]:
        relation = "no more than the GPU" if condition["met"] else "more than the GPU"
        pairs.append((names[condition["name"]], f"{relation}: {condition['npu']:,.4g} and {condition['gpu']:,.4g}"))
    policy = found["policy"]
    work = f"batch {found['batch']}, prompt {found['prompt']}, {found['generate']} new tokens in blocks of {found['block']}"
    decoding = f"cache {policy['cache']}, commit {policy['commit']}"
    pairs += [("both run", f"{work}, {decoding}"), ("the GPU's figures", found["gpu_basis"])]
    return facts(pairs)


def _gains(found: Mapping[str, Any]) -> str:
    bars: dict[str, float] = {}
    kinds: dict[str, str] = {}
    targets = {target["name"]: target["target"] for target in found["targets"]}
    for name, title in RATES.items():
        for who, gain, kind in (
            (found["machine"], found["ratio"][name], "c0"),
            ("published NPU", (found["published"] or {}).get("ratio", {}).get(name), "c1"),
            ("target", targets.get(name), "c7"),
        ):
            if gain is not None:
                bars[f"{title}, {who}"] = gain
                kinds[f"{title}, {who}"] = kind
    drawing = plots.ranked("gains over the GPU", bars, "x", kinds)
    source = (found["published"] or {}).get("source")
    return figure(
        f"Gains over {found['gpu_name']}", drawing, Data(("what", "times"), list(bars.items())), f"Published: {source}." if source else ""
    )


def _sides(found: Mapping[str, Any]) -> str:
    published = found["published"]
    rows: list[list[Cell]] = []
    for name, title in _FIGURES.items():
        unit = 1e12 if name == "peak_multiplies" else 1
        npu, gpu = found["npu"][name] / unit, found["gpu"][name] / unit
        row: list[Cell] = [title, npu, gpu, npu / gpu]
        if published is not None:
            row.append(f"under {published['sampling_share_below']:g}" if name == "sampling_share" else published.get(name))
        rows.append(row)
    columns = ["", found["machine"], found["gpu_name"], "ratio", *(["published NPU: its gain times this GPU"] if published else [])]
    return table("Side by side", Data(columns, rows))


def _variants(found: Mapping[str, Any]) -> str:
    rows: list[list[Cell]] = []
    for row in ({"name": "both as they are", "note": "", **{side: found[side] for side in ("npu", "gpu", "ratio")}}, *found["rows"]):
        cells: list[Cell] = [row["name"]]
        for name in RATES:
            cells += [row["npu"][name], row["gpu"][name], row["ratio"][name]]
        rows.append([*cells, row["note"]])
    return table("Like with like", Data(("with", "tokens/s", "GPU", "ratio", "tokens/J", "GPU", "ratio", "how"), rows))


def _time(found: Mapping[str, Any]) -> str:
    bars = {}
    for name, side in ((found["machine"], found["npu"]), (found["gpu_name"], found["gpu"])):
        bars[name] = {"transformer": side["seconds"] * (1 - side["sampling_share"]), "sampling": side["seconds"] * side["sampling_share"]}
    drawing = plots.stacked("transformer and sampling", bars, "s", plots.colours(["transformer", "sampling"]))
    rows = [(side, part, value) for side, parts in bars.items() for part, value in parts.items()]
    return figure("Transformer and sampling", drawing, Data(("side", "part", "s"), rows))


def _bound(found: Mapping[str, Any]) -> str:
    bounds = found["bounds"]
    rows = [(phase["phase"], 100 * phase["share"], phase["by"], 100 * phase["busy"]) for phase in bounds["phases"]]
    gain = found["ratio"]["tokens_per_s"] * bounds["speedup_if_busy"]
    note = facts([("with the busiest unit of every phase always busy", f"{gain:.2f}x tokens/s of the GPU")])
    times = table("What bounds the machine's time", Data(("phase", "% of the time", "bound by", "busy, % of it"), rows)) + note
    ratio, summed = found["ratio"]["tokens_per_j"], 0.0
    parts: list[Sequence[Cell]] = []
    for name, share in bounds["energy"].items():
        summed += share
        parts.append((part_title(name), 100 * share, ratio / share, ratio / summed))
    columns = ("part", "% of the energy", "x tokens/J if it were all", "x tokens/J with it and those above")
    fixed = bounds["fixed_energy"]
    known = [
        (f"moving {fixed['moved_bytes'] / 1e9:,.4g} GB between DRAM and die", f"{fixed['moving']:,.4g} J"),
        ("products", f"{fixed['products']:,.4g} J"),
        ("with these two alone", f"{fixed['ratio']:.1f}x tokens/J of the GPU"),
    ]
    if fixed["least_bytes"] is not None:
        known.append((f"with room for all rows on the die, {fixed['least_bytes'] / 1e9:,.4g} GB", f"{fixed['least_ratio']:.1f}x"))
    if fixed["allowed_j"] is not None:
        known.append(("the target leaves for everything", f"{fixed['allowed_j']:,.4g} J"))
    return times + table("What bounds tokens/J", Data(columns, parts)) + facts(known)

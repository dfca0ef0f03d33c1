"""The section of a trace: what every engine does, the memories' use and the bandwidth, over the cycles of a step."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.errors import UnmaskError
from unmask.report.html import plots
from unmask.report.html.figures import Data, figure, number

BINS = 400
"""Columns of the timeline, and values of a counter."""
_LEVELS = 10
"""Shades of an engine that is busy for a part of a column."""
_LEFT, _ROW = 110, 30
F64 = NDArray[np.float64]


def timeline(found: Mapping[str, Any]) -> str:
    """Every step of a trace of `unmask sim --trace`.

    Raises:
        UnmaskError: events that such a trace does not have.
    """
    by_process: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    try:
        for event in found["traceEvents"]:
            by_process[event["pid"]].append(event)
        return "".join(_step(events) for events in by_process.values())
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UnmaskError(f"a trace with events that unmask does not write: {error!r}") from None


def _step(events: Sequence[Mapping[str, Any]]) -> str:
    title = next(event["args"]["name"] for event in events if event["name"] == "process_name")
    tracks = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    slices = [event for event in events if event["ph"] == "X"]
    if not slices:
        return ""
    edges = np.linspace(min(event["ts"] for event in slices), max(event["ts"] + event["dur"] for event in slices), BINS + 1)
    busy = {name: _busy([event for event in slices if event["tid"] == track], edges) for track, name in tracks.items() if name != "phases"}
    phases = [event for event in slices if tracks[event["tid"]] == "phases"]
    return f"<h3>{escape(title)}</h3>" + _engines(title, busy, phases, edges) + _counters(title, events, edges)


def _busy(slices: Sequence[Mapping[str, Any]], edges: F64) -> F64:
    """The share of each bin that is inside a slice."""
    if not slices:
        return np.zeros(BINS)
    starts = np.array([event["ts"] for event in slices], np.float64)
    lengths = np.array([event["dur"] for event in slices], np.float64)
    order = np.argsort(starts, kind="stable")
    starts, lengths = starts[order], lengths[order]
    corners = np.ravel(np.column_stack((starts, starts + lengths)))
    so_far = np.ravel(np.column_stack((np.cumsum(lengths) - lengths, np.cumsum(lengths))))
    share: F64 = np.clip(np.diff(np.interp(edges, corners, so_far)) / np.diff(edges), 0, 1)
    return share


def _engines(title: str, busy: Mapping[str, F64], phases: Sequence[Mapping[str, Any]], edges: F64) -> str:
    right, height = plots.WIDTH - 20.0, 20 + _ROW * (len(busy) + 1)
    x = plots.Scale(edges[0], edges[-1], _LEFT, right)
    kinds = plots.phase_colours(dict.fromkeys(event["name"] for event in phases))
    pieces = [
        f'<path class=grid d="M{x(tick):.1f} 6V{height}"/>' + plots.text(x(tick), height + 10, f"{number(tick)} us", "middle", "small")
        for tick in x.ticks
    ]
    pieces.append(plots.text(_LEFT - 8, 22, "phase", "end"))
    least = (edges[-1] - edges[0]) / 2000
    for event in phases:
        if event["dur"] >= least:
            width = x(event["ts"] + event["dur"]) - x(event["ts"])
            hint = f"{event['name']}, {event['args']['cycles']:,} cycles from {event['args']['start']:,}"
            pieces.append(plots.box(x(event["ts"]), 10, width, _ROW - 8, kinds[event["name"]], hint))
    for row, (name, shares) in enumerate(busy.items(), 1):
        y = 10.0 + _ROW * row
        pieces.append(plots.text(_LEFT - 8, y + 12, name, "end"))
        levels = np.ceil(shares * _LEVELS).astype(int)
        starts = np.flatnonzero(np.diff(levels, prepend=-1))
        for first, last in zip(starts, [*starts[1:], BINS], strict=True):
            if levels[first]:
                hint = f"{name}: busy {shares[first:last].mean():.0%}"
                pieces.append(
                    plots.box(x(edges[first]), y, x(edges[last]) - x(edges[first]), _ROW - 8, "c0", hint, levels[first] / _LEVELS)
                )
    drawing = plots.svg(height + 26, f"engines: {title}", "".join(pieces)) + plots.legend(kinds)
    rows = [(float(edge), *(float(shares[at]) for shares in busy.values())) for at, edge in enumerate(edges[:-1])]
    return figure(
        f"Engines over time: {title}",
        drawing,
        Data(("us", *busy), rows),
        "The stronger its colour, the more of the time an engine is busy.",
    )


def _counters(title: str, events: Sequence[Mapping[str, Any]], edges: F64) -> str:
    """SRAM and bandwidth: the most in every bin."""
    values: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    for event in events:
        if event["ph"] == "C":
            ((unit, value),) = event["args"].items()
            values[event["name"]].append((event["ts"], value, unit))
    shown = []
    for name, found in values.items():
        unit = found[0][2]
        limit = re.search(r"[\d,.]+", unit)
        times, levels = (np.array(column, np.float64) for column in ([at for at, _, _ in found], [level for _, level, _ in found]))
        most = [_most(times, levels, first, last) for first, last in pairwise(edges.tolist())]
        if not any(most):
            continue
        top = float(limit.group().replace(",", "")) if limit else max(most)
        drawing = plots.steps(f"{name}: {title}", edges.tolist(), most, "us", f"{name}, {unit}", top)
        shown.append(figure(f"{name} over time: {title}", drawing, Data(("us", unit), list(zip(edges[:-1].tolist(), most, strict=True)))))
    return "".join(shown)


def _most(times: F64, levels: F64, first: float, last: float) -> float:
    """The highest level between two moments of what keeps each level until the next time."""
    begin, end = int(np.searchsorted(times, first, side="right")) - 1, int(np.searchsorted(times, last, side="left"))
    return float(levels[max(begin, 0) : max(end, begin + 1, 1)].max())

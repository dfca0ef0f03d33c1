"""Drawings as SVG, in colours that the page's style chooses by number."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

from unmask.report.html.figures import number

WIDTH = 900
_COLOURS = 10
"""Classes `c0` to `c9` of the page's style."""
_LEFT = 170
"""Room for names of bars and tracks."""


def svg(height: float, title: str, body: str) -> str:
    """A drawing `WIDTH` wide."""
    return f'<svg class=plot role=img viewBox="0 0 {WIDTH} {height:.0f}" aria-label="{escape(title, quote=True)}">{body}</svg>'


def text(x: float, y: float, content: str, anchor: str = "start", kind: str = "") -> str:
    """A line of text whose middle is at height `y`."""
    mark = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor={anchor}{mark}>{escape(content)}</text>'


def box(x: float, y: float, width: float, height: float, kind: str, hint: str, opacity: float = 1) -> str:
    """A rectangle that says `hint` where the pointer rests on it."""
    shade = "" if opacity >= 1 else f' fill-opacity="{opacity:.2f}"'
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.2):.2f}" height="{height:.1f}" class="{kind}"{shade}>'
        f"<title>{escape(hint)}</title></rect>"
    )


_PHASES = {
    "attention": "c0",
    "feed-forward": "c1",
    "lm-head": "c2",
    "sampling-1-confidence": "c3",
    "smoothing": "c4",
    "sampling-4-select": "c5",
    "sampling-2-scalars": "c6",
    "setup": "c7",
    "embedding": "c8",
    "sampling-3-topk": "c9",
}


def phase_colours(phases: Iterable[str]) -> dict[str, str]:
    """A colour class for each phase of a step, the same in every drawing of a page."""
    return {phase: _PHASES.get(phase, f"c{_COLOURS - 1}") for phase in phases}


def colours(names: Sequence[str]) -> dict[str, str]:
    """A colour class for each name, in order."""
    return {name: f"c{index % _COLOURS}" for index, name in enumerate(names)}


def legend(kinds: Mapping[str, str]) -> str:
    """Names with their colours."""
    entries = (
        f'<span><svg viewBox="0 0 10 10"><rect width=10 height=10 class={kind} /></svg>{escape(name)}</span>'
        for name, kind in kinds.items()
    )
    return f"<p class=legend>{''.join(entries)}</p>"


def stacked(title: str, bars: Mapping[str, Mapping[str, float]], unit: str, kinds: Mapping[str, str], *, shares: bool = False) -> str:
    """Horizontal bars of parts.

    Args:
        title: for readers that do not see it.
        bars: of each bar its parts' values.
        unit: of the values.
        kinds: colour of each part.
        shares: every bar is as long as the others.
    """
    longest = max((sum(parts.values()) for parts in bars.values()), default=0) or 1
    pieces: list[str] = []
    for row, (name, parts) in enumerate(bars.items()):
        whole, x, y = sum(parts.values()), float(_LEFT), 8 + 40 * row
        scale = (WIDTH - _LEFT - 110) / ((whole or 1) if shares else longest)
        pieces.append(text(_LEFT - 8, y + 14, name, "end"))
        for part, value in parts.items():
            if value <= 0:
                continue
            share = value / whole
            pieces.append(box(x, y, value * scale, 28, kinds[part], f"{name}, {part}: {number(value)} {unit}, {share:.1%}"))
            if value * scale > 52:
                pieces.append(text(x + value * scale / 2, y + 14, f"{share:.0%}", "middle", "on"))
            x += value * scale
        pieces.append(text(x + 6, y + 14, f"{number(whole)} {unit}"))
    return svg(16 + 40 * len(bars), title, "".join(pieces)) + legend(
        {name: kinds[name] for name in kinds if any(name in bar for bar in bars.values())}
    )


def ranked(title: str, values: Mapping[str, float], unit: str, kinds: Mapping[str, str] | None = None) -> str:
    """A horizontal bar for each value, as they come."""
    factor, unit = _prefixed(max(values.values(), default=0), unit)
    values = {name: value * factor for name, value in values.items()}
    longest, pieces = max(values.values(), default=0) or 1, []
    for row, (name, value) in enumerate(values.items()):
        y, length = 4 + 26 * row, value / longest * (WIDTH - _LEFT - 130)
        pieces.append(text(_LEFT - 8, y + 10, name, "end"))
        pieces.append(box(_LEFT, y, length, 20, (kinds or {}).get(name, "c0"), f"{name}: {number(value)} {unit}"))
        pieces.append(text(_LEFT + length + 6, y + 10, f"{number(value)} {unit}"))
    return svg(10 + 26 * len(values), title, "".join(pieces))


def _prefixed(largest: float, unit: str) -> tuple[float, str]:
    """Joules in the largest of J, mJ, uJ and nJ of which there is at least one; other units as they are: the factor, and the unit."""
    if unit == "J":
        for factor, name in ((1, "J"), (1e3, "mJ"), (1e6, "uJ"), (1e9, "nJ")):
            if largest * factor >= 1:
                return factor, name
    return 1, unit


class Point(NamedTuple):
    """A point of a scatter plot."""

    x: float
    y: float
    name: str
    kind: str


class Scale:
    """From values to places along an axis, in proportion or by their logarithm."""

    def __init__(self, low: float, high: float, first: float, last: float, *, log: bool = False) -> None:
        self.low, self.high, self._log = low, high if high > low else low + 1, log
        self._first, self._last = first, last

    def __call__(self, value: float) -> float:
        low, high, at = (math.log10(v) if self._log else v for v in (self.low, self.high, value))
        return self._first + (at - low) / (high - low) * (self._last - self._first)

    @property
    def ticks(self) -> list[float]:
        """Round values within the axis; of a logarithmic one powers of ten, and 2 and 5 times those where there are few."""
        if self._log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            mantissas = (1.0, 2.0, 5.0) if len(powers) <= 4 else (1.0,)
            found = [mantissa * 10.0**power for power in powers for mantissa in mantissas]
        else:
            step = 10.0 ** math.floor(math.log10((self.high - self.low) / 4))
            step *= next(factor for factor in (1, 2, 5, 10) if (self.high - self.low) / (step * factor) <= 6)
            found = [step * index for index in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]
        return [tick for tick in found if self.low <= tick <= self.high]


def axes(x: Scale, y: Scale, x_title: str, y_title: str, bottom: float, top: float, left: float, right: float) -> str:
    """Grid, ticks and titles."""
    pieces = []
    for tick in x.ticks:
        pieces.append(
            f'<path class=grid d="M{x(tick):.1f} {top:.1f}V{bottom:.1f}"/>' + text(x(tick), bottom + 14, number(tick), "middle", "small")
        )
    for tick in y.ticks:
        pieces.append(
            f'<path class=grid d="M{left:.1f} {y(tick):.1f}H{right:.1f}"/>' + text(left - 6, y(tick), number(tick), "end", "small")
        )
    pieces.append(text((left + right) / 2, bottom + 34, x_title, "middle"))
    pieces.append(text(left, top - 12, y_title))
    return "".join(pieces)


def scatter(
    title: str,
    points: Sequence[Point],
    x_title: str,
    y_title: str,
    *,
    roofs: Sequence[tuple[str, Sequence[tuple[float, float]]]] = (),
    log: bool = True,
) -> str:
    """Points, and lines above them.

    Args:
        title: for readers that do not see it.
        points: what is drawn; named by their hints and, where they differ, the legend.
        x_title, y_title: of the axes.
        roofs: lines with their names, which are written at the end of level ones and at the start of others.
        log: both axes are logarithmic.
    """
    left, right, top, bottom = 76.0, WIDTH - 20.0, 30.0, 380.0
    corners = [(point.x, point.y) for point in points] + [corner for _, line in roofs for corner in line]
    ranges = [_room(min(values), max(values), log=log) for values in zip(*corners, strict=True)]
    x, y = Scale(*ranges[0], left, right, log=log), Scale(*ranges[1], bottom, top, log=log)
    pieces = [axes(x, y, x_title, y_title, bottom, top, left, right)]
    for name, line in roofs:
        path = "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in line)
        (first, low), (last, high) = line[0], line[-1]
        label = (
            text(x(last) - 4, y(high) - 12, name, "end", "small")
            if low == high
            else text(x(first) + 34, y(low) + 6, name, "start", "small")
        )
        pieces.append(f'<path class=roof d="M{path}"/>' + label)
    for point in points:
        hint = f"{point.name}: {number(point.x)}, {number(point.y)}"
        pieces.append(f'<circle cx="{x(point.x):.1f}" cy="{y(point.y):.1f}" r=7 class={point.kind}><title>{escape(hint)}</title></circle>')
    return svg(bottom + 48, title, "".join(pieces))


def _room(low: float, high: float, *, log: bool) -> tuple[float, float]:
    """An axis with room beyond its outermost points."""
    if log:
        return low / 1.3, high * 1.3
    space = 0.05 * (high - low or abs(high))
    return low - space, high + space


def steps(title: str, times: Sequence[float], values: Sequence[float], x_title: str, y_title: str, most: float) -> str:
    """A quantity that keeps its value until the next time, under its limit `most`."""
    left, right, top, bottom = 76.0, WIDTH - 20.0, 30.0, 130.0
    x, y = Scale(times[0], times[-1], left, right), Scale(0, max(most, max(values, default=0)), bottom, top)
    path = f"M{x(times[0]):.1f} {bottom:.1f}" + "".join(
        f"V{y(value):.1f}H{x(until):.1f}" for value, until in zip(values, times[1:], strict=False)
    )
    area = f'<path class="c0 area" d="{path}V{bottom:.1f}Z"/>'
    limit = f'<path class=roof d="M{left} {y(most):.1f}H{right}"/>'
    return svg(bottom + 42, title, axes(x, y, x_title, y_title, bottom, top, left, right) + area + limit)

"""A search as a picture: every pair of objectives over each other with the front, or one objective over the trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations
from math import floor, log10
from pathlib import Path
from typing import Any

from unmask.errors import UnmaskError
from unmask.explore.evaluate import Task
from unmask.explore.store import Point

_COLOURS = {"tried": "#9aa5b1", "front": "#d1495b"}
_SIZES = {"tried": 4, "front": 7}


@dataclass(frozen=True)
class _Dot:
    number: int
    place: dict[str, float]
    fields: str


def draw(task: Task, points: Sequence[Point], front: Sequence[Point], folder: Path) -> list[Path]:
    """Write `front.png` and `front.html`; the page holds all it needs and tells a point's fields under the pointer.

    Args:
        task: what was searched.
        points: all trials; those that were not timed, or broke a limit, are left out.
        front: those that none beats.
        folder: where the files go.

    Returns:
        The files.

    Raises:
        UnmaskError: a file cannot be written.
    """
    tried = _dots(task, [point for point in points if not point.outcome.reason])
    best = _dots(task, front)
    files = [folder / "front.png", folder / "front.html"]
    try:
        _png(task, tried, best, files[0])
        _html(task, tried, best, files[1])
    except OSError as error:
        raise UnmaskError(f"{folder}: cannot write the plots: {error.strerror}") from None
    return files


def _dots(task: Task, points: Sequence[Point]) -> list[_Dot]:
    return [
        _Dot(
            point.number,
            dict(zip(task.objectives, point.objectives(task.objectives), strict=True)),
            "<br>".join(f"{name} {value}" for name, value in task.space.values(point.parameters).items()),
        )
        for point in points
    ]


def _axes(task: Task) -> dict[str, str]:
    """Titles of the objectives' axes."""
    return {measure.name: f"{measure.name}, {measure.unit}" for measure in task.measures}


def _title(task: Task, tried: Sequence[_Dot], best: Sequence[_Dot]) -> str:
    return f"machines from {task.space.base.name}, analytic reading: {len(tried):,} feasible trials, {len(best):,} on the front"


def _png(task: Task, tried: Sequence[_Dot], best: Sequence[_Dot], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    pairs, titles = list(combinations(task.objectives, 2)), _axes(task)
    figure = Figure(figsize=(5.2 * max(len(pairs), 1), 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    for index, (x, y) in enumerate(pairs):
        axes = figure.add_subplot(1, len(pairs), index + 1)
        for name, dots in (("tried", tried), ("front", best)):
            axes.scatter(
                [dot.place[x] for dot in dots], [dot.place[y] for dot in dots], label=name, color=_COLOURS[name], s=_SIZES[name] ** 2
            )
        axes.set(xlabel=titles[x], ylabel=titles[y], xscale="log", yscale="log")
        axes.minorticks_off()
        axes.set_xticks(*_ticks(tried, x))
        axes.set_yticks(*_ticks(tried, y))
        axes.grid(which="major", lw=0.4, color="0.85")
        axes.legend(fontsize=8)
    if not pairs:
        (only,) = task.objectives
        axes = figure.add_subplot()
        axes.scatter(
            [dot.number for dot in tried],
            [dot.place[only] for dot in tried],
            label="tried",
            color=_COLOURS["tried"],
            s=_SIZES["tried"] ** 2,
        )
        axes.step([dot.number for dot in tried], _least(tried, only), where="post", color=_COLOURS["front"], label="best so far")
        axes.set(xlabel="trial", ylabel=titles[only], yscale="log")
        axes.minorticks_off()
        axes.set_yticks(*_ticks(tried, only))
        axes.grid(which="major", lw=0.4, color="0.85")
        axes.legend(fontsize=8)
    figure.suptitle(_title(task, tried, best), fontsize=10)
    figure.savefig(path, dpi=150)


def _html(task: Task, tried: Sequence[_Dot], best: Sequence[_Dot], path: Path) -> None:
    from plotly.graph_objects import Figure, Scatter
    from plotly.subplots import make_subplots

    pairs, titles = list(combinations(task.objectives, 2)), _axes(task)
    figure: Figure = make_subplots(rows=1, cols=max(len(pairs), 1))
    (only, *_) = task.objectives
    for column, pair in enumerate(pairs or [None], 1):
        for name, dots in (("tried", tried), ("front", best)):
            figure.add_trace(
                Scatter(
                    x=[dot.number if pair is None else dot.place[pair[0]] for dot in dots],
                    y=[dot.place[only if pair is None else pair[1]] for dot in dots],
                    mode="markers",
                    marker={"color": _COLOURS[name], "size": _SIZES[name]},
                    text=[f"trial {dot.number}<br>{dot.fields}" for dot in dots],
                    name=name,
                    legendgroup=name,
                    showlegend=column == 1,
                ),
                row=1,
                col=column,
            )
        if pair is None:
            figure.update_xaxes(title_text="trial", row=1, col=column)
            figure.update_yaxes(**_logarithmic(titles[only], tried, only), row=1, col=column)
        else:
            figure.update_xaxes(**_logarithmic(titles[pair[0]], tried, pair[0]), row=1, col=column)
            figure.update_yaxes(**_logarithmic(titles[pair[1]], tried, pair[1]), row=1, col=column)
    figure.update_layout(title_text=_title(task, tried, best), template="plotly_white")
    figure.write_html(path, include_plotlyjs=True)


def _logarithmic(title: str, dots: Sequence[_Dot], name: str) -> dict[str, Any]:
    """An axis of the page."""
    places, labels = _ticks(dots, name)
    return {"title_text": title, "type": "log", "tickvals": places, "ticktext": labels}


def _ticks(dots: Sequence[_Dot], name: str) -> tuple[list[float], list[str]]:
    """Round values of a measure for a logarithmic axis, as many as are legible, and their labels without powers of ten."""
    values = [dot.place[name] for dot in dots if dot.place[name] > 0]
    if not values:
        return [], []
    low, high = min(values), max(values)
    powers, found = range(floor(log10(low)), floor(log10(high)) + 1), sorted({low, high})
    for mantissas in ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 5), (1,)):
        round_ones = [mantissa * 10.0**power for power in powers for mantissa in mantissas if low <= mantissa * 10.0**power <= high]
        if len(round_ones) < 3:
            break
        found = round_ones
    return found, [f"{tick:,.4g}" if tick < 1e4 else f"{tick:,.0f}" for tick in found]


def _least(dots: Sequence[_Dot], name: str) -> list[float]:
    """The least so far of a measure, at each trial."""
    return list(accumulate((dot.place[name] for dot in dots), min))

"""A generation's time as pictures: the roofline with its phases, and what each kind of step spends its time on.

Each is a PNG and an HTML page that needs nothing else.
"""

from __future__ import annotations

import html
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask.errors import UnmaskError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = {"matrix": "o", "vector": "s"}
_LEAST_SHARE = 0.005
"""A phase that takes less of a step is drawn with the others of its size."""
_LABELLED_SHARE = 0.085
"""A phase that takes less of a step has no room for its time."""
_LEAST_OF_RUN = 0.0001
"""A phase that takes less of the run is left out of the roofline."""
_OF_TIME = (
    "A phase's time is what it adds to the run's: work done ahead, in the time of the phase before, may lift it above a roof.\n"
    "Operations: two for each product of the matrix engine (circles), one for each element of the vector engine (squares)."
)


def check_plots(folder: Path) -> None:
    """Find out whether `write_plots` can work, before what is to be drawn is computed.

    Raises:
        UnmaskError: the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnmaskError(f"{folder}: cannot make the folder: {error.strerror}") from None


def write_plots(found: dict[str, Any], folder: Path) -> list[Path]:
    """Draw the figures of `unmask.report.generation.figures` that also name their `model`.

    Args:
        found: the figures.
        folder: where `roofline` and `steps` go, each as .png and .html; files of these names are replaced.

    Returns:
        The files.

    Raises:
        UnmaskError: a file cannot be written.
    """
    about = f"{found['model']} on {found['machine']}, batch {found['batch']}, cache {found['policy']['cache']}"
    written: list[Path] = []
    drawings: dict[str, tuple[str, Callable[[Axes, dict[str, Any]], None], str]] = {
        "roofline": (f"Roofline of the phases: {about}", _roofline, _OF_TIME),
        "steps": (f"A denoising step by phases: {about}", _steps, ""),
    }
    for name, (title, draw, note) in drawings.items():
        png, svg = _render(title, draw, found, note)
        try:
            for suffix, content in ((".png", png), (".html", _page(title, svg, found).encode())):
                (folder / f"{name}{suffix}").write_bytes(content)
                written.append(folder / f"{name}{suffix}")
        except OSError as error:
            raise UnmaskError(f"{folder}: cannot write {name}: {error.strerror}") from None
    return written


def _render(title: str, draw: Callable[[Axes, dict[str, Any]], None], found: dict[str, Any], note: str) -> tuple[bytes, str]:
    """PNG and SVG of a drawing, with what was timed above it and a note below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    draw(axes, found)
    figure.suptitle(title, fontsize=10)
    axes.set_title(_configuration(found), fontsize=7.5, color="0.3")
    figure.supxlabel(note, fontsize=7, color="0.3")
    png, svg = io.BytesIO(), io.StringIO()
    figure.savefig(png, format="png", dpi=150)
    figure.savefig(svg, format="svg")
    return png.getvalue(), svg.getvalue()[svg.getvalue().index("<svg") :]


def _configuration(found: dict[str, Any]) -> str:
    """One line: the generation, the clock and the formats."""
    formats = ", ".join(f"{role} {form}" for role, form in found["formats"].items())
    return (
        f"prompt {found['prompt']}, {found['generate']} new tokens in blocks of {found['block']}, {found['steps']:,} steps; "
        f"{found['clock_ghz']:g} GHz; {formats}"
    )


def _colours(found: dict[str, Any]) -> dict[str, str]:
    """A colour for each phase, the same in both drawings."""
    return {phase: f"C{number}" for number, phase in enumerate(found["by_phase"])}


def _roofline(axes: Axes, found: dict[str, Any]) -> None:
    peaks, bandwidth = found["peak_tops"], found["peak_bandwidth_gbps"]
    points = []
    for phase, work in found["by_phase"].items():
        engine = "matrix" if work["operations"].get("matrix") else "vector"
        operations = work["operations"].get(engine, 0)
        if operations and work["hbm_bytes"] and work["share"] >= _LEAST_OF_RUN:
            seconds = work["cycles"] / found["clock_ghz"] / 1e9
            points.append((phase, engine, operations / work["hbm_bytes"], operations / seconds / 1e12))
    ridges = [peak * 1000 / bandwidth for peak in peaks.values()]
    span = [x for _, _, x, _ in points] + ridges
    left, right = min(span) / 4, max(span) * 4
    for (engine, peak), ridge in zip(peaks.items(), ridges, strict=True):
        axes.plot([ridge, right], [peak, peak], color="0.4", lw=1.2)
        axes.annotate(f"{engine} engine, {peak:,.4g} TOP/s", (right, peak), ha="right", va="bottom", fontsize=8, color="0.3")
    top = max(ridges)
    axes.plot([left, top], [left * bandwidth / 1000, top * bandwidth / 1000], color="0.4", lw=1.2)
    axes.text(left * 1.4, left * bandwidth / 1000, f"memory, {bandwidth:,.4g} GB/s", fontsize=8, color="0.3", va="center")
    colours = _colours(found)
    for phase, engine, x, y in points:
        axes.plot(x, y, _MARKERS[engine], color=colours[phase], ms=8, label=f"{phase} ({engine})")
    axes.set(xscale="log", yscale="log", xlabel="operations per byte of HBM traffic", ylabel="TOP/s, 10¹² operations per second")
    axes.set_xlim(left, right)
    axes.grid(which="major", lw=0.4, color="0.85")
    axes.legend(fontsize=8, loc="lower right")


def _steps(axes: Axes, found: dict[str, Any]) -> None:
    steps = found["by_step"]
    phases = [phase for phase in found["by_phase"] if any(_share(step, phase) >= _LEAST_SHARE for step in steps.values())]
    milliseconds = [step["cycles"] / found["clock_ghz"] / 1e6 for step in steps.values()]
    names = [f"{name}\n{step['runs']:,} x {time:,.4g} ms" for (name, step), time in zip(steps.items(), milliseconds, strict=True)]
    left, colours = [0.0] * len(steps), _colours(found)
    for phase in phases:
        width = [_share(step, phase) for step in steps.values()]
        bars = axes.barh(names, width, left=left, label=phase, color=colours[phase], alpha=0.75)
        times = [f"{share * time:,.3g} ms" if share > _LABELLED_SHARE else "" for share, time in zip(width, milliseconds, strict=True)]
        axes.bar_label(bars, times, label_type="center", fontsize=8)
        left = [start + length for start, length in zip(left, width, strict=True)]
    axes.barh(names, [1 - start for start in left], left=left, color="0.8", label=f"others, each under {_LEAST_SHARE:.1%}")
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="share of the step")
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.figure.legend(fontsize=8, loc="outside lower center", ncols=4)


def _share(step: dict[str, Any], phase: str) -> float:
    share: float = step["cycles_by_phase"].get(phase, 0) / step["cycles"]
    return share


def _page(title: str, svg: str, found: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(phase)}</td><td>{work['cycles']:,}</td><td>{work['share']:.1%}</td><td>{work['hbm_bytes']:,}</td>"
        f"<td>{html.escape(work['bound']['by'])}</td></tr>"
        for phase, work in found["by_phase"].items()
    )
    facts = f"{found['cycles']:,} cycles, {found['seconds']:.4g} s, {found['tokens_per_second']:,.1f} tokens/s"
    assumed = "; ".join(found["assumptions"])
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>
<style>body {{ font: 14px sans-serif; margin: 2em auto; max-width: 60em }} svg {{ width: 100%; height: auto }}
td, th {{ padding: .15em .8em; text-align: right }} td:first-child, th:first-child {{ text-align: left }}</style></head>
<body><h1>{html.escape(title)}</h1><p>{facts}. Assumed: {html.escape(assumed)}.</p>
{svg}
<table><tr><th>phase</th><th>cycles</th><th>of the run</th><th>HBM bytes</th><th>bound by</th></tr>{rows}</table></body></html>
"""

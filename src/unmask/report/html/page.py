"""The page: its sections, its style and its script, in one file that asks the network for nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

from unmask.errors import UnmaskError
from unmask.report.html.canvas import canvas
from unmask.report.html.configuration import configuration
from unmask.report.html.others import sampling, search, unit, widths
from unmask.report.html.runs import Run
from unmask.report.html.simulation import costs, simulation
from unmask.report.html.timeline import timeline
from unmask.report.html.versus import versus

LARGEST = 8_000_000
"""Bytes of a page, at most."""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
"""What the page may load: nothing but what it holds."""


def _compared(found: Mapping[str, Any]) -> str:
    return versus(found) + f"<h3>The machine's run</h3>{simulation(found['sim'])}"


def _generated(found: Mapping[str, Any]) -> str:
    """The energy of a run that PyTorch did is not known."""
    return canvas(found) + (costs(found) if found.get("energy") else "")


_SECTIONS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "generate": _generated,
    "compare": _compared,
    "sim": simulation,
    "trace": timeline,
    "sampling": sampling,
    "search": search,
    "synth": unit,
    "synth-table": widths,
}
"""In the order of the page."""


def _title(run: Run) -> str:
    """A run's heading."""
    found = run.found
    match run.kind:
        case "generate":
            return f"Generation with {found['model']}"
        case "compare":
            return f"{found['machine']} against {found['gpu_name']}: {found['model']}"
        case "sim":
            return f"{found['model']} on {found['machine']}, batch {found['batch']}"
        case "trace":
            other = found["otherData"]
            return f"A step in time: {other.get('model', 'a model')} on {other.get('machine', 'a machine')}"
        case "sampling":
            return f"Sampling on {found['machine']}, {found['program']}"
        case "search":
            return f"Search: {', '.join(found['objectives'])}"
        case "synth":
            return f"Synthesis: {found['unit']}, {found['lanes']} lanes"
    return f"Synthesis: {found.get('unit', 'vector datapath')} by width"


def page(runs: Sequence[Run]) -> str:
    """The report of runs.

    Raises:
        UnmaskError: no run, a run without a field that its kind has, or more than a page may hold.
    """
    if not runs:
        raise UnmaskError("a report needs at least one run")
    order = list(_SECTIONS)
    entries = sorted(runs, key=lambda run: order.index(run.kind))
    sections, links = [], []
    for number, run in enumerate(entries, 1):
        title, content = _section(run)
        sections.append(f"<section id=run-{number}><h2>{escape(title)}</h2>{content}</section>")
        links.append(f'<a href="#run-{number}">{escape(title)}</a>')
    about = "".join(f"<h3>{escape(_title(run))}</h3>{configuration(run)}" for run in entries)
    sections.append(f"<section id=configuration><h2>Configuration and commands</h2>{about}</section>")
    links.append('<a href="#configuration">Configuration and commands</a>')
    heading = _title(entries[0])
    text = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><meta name="color-scheme" content="light dark">'
        f'<link rel="icon" href="data:,"><title>unmask: {escape(heading)}</title><style>{_resource("page.css")}</style></head><body>'
        f"<header><h1>unmask: {escape(heading)}</h1><nav>{''.join(links)}</nav></header><main>{''.join(sections)}</main>"
        f"<script>{_resource('page.js')}</script></body></html>\n"
    )
    if len(text.encode()) > LARGEST:
        raise UnmaskError(f"the report takes {len(text.encode()):,} bytes; expected at most {LARGEST:,}: give it fewer runs")
    return text


def _section(run: Run) -> tuple[str, str]:
    try:
        return _title(run), _SECTIONS[run.kind](run.found)
    except (KeyError, TypeError, AttributeError) as error:
        raise UnmaskError(f"{run.name}: not what this version of unmask writes for {run.kind}: {error!r}") from None


def _resource(name: str) -> str:
    return (resources.files("unmask.report.html") / name).read_text("utf-8").strip()

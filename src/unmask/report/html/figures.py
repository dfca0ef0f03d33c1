"""Figures and tables as HTML: every figure has its data as a download, every table sorts by a click on a column."""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

Cell = str | int | float | None

_LONG = 80
_LEAST_SHOWN = 0.01
"""Characters of a fact that gets a line of its own."""


_BREAKS = re.compile(r"([._])(?=\w)")
"""Where the name of a column may be broken."""


class Data(NamedTuple):
    """Rows under named columns."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def csv_link(title: str, data: Data) -> str:
    """A link that downloads the data as CSV, without a request."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(data.columns)
    writer.writerows(data.rows)
    name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    content = base64.b64encode(text.getvalue().encode()).decode()
    return f'<a class="csv" download="{name}.csv" href="data:text/csv;charset=utf-8;base64,{content}">CSV</a>'


def figure(title: str, drawing: str, data: Data, note: str = "") -> str:
    """A drawing, SVG or HTML, with its title, its data and a note."""
    below = f"<p class=note>{escape(note)}</p>" if note else ""
    return f"<figure><figcaption>{escape(title)} {csv_link(title, data)}</figcaption>{drawing}{below}</figure>"


def table(title: str, data: Data) -> str:
    """A sortable table; its first column names rows."""
    head = "".join(
        f"<th{' class=n' if _is_number(data, column) else ''}><button type=button>{_breakable(name)}</button></th>"
        for column, name in enumerate(data.columns)
    )
    numbers = [_is_number(data, column) for column in range(len(data.columns))]
    shares = ["%" in name for name in data.columns]
    body = "".join("<tr>" + "".join(map(_cell, row, numbers, shares)) + "</tr>" for row in data.rows)
    caption = f"<figcaption>{escape(title)} {csv_link(title, data)}</figcaption>"
    return f"<figure>{caption}<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></figure>"


def _breakable(name: str) -> str:
    return _BREAKS.sub(r"\1&#8203;", escape(name))


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and what they stand for."""
    entries = (
        f"<div{' class=long' if len(value) > _LONG else ''}><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs
    )
    return f"<dl>{''.join(entries)}</dl>"


def command(line: str) -> str:
    """A command to be typed."""
    return f"<pre class=command>{escape(line)}</pre>"


def number(value: Cell) -> str:
    """A value as a reader likes it: integers in full, others to four digits."""
    match value:
        case None:
            return ""
        case str():
            return value
        case int():
            return f"{value:,}"
    return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def percentage(value: float) -> str:
    """Of a column of shares: two places after the point."""
    return f"{value:.2f}" if value == 0 or abs(value) >= _LEAST_SHOWN else f"< {_LEAST_SHOWN:g}"


def _is_number(data: Data, column: int) -> bool:
    """Of a column that holds numbers; names in it stand for what has none."""
    return any(not isinstance(row[column], str | None) for row in data.rows)


def _cell(value: Cell, among_numbers: bool, share: bool) -> str:
    if isinstance(value, str) or value is None:
        return f"<td{' class=n' if among_numbers else ''}>{escape(value or '')}</td>"
    return f'<td class=n data-value="{value!r}">{escape(percentage(value) if share else number(value))}</td>'

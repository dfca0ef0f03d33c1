"""The tables of `unmask search`."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

_REASONS = 8
_WIDTH = 400
"""Of the front's table where there is no terminal; its columns are the varied fields."""


def show(found: dict[str, Any]) -> None:
    """Print what a search has found, as `unmask search --json` prints it."""
    console = Console(highlight=False, soft_wrap=True)
    given = ", ".join(f"{name} {value}" for name, value in found["workload"].items())
    console.print(f"{escape(found['model'])}, space {escape(found['space'])}" + (f": {escape(given)}" if given else ""))
    console.print(
        f"{found['trials']:,} trials of {found['distinct']:,} machines, {found['feasible']:,} feasible; {found['seconds']:.1f} s, "
        f"{found['new_trials_per_minute']:,.0f} a minute"
    )
    for reason, count in list(found["infeasible"].items())[:_REASONS]:
        console.print(f"  {count:,} not feasible: {escape(reason)}")
    if len(found["infeasible"]) > _REASONS:
        console.print(f"  and {len(found['infeasible']) - _REASONS:,} other reasons")
    if not found["front"]:
        console.print("no feasible machine")
        return
    console.print()
    (console if console.is_terminal else Console(highlight=False, width=_WIDTH)).print(_front(found))
    console.print()
    for entry in found["front"]:
        console.print(escape(entry["command"]))
    console.print("\n" + escape("  ".join(found["files"])))


def _front(found: dict[str, Any]) -> Table:
    """The front: objectives by the reading that was last asked, and the varied fields."""
    table = Table(box=None, pad_edge=False)
    table.add_column("trial", justify="right")
    for name in found["objectives"]:
        table.add_column(f"{name}\n{found['units'][name]}", justify="right", no_wrap=True)
    table.add_column("tokens/s", justify="right")
    table.add_column("analytic", justify="right", no_wrap=True)
    fields = list(found["front"][0]["fields"])
    for name in fields:
        table.add_column(escape(name.replace(".", "\n", 1)), justify="right", no_wrap=True)
    for entry in found["front"]:
        last = entry.get("cycle", entry["analytic"])
        off = entry["analytic"]["cycles"] / last["cycles"] - 1
        table.add_row(
            f"{entry['trial']}",
            *(f"{last[name]:,.4g}" for name in found["objectives"]),
            f"{last['tokens_per_second']:,.1f}",
            f"{off:+.1%}" if "cycle" in entry else "itself",
            *(escape(f"{entry['fields'][name]}") for name in fields),
        )
    return table

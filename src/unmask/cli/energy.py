"""The lines and tables of energy, power and area that several commands print."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from unmask.report.names import part_title

LEAST_SHARE = 0.0005
"""Parts of the energy and of the die below this share of it are summed up as others."""


def show_costs(found: dict[str, Any], console: Console) -> None:
    """Print what `unmask.silicon.cost.figures.cost_figures` gives."""
    energy, area = found["energy"], found["area"]
    tokens = f", {found['tokens_per_joule']:,.3f} tokens/J" if "tokens_per_joule" in found else ""
    console.print(f"{energy['total_j']:.4g} J, {found['power_w']:,.4g} W on average, {found['peak_power_w']:,.4g} W at the most{tokens}")
    console.print(f"{area['total_mm2']:,.4g} mm2 at {area['node_nm']:g} nm; energy and area are {energy['basis']}")
    gpu = found["against_gpu"]
    if gpu is not None:
        console.print(
            f"against {gpu['name']} ({gpu['gpu_area_mm2']:g} mm2, {gpu['gpu_power_w']:g} W): {gpu['area_ratio']:.0%} of its area, "
            f"{gpu['power_ratio']:.0%} of its power at the most: {'within' if gpu['within'] else 'beyond'} it"
        )
    console.print()
    for table in (_shares("energy of", "J", energy["by_part"]), _shares("area of", "mm2", area["by_block"])):
        console.print(table)
        console.print()


def _shares(title: str, unit: str, values: dict[str, float]) -> Table:
    """Values, the largest first."""
    table = Table(box=None, pad_edge=False)
    table.add_column(title, no_wrap=True)
    for column in (unit, "share"):
        table.add_column(column, justify="right", no_wrap=True)
    whole, shown = sum(values.values()), 0.0
    for name, value in sorted(values.items(), key=lambda item: -item[1]):
        if value >= whole * LEAST_SHARE:
            table.add_row(part_title(name), f"{value:.4g}", f"{value / whole:.1%}")
            shown += value
    if whole - shown > 1e-9 * whole:
        table.add_row("others", f"{whole - shown:.2g}", f"{1 - shown / whole:.1%}")
    return table

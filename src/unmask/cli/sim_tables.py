"""The tables of `unmask sim`."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unmask.cli.energy import show_costs


def show(found: dict[str, Any]) -> None:
    """Print the figures of `unmask.report.generation.figures`."""
    console = Console(highlight=False, soft_wrap=True)
    formats, wall = found["formats"], found["wall_seconds"]
    console.print(
        f"{escape(found['model'])} on machine {escape(found['machine'])}: batch {found['batch']}, prompt {found['prompt']}, "
        f"{found['generate']} new tokens in blocks of {found['block']}, cache {found['policy']['cache']}, {found['steps']:,} steps"
    )
    console.print("formats: " + ", ".join(f"{role} {form}" for role, form in formats.items()))
    console.print("assumed: " + "; ".join(found["assumptions"]))
    console.print(f"\n{found['cycles']:,} cycles, {found['seconds']:.4g} s at {found['clock_ghz']:g} GHz")
    console.print(f"{found['tokens_per_second']:,.1f} tokens/s")
    moved, peak = found["bandwidth_gbps"], found["peak_bandwidth_gbps"]
    console.print(f"{sum(found['hbm_bytes'].values()):,} bytes of HBM traffic, {moved:,.1f} GB/s of {peak:,.1f} ({moved / peak:.1%})\n")
    for table in (_phases(found), _engines(found), _layers(found), _steps(found), _classes(found), _memories(found)):
        console.print(table)
        console.print()
    show_costs(found, console)
    console.print(f"program {found['program_bytes']:,} bytes; compiled in {wall['compile']:.3f} s, timed in {wall['timing']:.3f} s")


def _table(*columns: str) -> Table:
    """The first column names something; the others are figures."""
    table = Table(box=None, pad_edge=False)
    table.add_column(columns[0], no_wrap=True)
    for column in columns[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _phases(found: dict[str, Any]) -> Table:
    table = _table("phase", "cycles", "of the run", "GB/s", "bound by")
    for phase, work in found["by_phase"].items():
        rate = work["hbm_bytes"] / work["cycles"] * found["clock_ghz"] if work["cycles"] else 0.0
        bound = f"{work['bound']['by']} {min(work['bound']['share'], 1):.0%}"
        table.add_row(phase, f"{work['cycles']:,}", f"{work['share']:.1%}", f"{rate:,.1f}", bound)
    return table


def _engines(found: dict[str, Any]) -> Table:
    table = _table("engine", "busy cycles", "utilization", "HBM bytes")
    for engine, cycles in found["cycles_by_engine"].items():
        table.add_row(engine, f"{cycles:,}", f"{found['utilization'][engine]:.1%}", f"{found['hbm_bytes'].get(engine, 0):,}")
    return table


def _layers(found: dict[str, Any]) -> Table:
    table = _table("layers", "how many", "cycles of one", "cycles of all")
    for kind, layer in found["by_layer"].items():
        table.add_row(kind, f"{layer['count']}", f"{layer['cycles'] / layer['count']:,.0f}", f"{layer['cycles']:,}")
    return table


def _steps(found: dict[str, Any]) -> Table:
    table = _table("step", "runs", "cycles of one", "ms", "of the run", "row tile")
    for entry, step in found["by_step"].items():
        tile, milliseconds = step["row_tile"], step["cycles"] / found["clock_ghz"] / 1e6
        height = f"{tile['sequences']} x {tile['rows']}" if tile["sequences"] > 1 else f"{tile['rows']}"
        share = step["cycles"] * step["runs"] / found["cycles"]
        table.add_row(entry, f"{step['runs']:,}", f"{step['cycles']:,}", f"{milliseconds:.4g}", f"{share:.1%}", height)
    return table


def _classes(found: dict[str, Any]) -> Table:
    table = _table("instruction class", "executed", "busy cycles", "HBM bytes")
    for kind, work in found["by_class"].items():
        table.add_row(kind, f"{work['instructions']:,}", f"{work['cycles']:,}", f"{work['hbm_bytes']:,}")
    return table


def _memories(found: dict[str, Any]) -> Table:
    table = _table("memory", "most used", "capacity", "")
    for name, used in found["sram_high_water"].items():
        memory, unit = name.split("_")
        table.add_row(f"{memory} SRAM", f"{used:,}", f"{found['sram_capacity'][name]:,}", unit)
    table.add_row("HBM", f"{found['hbm_used_bytes']:,}", "", "bytes")
    return table

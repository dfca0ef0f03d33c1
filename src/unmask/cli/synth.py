"""`unmask synth`: area, timing and power of a unit of the hardware in standard cells, before layout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from unmask.cli.options import JsonOption
from unmask.cli.printed import print_json

if TYPE_CHECKING:
    from unmask.silicon.composition import Composition
    from unmask.silicon.datapath import Datapath
    from unmask.silicon.measure import Measurement

LibertyOption = Annotated[
    str | None,
    typer.Option(help="A Liberty file (.lib, .lib.gz), a folder of them, or asap7, a kit in pdk/ beside the checkout. Default: OSU 180."),
]
UNITS = (
    "npu, matrix (its matrix engine), sampler, vector, lane, gumbel, scale, words, max_tree, window_tree, noise, scalar, integer_unit "
    "or sequencer"
)
UnitOption = Annotated[str, typer.Option(help=f"{UNITS}.")]
WidestOption = Annotated[int, typer.Option(help="The largest width that a table synthesizes, at least 32; wider ones are composed.")]
VlenOption = Annotated[int | None, typer.Option(help="Lanes, a power of two from 8 to 2048; by default the machine's.")]
SynthesisMachine = Annotated[
    str | None,
    typer.Option("--machine", help="Preset or .toml file of the machine that the unit is built for; by default sampler or rtl-tiny."),
]
ClockOption = Annotated[float, typer.Option(min=1, help="Clock period, picoseconds.")]


WHOLE = ("npu", "matrix")
"""Units of a machine with all instructions."""


def machine_for(unit: str, name: str | None) -> str:
    """The machine that a unit is built for if none is named."""
    return name or ("rtl-tiny" if unit in WHOLE else "sampler")


def synth(
    unit: Annotated[
        str, typer.Option(help=f"{UNITS}; with --table also datapath: the vector datapath, added up of its parts.")
    ] = "sampler",
    vlen: VlenOption = None,
    clock_ps: ClockOption = 1000,
    liberty: LibertyOption = None,
    machine: SynthesisMachine = None,
    table: Annotated[bool, typer.Option("--table", help="VLEN 8 to 128 synthesized, 256 to 2048 composed, beside the published.")] = False,
    widest: WidestOption = 128,
    as_json: JsonOption = False,
) -> None:
    """Synthesize a unit, time it, and measure its power at the activity of a run."""
    from unmask.cli.npu_run import recording_of
    from unmask.rtl.speed import machine_of
    from unmask.silicon.composition import COMPOSED, SYNTHESIZED
    from unmask.silicon.composition import table as compose
    from unmask.silicon.datapath import datapath
    from unmask.silicon.kits import cache_folder, library_named
    from unmask.silicon.measure import measure

    cache, chosen = cache_folder(), machine_for(unit, machine)
    library = library_named(liberty, cache)

    def at(vlen: int | None) -> Measurement:
        built = machine_of(chosen, vlen, whole=unit in WHOLE)
        return measure(unit, built, library, clock_ps, cache, recording_of(unit, built, cache / "recording"))

    if table:
        synthesized = [vlen for vlen in SYNTHESIZED if vlen <= max(widest, 32)]
        composed_to = [vlen for vlen in (*SYNTHESIZED, *COMPOSED) if vlen not in synthesized]
        if unit == "datapath":
            parts = datapath(library, clock_ps, cache, machine=chosen, synthesized=synthesized, composed=composed_to)
            print_json(parts.as_dict()) if as_json else _show_datapath(parts)
            return
        composed = compose(
            library,
            clock_ps,
            cache,
            unit=unit,
            part="vector" if unit == "sampler" else "",
            synthesized=synthesized,
            composed=composed_to,
            measured=at,
        )
        print_json(composed.as_dict()) if as_json else _show_table(composed)
        return
    found = at(vlen)
    if as_json:
        print_json(found.as_dict())
    else:
        _show(found)


def _show(found: Measurement) -> None:
    console = Console()
    table = Table("", "", title=f"{found.unit}, {found.lanes} lanes, {found.clock_ps:g} ps, {found.library}: before layout, no wires")
    table.add_row("cells (flip-flops)", f"{found.cells:,} ({found.registers:,})")
    table.add_row("area", f"{found.area_um2:,.1f} um2, {found.area_um2_per_lane:,.1f} per lane")
    table.add_row("worst slack", "no path" if found.wns_ps is None else f"{found.wns_ps:.1f} ps: {found.critical}")
    table.add_row("power", f"{found.power_mw:.3f} mW, {found.power_mw_per_lane:.4f} per lane ({found.activity})")
    clock = f"{found.clock_mw:.3f} mW; {found.clock_gates:,} gates, {found.clocked:.1%} of the flip-flops' pulses pass"
    table.add_row("of that, clock", clock)
    if found.macro_bits:
        table.add_row("memory macros", f"{found.macro_bits:,} bits, in none of the above")
    console.print(table)
    if len(found.parts) > 1:
        parts = Table("part", "um2", "mW")
        for part in found.parts:
            parts.add_row(part.name or "(top)", f"{part.area_um2:,.1f}", f"{part.power_mw:.3f}")
        console.print(parts)
    blocks = Table("block", "instances", "cells", "um2 each", "um2 in all", "slack ps", "mW in all")
    for block in sorted(found.blocks, key=lambda block: -block.instances * block.area_um2):
        area = "macro" if block.macro_bits else f"{block.area_um2:,.1f}"
        whole = "" if block.macro_bits else f"{block.instances * block.area_um2:,.1f}"
        slack = "" if block.wns_ps is None else f"{block.wns_ps:.0f}"
        power = "" if block.macro_bits else f"{block.power_mw:.3f}"
        blocks.add_row(block.name, str(block.instances), f"{block.cells:,}", area, whole, slack, power)
    console.print(blocks)


def _show_datapath(found: Datapath) -> None:
    console = Console()
    title = f"vector datapath, {found.clock_ps:g} ps, {found.library}: before layout, no wires; power at {found.activity}"
    titles = ("VLEN", "noise", "", "mm2", "um2/lane", "mW", "mW/lane", "idle mW", "slack ps", "published mm2", "published mW")
    rows = Table(*titles, title=title)
    for row in found.rows:
        figures = [f"{row.area_mm2:.4f}", f"{row.area_um2_per_lane:.1f}", f"{row.power_mw:.2f}", f"{row.power_mw_per_lane:.4f}"]
        figures.append(f"{row.idle_mw:.2f}")
        rest = ["" if figure is None else f"{figure:g}" for figure in (row.published_mm2, row.published_mw)]
        slack = "" if row.wns_ps is None else f"{row.wns_ps:.0f}"
        rows.add_row(str(row.vlen), "with" if row.noise else "without", row.how, *figures, slack, *rest)
    console.print(rows)
    parts = Table("part", "VLEN", "um2/lane", "mW/lane", "idle mW/lane", "slack ps")
    for part in found.parts:
        slack = "" if part.wns_ps is None else f"{part.wns_ps:.0f}"
        parts.add_row(
            part.part,
            str(part.vlen),
            f"{part.area_um2_per_lane:.1f}",
            f"{part.power_mw_per_lane:.4f}",
            f"{part.idle_mw_per_lane:.4f}",
            slack,
        )
    console.print(parts)
    console.print(
        f"composed of smaller ones, {found.checked_vlen} lanes are {found.area_error:+.2%} off in area, {found.power_error:+.2%} in power; "
        "slacks are those of the largest synthesized"
    )


def _show_table(found: Composition) -> None:
    console = Console()
    title = f"{found.unit}, {found.clock_ps:g} ps, {found.library}: before layout, no wires, no memory macros; power at {found.activity}"
    rows = Table("VLEN", "", "mm2", "um2/lane", "mW", "mW/lane", "slack ps", "published mm2", "published mW", title=title)
    for row in found.rows:
        slack = "" if row.wns_ps is None else f"{row.wns_ps:.0f}"
        theirs = ["" if figure is None else f"{figure:g}" for figure in (row.published_mm2, row.published_mw)]
        figures = [f"{row.area_mm2:.4f}", f"{row.area_um2_per_lane:.1f}", f"{row.power_mw:.2f}", f"{row.power_mw_per_lane:.4f}"]
        rows.add_row(str(row.vlen), row.how, *figures, slack, *theirs)
    console.print(rows)
    console.print(
        f"composed of smaller ones, {found.checked_vlen} lanes are {found.area_error:+.2%} off in area, {found.power_error:+.2%} in power; "
        "the slack of a composed width is that of the largest synthesized"
    )

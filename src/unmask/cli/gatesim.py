"""`unmask gatesim`: the mapped netlist of a unit against its RTL, bit by bit."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from unmask.cli.options import JsonOption
from unmask.cli.synth import WHOLE, ClockOption, LibertyOption, SynthesisMachine, UnitOption, VlenOption, machine_for


def gatesim(
    unit: UnitOption = "sampler",
    vlen: VlenOption = None,
    clock_ps: ClockOption = 1000,
    liberty: LibertyOption = None,
    machine: SynthesisMachine = None,
    cycles: Annotated[int, typer.Option(min=1, help="Cycles of random inputs, of a unit other than the sampler.")] = 1000,
    programs: Annotated[int, typer.Option(min=1, help="Random programs that the sampler runs after its sampling steps.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of random inputs and of the flip-flops' states before reset.")] = 0,
    icarus: Annotated[bool, typer.Option("--icarus", help="Run the netlist in Icarus too, from unknown states.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Map with little effort: other gates, sooner.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a unit's mapped netlist on what its RTL is run on and compare every output in every cycle; exit 1 if any bit differs."""
    from unmask.cli.npu_run import recording_of
    from unmask.rtl.speed import machine_of
    from unmask.silicon.gatesim import compare
    from unmask.silicon.kits import cache_folder, library_named

    cache, built = cache_folder(), machine_of(machine_for(unit, machine), vlen, whole=unit in WHOLE)
    recorded = recording_of(unit, built, cache / "recording", programs, seed)
    library = library_named(liberty, cache)
    found = compare(unit, built, library, clock_ps, cache, cycles=cycles, seed=seed, with_icarus=icarus, quick=quick, recorded=recorded)
    if as_json:
        print(json.dumps(found.as_dict()))
    else:
        print(f"{found.unit}, {found.cells:,} cells of {found.library}: {found.inputs}")
        print(f"{found.mismatches} of {found.compared:,} output bits differ in {found.cycles:,} cycles ({', '.join(found.simulators)})")
        if found.first:
            print(f"first: {found.first}")
    if found.mismatches:
        raise typer.Exit(1)

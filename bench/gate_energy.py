"""The energy of sampling steps by counted events beside that of the engine's gates at the same steps' activity, part by part.

`python bench/gate_energy.py --vlen 8 --liberty asap7 [--json]` maps the engine and runs its gates, which takes an hour; `--from FILE` takes
what `unmask synth --unit sampler --vlen 8 --liberty asap7 --json` has printed. Clocks are priced as they are, without the gates that
`layout.ungated` assumes; macros and the memory are in neither.
"""

from __future__ import annotations

import argparse
import json
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

from unmask.cli.sampling_run import sampling_recording, single_passes
from unmask.machine.config import Machine
from unmask.machine.cycle import time_program
from unmask.rtl.speed import machine_of
from unmask.silicon.cost.energy import energy_of, idle_of
from unmask.silicon.cost.events import Counts, count_events
from unmask.silicon.cost.table import load_costs
from unmask.silicon.kits import cache_folder, library_named
from unmask.silicon.measure import measure

CLOCK_PS = 1000
# Parts of the engine by the part of the energy that they are.
PARTS = {
    "vector": ("vector", "vector_sram", "integer_sram", "float_sram"),
    "load": ("load", "load_queue"),
    "store": ("store", "store_queue"),
    "sequencer": ("sequencer", "semaphores", "host", "vector_queue", ""),
}


def counted(machine: Machine) -> Counts:
    """The events of the steps that the gates run."""
    runs = single_passes(machine)
    timings = [time_program(run.case.program, machine, parameters=run.case.parameters) for run in runs]
    return reduce(add, (count_events(r.case.program, machine, t.cycles, t.hbm_bytes) for r, t in zip(runs, timings, strict=True)))


def main() -> None:
    """Print a row per engine, and the whole."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vlen", type=int, default=8)
    parser.add_argument("--liberty", default="asap7")
    parser.add_argument("--from", dest="saved", type=Path, metavar="FILE", help="of unmask synth --unit sampler --json")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    gates: dict[str, Any]
    if given.saved:
        gates = json.loads(given.saved.read_text("utf-8"))
        if gates.get("unit") != "sampler" or "sampling" not in gates["activity"]:
            parser.error(f"{given.saved}: of unit {gates.get('unit')} at {gates.get('activity')!r}; expected the sampler at sampling steps")
        machine = machine_of("sampler", gates["vlen"])
    else:
        cache, machine = cache_folder(), machine_of("sampler", given.vlen)
        recording = sampling_recording(machine, cache / "recording")
        gates = measure("sampler", machine, library_named(given.liberty, cache), CLOCK_PS, cache, recording).as_dict()
    counts, costs = counted(machine), load_costs()
    costs = costs.model_copy(update={"layout": costs.layout.model_copy(update={"ungated": 1.0})})
    events, clocks = energy_of(counts, costs).by_part, idle_of(counts, costs)
    picojoules = gates["clock_ps"] * 1e-3 * gates["cycles"]
    found = {part["name"]: part["power_mw"] * picojoules for part in gates["parts"]}
    rows = {
        name: {"events_pj": 1e12 * (events[name] + clocks[name]), "gates_pj": sum(found.get(part, 0.0) for part in parts)}
        for name, parts in PARTS.items()
    }
    rows["whole"] = {key: sum(row[key] for row in rows.values()) for key in ("events_pj", "gates_pj")}
    for name, row in rows.items():
        row["clock_pj"] = 1e12 * (clocks[name] if name in clocks else sum(clocks[part] for part in PARTS))
        row["error"] = row["events_pj"] / row["gates_pj"] - 1
    if given.json:
        shown = {name: gates[name] for name in ("vlen", "activity")}
        print(json.dumps({**shown, "cycles": counts.cycles, "counted_cycles": gates["cycles"], "parts": rows}))
        return
    print(f"{gates['activity']}; {counts.cycles:,} cycles, of the gates {gates['cycles']:,}")
    print(f"{gates['cells']:,} cells of {gates['library']}, {gates['power_mw']:.2f} mW")
    for name, row in rows.items():
        events_pj, clock_pj, gates_pj = (row[key] for key in ("events_pj", "clock_pj", "gates_pj"))
        print(f"{name:10} events {events_pj:10,.0f} pJ, {clock_pj:10,.0f} of it clocks   gates {gates_pj:10,.0f} pJ   {row['error']:+.1%}")


if __name__ == "__main__":
    main()

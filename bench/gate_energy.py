"""The energy of sampling steps by counted events beside that of the engine's gates at the same steps' activity, part by part.

`python bench/gate_energy.py --vlen 8 --liberty asap7 [--json]`. Control and the DMA engines are priced as they are, without the clock gates
that `layout.ungated` assumes; macros and the memory are in neither.
"""

from __future__ import annotations

import argparse
import json
from functools import reduce
from operator import add

from unmask.cli.sampling_run import sampling_recording, single_passes
from unmask.machine.cycle import time_program
from unmask.rtl.speed import machine_of
from unmask.silicon.cost.energy import energy_of, widest_multiplier
from unmask.silicon.cost.events import count_events
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vlen", type=int, default=8)
    parser.add_argument("--liberty", default="asap7")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    machine, cache = machine_of("sampler", given.vlen), cache_folder()
    library = library_named(given.liberty, cache)
    gates = measure("sampler", machine, library, CLOCK_PS, cache, sampling_recording(machine, cache / "recording"))
    runs = single_passes(machine)
    timings = [time_program(run.case.program, machine, parameters=run.case.parameters) for run in runs]
    counts = reduce(add, (count_events(r.case.program, machine, t.cycles, t.hbm_bytes) for r, t in zip(runs, timings, strict=True)))
    costs = load_costs()
    costs = costs.model_copy(update={"layout": costs.layout.model_copy(update={"ungated": 1.0})})
    events = energy_of(counts, costs).by_part
    picojoules = CLOCK_PS * 1e-3 * gates.cycles
    found = {part.name: part.power_mw * picojoules for part in gates.parts}
    # Idle clocks of control are priced as such; the rest is the lanes' and the array's, which is no part of the engine.
    fixed = {"load": costs.dma.idle_fj / 2, "store": costs.dma.idle_fj / 2, "sequencer": costs.sequencer.idle_fj}
    idle = {name: 1e-15 * counts.cycles * price for name, price in fixed.items()}
    array = 1e-15 * counts.cycles * machine.peak_multiplies * widest_multiplier(machine, costs)
    idle["vector"] = events["idle_clock"] - array - sum(idle.values())
    rows = {
        name: {"events_pj": 1e12 * (events[name] + idle[name]), "gates_pj": sum(found.get(part, 0.0) for part in parts)}
        for name, parts in PARTS.items()
    }
    rows["whole"] = {key: sum(row[key] for row in rows.values()) for key in ("events_pj", "gates_pj")}
    for row in rows.values():
        row["error"] = row["events_pj"] / row["gates_pj"] - 1
    if given.json:
        print(
            json.dumps(
                {"vlen": given.vlen, "cycles": counts.cycles, "counted_cycles": gates.cycles, "activity": gates.activity, "parts": rows}
            )
        )
        return
    print(f"{gates.activity}; {counts.cycles:,} cycles; {gates.cells:,} cells of {gates.library}, {gates.power_mw:.2f} mW")
    for name, row in rows.items():
        print(f"{name:10} events {row['events_pj']:12,.0f} pJ   gates {row['gates_pj']:12,.0f} pJ   {row['error']:+.1%}")


if __name__ == "__main__":
    main()

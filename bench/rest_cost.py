"""Energy of a cycle of an engine that stands still, block by block, for `src/unmask/silicon/cost/costs.toml`: clocks that nothing stops.

`python bench/rest_cost.py --vlen 8 --liberty asap7` prints one line of JSON per block that has flip-flops: femtojoules of a cycle of all
its instances, leakage included, and how many of its flip-flops there are, and are gated. The unit is reset, and then its inputs are 0: no
program runs. Nothing but clocks moves, so that it is mapped with little effort: flip-flops and clock gates are the same. Before layout, a
clock without a tree.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np

from unmask.rtl.speed import machine_of
from unmask.silicon.gates import Gates, places_of
from unmask.silicon.kits import library_named
from unmask.silicon.places import Places
from unmask.silicon.synthesis import synthesize
from unmask.silicon.timing import power_of
from unmask.silicon.units import unit_named

CYCLES, WARM_UP, RESET, CLOCK_PS = 160, 96, 4, 1000


def main() -> None:
    """Print the blocks that have flip-flops, and the whole."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unit", default="sampler")
    parser.add_argument("--vlen", type=int, default=8)
    parser.add_argument("--liberty", default="asap7")
    parser.add_argument("--cache", type=Path, default=Path("build/silicon"))
    args = parser.parse_args()
    unit, library = unit_named(args.unit), library_named(args.liberty, args.cache)
    netlist = synthesize(unit.build(machine_of("sampler", args.vlen)), args.unit, library, CLOCK_PS, args.cache, flat=unit.flat, quick=True)
    gates, places = Gates(netlist), Places(netlist)
    stimulus = np.zeros((CYCLES, sum(len(port.nets) for port in gates.inputs)), np.uint8)
    stimulus[:RESET, places_of(gates.inputs)["rst"]] = 1
    _, toggles = gates.run(stimulus, skip=WARM_UP)
    rates = toggles / (CYCLES - WARM_UP - 1)
    power = power_of(netlist, gates, CLOCK_PS, netlist.folder / "rest", rates)
    watts: Counter[str] = Counter()
    registers: Counter[str] = Counter()
    gated: Counter[str] = Counter()
    for (name, kind, pins), own in zip(gates.instances, power.cells_mw, strict=True):
        block, cell = places.block_of(name), library.cells[kind]
        watts[block] += own
        if cell.sequential:
            registers[block] += 1
            gated[block] += pins[cell.clocked_on.strip("() ")] in gates.clock_gates
    for block in sorted(registers, key=lambda name: -watts[name]):
        print(json.dumps({"block": block, "registers": registers[block], "gated": gated[block], "fj": watts[block] * CLOCK_PS}))
    whole = {"registers": registers.total(), "gated": gated.total(), "fj": power.total_mw * CLOCK_PS}
    print(json.dumps({"block": "whole", **whole, "leakage_fj": power.leakage_mw * CLOCK_PS}))


if __name__ == "__main__":
    main()

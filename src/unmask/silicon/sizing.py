"""Other sizes for gates on the paths that miss the clock, across the blocks.

Blocks are mapped apart: what a path has used up before it enters one, or needs behind it, is seen only in the whole. A local search, in one
run of OpenSTA: a gate on a path that misses takes each of the sizes near its own, and keeps the one with the least total negative slack.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from unmask.silicon.gates import Gates
from unmask.silicon.liberty import Library
from unmask.silicon.synthesis import Netlist
from unmask.silicon.timing import constraints, opensta
from unmask.silicon.verilog import names_of, verilog

LARGER, SMALLER = 3, 1
"""How many sizes above and below its own a gate tries."""
ROUNDS, PATHS = 12, 300
"""How often the paths that miss the clock are looked up, at most, and how many of them at a time, the worst first."""
GAIN = 0.02
"""Share of the total negative slack that a round must win for there to be another one."""

_SEARCH = """proc missed {} {
  global most
  report_checks -path_delay max -format full -group_count $most -digits 5 > sizing.txt
  set file [open sizing.txt]
  set text [read $file]
  close $file
  set paths {}
  set cells {}
  foreach line [split $text "\\n"] {
    if {[regexp {^Startpoint:} $line]} { set cells {} }
    if {[regexp {^\\s*([\\d.]+)\\s+[\\d.]+\\s+[v^]\\s+(\\S+)/\\S+ \\(} $line -> delay cell]} { lappend cells [list $delay $cell] }
    if {[regexp {^\\s*(-?[\\d.]+)\\s+slack} $line -> slack] && $slack < 0} { lappend paths $cells }
  }
  return $paths
}
proc take {cell size} { replace_cell [get_cells $cell] [get_lib_cells */$size] }
set taken [dict create]
set least [sta::total_negative_slack_cmd max]
for {set round 0} {$round < $rounds && $least < 0} {incr round} {
  set before $least
  set seen [dict create]
  foreach cells [missed] {
    foreach entry [lsort -real -decreasing -index 0 $cells] {
      set cell [lindex $entry 1]
      set own [get_property [get_cells $cell] ref_name]
      if {[dict exists $seen $cell] || ![dict exists $near $own]} continue
      dict set seen $cell 1
      set best $own
      foreach size [dict get $near $own] {
        take $cell $size
        set now [sta::total_negative_slack_cmd max]
        if {$now > $least} { set least $now; set best $size; dict set taken $cell $size }
      }
      take $cell $best
    }
  }
  if {$least < $before * (1 - $gain)} { break }
}
set file [open sizes.txt w]
dict for {cell size} $taken { puts $file "$cell $size" }
close $file
"""


def sized(netlist: Netlist, clock_ps: float) -> Netlist:
    """The netlist with gates in other sizes of the library, where it misses the clock; the logic stays what it is.

    Args:
        netlist: mapped, in the sizes that its blocks were given.
        clock_ps: period. What was found is kept in the netlist's folder, by all that it depends on.

    Raises:
        UnmaskError: OpenSTA is missing or failed.
    """
    gates = Gates(netlist)
    names = names_of(gates, netlist.flat)
    text = verilog(gates, names, netlist.top)
    search = [f"set most {PATHS}", f"set rounds {ROUNDS}", f"set gain {GAIN}", "set near [dict create]"]
    search += [f"dict set near {cell} {{{' '.join(sizes)}}}" for cell, sizes in near_sizes(netlist.library).items()]
    search.append(_SEARCH)
    work = Path(tempfile.mkdtemp(prefix="sizing-", dir=netlist.folder))
    try:
        constrained = constraints(netlist, gates, names, clock_ps, work)
        parts = [netlist.library.full.read_text(), *constrained[1:], *search, text]
        found = netlist.folder / f"sizes-{hashlib.sha256(''.join(parts).encode()).hexdigest()[:16]}.json"
        if not found.exists():
            with Console(stderr=True).status(f"other sizes for gates of {netlist.top} that are late"):
                opensta(work, "sizing", text, [*constrained, *search])
            cells = {called: name for called, (name, _, _) in zip(names.instances, gates.instances, strict=True)}
            sizes = {cells[called]: size for called, size in (line.split() for line in (work / "sizes.txt").read_text().splitlines())}
            changed = {name: size for name, size in sizes.items() if netlist.flat["cells"][name]["type"] != size}
            (work / "sizes.json").write_text(json.dumps(changed))
            (work / "sizes.json").replace(found)
    finally:
        shutil.rmtree(work)
    return replace(netlist, sizes=json.loads(found.read_text()))


def near_sizes(library: Library) -> Mapping[str, list[str]]:
    """Sizes of the same gate to try instead of a cell's, by the cell's name: larger ones, nearest first, then smaller ones."""
    families: dict[object, list[tuple[float, float, str]]] = defaultdict(list)
    for cell in library.cells.values():
        if cell.sequential or not cell.plain or cell.name in library.clock_gates:
            continue
        inputs = frozenset(pin.name for pin in cell.pins if pin.direction == "input")
        outputs = frozenset((pin.name, pin.function) for pin in cell.pins if pin.direction == "output")
        load = sum(pin.capacitance for pin in cell.pins if pin.direction == "input")
        families[inputs, outputs].append((cell.area, load, cell.name))
    near: dict[str, list[str]] = {}
    for family in families.values():
        names = [name for _, _, name in sorted(family)]
        for place, name in enumerate(names):
            sizes = names[place + 1 : place + 1 + LARGER] + names[max(0, place - SMALLER) : place]
            if sizes:
                near[name] = sizes
    return near

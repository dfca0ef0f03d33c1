"""From an Amaranth component to a netlist of standard cells, block by block."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from amaranth.lib import wiring
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from unmask.errors import UnmaskError
from unmask.silicon.blocks import MACRO_PORTS, Design
from unmask.silicon.fanout import with_trees
from unmask.silicon.liberty import Library
from unmask.silicon.tools import yosys

# Left to what ABC does not see of a clock period: the flip-flops' own setup and clock-to-output times.
LOGIC_SHARE = 0.92
# yosys' own recipe begins with a search for equal nodes (`&fraig`, `scorr`): multipliers keep it busy for minutes, and it finds little.
_START = "strash;dc2;strash;&get -n;"
_SIZING = "buffer -c;topo;upsize -D {D};dnsize -D {D};upsize -D {D};dnsize -D {D};stime"
RECIPES = {
    "level": f"{_START}&st;&if -g -K 6;&dch;&nf -R 20 -F 20;&put;{_SIZING}",
    "swift": f"{_START}&st;&if -g -K 6;&dch;&nf;&put;{_SIZING}",
}
"""Ways to map logic in ABC, the smaller result first: both rebuild it with balanced depth; many rounds of area flow cost some delay."""
SPARE = f"{_START}&st;&dch;&if -g -K 6;&dch;&nf -R 20 -F 20;&put;{_SIZING}"
"""What is done where ABC gives up on every recipe, as it does on some logic that `&if -g` meets without choices."""
GATED = 3
"""Flip-flops with one enable from which on a clock gate, where the library has one, replaces their multiplexers."""
QUICK = {"quick": "strash;&get -n;&nf;&put"}
"""As it is, in a fraction of the time: gates to be simulated, no figures."""
_DELAY = re.compile(r"^ABC: WireLoad.*Delay =\s*([\d.]+) ps", re.MULTILINE)
CLOCK = "clk"
# What an output of a block drives, in input capacitances of the library's driver.
OUTPUT_LOAD = 4.0


@dataclass(frozen=True)
class MappedBlock:
    """A block after mapping.

    Attributes:
        name: as in the design.
        instances: how often it stands in the design.
        cells: number of its own cells by their type; blocks inside it are counted by themselves.
        bits: of a memory macro.
        path: RTLIL of the mapped block; None for a macro.
    """

    name: str
    instances: int
    cells: Counter[str]
    bits: int
    path: Path | None

    @property
    def macro(self) -> bool:
        """Whether it is a memory macro."""
        return self.path is None

    def area(self, library: Library) -> float:
        """Of one instance, in the library's unit; 0 of a macro."""
        return sum(library.cells[cell].area * number for cell, number in self.cells.items())


@dataclass(frozen=True)
class Netlist:
    """A design in standard cells.

    Attributes:
        top: name of the module.
        library: of its cells.
        design: the RTL that it was made of.
        blocks: its parts, children before parents.
        folder: where its files lie.
        sizes: cells that take the place of others of the same logic, by name in the flat netlist (`unmask.silicon.sizing`).
    """

    top: str
    library: Library
    design: Design
    blocks: list[MappedBlock]
    folder: Path
    sizes: Mapping[str, str] = field(default_factory=dict)

    @property
    def cells(self) -> int:
        """Standard cells of the whole design."""
        return sum(block.instances * sum(block.cells.values()) for block in self.blocks) + sum(self.trees.values())

    @property
    def area(self) -> float:
        """Of the standard cells, in the library's unit; macros are not in it."""
        blocks = sum(block.instances * block.area(self.library) for block in self.blocks)
        return blocks + self.area_of_trees + self.area_of_sizes

    @property
    def area_of_trees(self) -> float:
        """Of `trees`, in the library's unit."""
        return sum(self.library.cells[cell].area * number for cell, number in self.trees.items())

    @property
    def area_of_sizes(self) -> float:
        """What `sizes` add to the area of the blocks and the trees, in the library's unit; below 0 where they take from it."""
        return self._flat[2]

    @property
    def macro_bits(self) -> int:
        """Bits of memory that are not in the area."""
        return sum(block.instances * block.bits for block in self.blocks)

    @property
    def registers(self) -> int:
        """Flip-flops."""
        return sum(b.instances * n for b in self.blocks for cell, n in b.cells.items() if self.library.cells[cell].sequential)

    @property
    def flat(self) -> dict[str, Any]:
        """yosys' JSON of the design without hierarchy; macros are cut out, their ports being ports of the design."""
        return self._flat[0]

    @property
    def trees(self) -> Counter[str]:
        """Buffers that were put on nets that drive much, by cell (`unmask.silicon.fanout`)."""
        return self._flat[1]

    @cached_property
    def _flat(self) -> tuple[dict[str, Any], Counter[str], float]:
        path = self.folder / "flat.json"
        if not path.exists():
            script = [f"read_rtlil {block.path}" for block in self.blocks if block.path]
            macros = [block.name for block in self.blocks if block.macro]
            script += [MACRO_PORTS] * bool(macros) + [f"hierarchy -top {self.top}", "flatten"]
            script += [f"expose -evert -sep __ t:{name}" for name in macros]
            script += ["delete t:$scopeinfo", "clean", "write_json flat.partial"]
            yosys("\n".join([*script, ""]), self.folder, "flatten")
            (self.folder / "flat.partial").replace(path)
        module: dict[str, Any] = json.loads(path.read_text())["modules"][self.top]
        added = with_trees(module, self.library, CLOCK, OUTPUT_LOAD)
        larger = 0.0
        for name, size in self.sizes.items():
            cell = module["cells"][name]
            larger += self.library.cells[size].area - self.library.cells[cell["type"]].area
            cell["type"] = size
        return module, added, larger


def synthesize(
    component: wiring.Component,
    name: str,
    library: Library,
    clock_ps: float,
    cache: Path,
    *,
    flat: bool = False,
    quick: bool = False,
) -> Netlist:
    """Map a component to a library.

    Args:
        component: with one clock domain, `sync`.
        name: of the top module.
        clock_ps: the delay target, picoseconds.
        cache: a folder; a block that was mapped before, with the same target, is found there by the digest of its text.
        flat: map everything but memory macros as one block.
        quick: map with little effort, for gates that are to be simulated: neither small nor fast.

    Raises:
        UnmaskError: yosys failed, or left a cell that the library does not have.
    """
    design = Design(component, name)
    kept = design.kept(flat)

    def mapped_block(name_of_block: str) -> MappedBlock:
        block, instances = design.blocks[name_of_block], design.instances[name_of_block]
        if block.macro:
            return MappedBlock(block.name, instances, Counter(), block.memory_bits, None)
        source = design.source(block.name, kept)
        path, cells = _map(source, block.name, library, clock_ps, cache, set(design.blocks), QUICK if quick else RECIPES)
        return MappedBlock(block.name, instances, cells, 0, path)

    console = Console(stderr=True)
    columns = TextColumn(f"mapping {name}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with (
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        # Each block is a process of its own.
        mapping = [pool.submit(mapped_block, name_of_block) for name_of_block in kept]
        try:
            for one in progress.track(as_completed(mapping), total=len(mapping)):
                one.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    mapped = [one.result() for one in mapping]
    if unknown := {cell for block in mapped for cell in block.cells} - library.cells.keys():
        raise UnmaskError(f"{name}: yosys left {', '.join(sorted(unknown))}, which library {library.name} does not have")
    key = hashlib.sha256("".join(str(block.path) for block in mapped).encode()).hexdigest()[:16]
    folder = cache / "designs" / f"{name}-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    return Netlist(name, library, design, mapped, folder)


def _map(
    source: str, name: str, library: Library, clock_ps: float, cache: Path, blocks: set[str], recipes: Mapping[str, str]
) -> tuple[Path, Counter[str]]:
    """(RTLIL of the block in cells, number of cells by type)."""
    scripts = [_front_end(name, library), *(_back_end(name, library, clock_ps, recipe) for recipe in recipes.values())]
    spare = _back_end(name, library, clock_ps, SPARE)
    # Where the library's files lie is no part of what is mapped: a cache may be copied.
    texts = [script.replace(f"{library.logic.resolve().parent}/", "") for script in scripts]
    key = hashlib.sha256("\n".join([library.digest, *texts, source]).encode()).hexdigest()[:16]
    result = cache / "blocks" / f"{name}-{key}"
    if not (result / "cells.json").exists():
        result.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=result.parent))
        try:
            (work / "source.il").write_text(source)
            driver = library.driver
            load = OUTPUT_LOAD * library.load_of(driver) * library.capacitance_unit / 1e-15
            (work / "constraints").write_text(f"set_driving_cell {driver.name}\nset_load {load:.4f}\n")
            cells = _mapped(work, name, [*scripts, spare], clock_ps, list(recipes))
            (work / "cells.json").write_text(json.dumps(cells))
            if result.exists():
                shutil.rmtree(work)
            else:
                work.rename(result)
        except OSError:
            # Another process mapped the same block meanwhile.
            if not (result / "cells.json").exists():
                raise
    counts = json.loads((result / "cells.json").read_text())
    return (result / "mapped.il").resolve(), Counter({cell: number for cell, number in counts.items() if cell not in blocks})


def _mapped(work: Path, name: str, scripts: list[str], clock_ps: float, recipes: list[str]) -> Counter[str]:
    """Map `source.il` of a folder to `mapped.il` by the first recipe that meets the clock, or else by the fastest; its cells.

    scripts: the front end, a back end per recipe, and that of the spare one.
    """
    front, *backs, spare = scripts
    logic, found = work / "logic.il", list[tuple[float, str]]()

    def attempt(recipe: str, back: str) -> None:
        log = yosys(back if logic.exists() else front + back, work, f"map_{recipe}")
        (work / "mapped.il").replace(work / f"{recipe}.il")
        (work / "block.json").replace(work / f"{recipe}.json")
        # Without a gate ABC says nothing.
        delays = _DELAY.findall(log)
        found.append((float(delays[-1]) if delays else 0.0, recipe))

    for recipe, back in zip(recipes, backs, strict=True):
        try:
            attempt(recipe, back)
        except UnmaskError:
            # Behind the front end it is ABC that failed.
            if not logic.exists():
                raise
            continue
        if found[-1][0] <= clock_ps * LOGIC_SHARE:
            break
    if not found:
        attempt("spare", spare)
    _, best = min(found)
    module = json.loads((work / f"{best}.json").read_text())["modules"][name]
    (work / f"{best}.il").replace(work / "mapped.il")
    for _, recipe in found:
        (work / f"{recipe}.json").unlink()
        (work / f"{recipe}.il").unlink(missing_ok=True)
    logic.unlink()
    return Counter(cell["type"] for cell in module["cells"].values() if cell["type"] != "$scopeinfo")


def _front_end(name: str, library: Library) -> str:
    """From a source to gates of yosys' own and flip-flops and clock gates of the library."""
    gate = library.clock_gate
    gating = ""
    if gate is not None:
        # A reset that goes before an enable becomes part of the enable and of the data; equal enables become one before they are counted.
        low = "".join(f" -tie_lo {pin}" for pin in gate.low)
        gating = f"""dfflegalize -cell $_DFFE_PP_ x -cell $_SDFFCE_PP?P_ x -cell $_SDFF_PP?_ x -cell $_DFF_P_ x
dffunmap -srst-only
opt_merge
opt_clean
clockgate -pos {gate.cell} {gate.enable}:{gate.clock}:{gate.output}{low} -min_net_size {GATED}
opt -fast
"""
    return f"""read_rtlil source.il
{MACRO_PORTS}
hierarchy -top {name}
proc
flatten
synth -top {name} -noshare -noabc
{gating}splitnets
rename -wire t:$_*DFF*_
dfflibmap -liberty {library.registers.resolve()}
opt
write_rtlil logic.il
design -reset
"""


def _back_end(name: str, library: Library, clock_ps: float, recipe: str) -> str:
    """From there to cells."""
    script = recipe.replace("{D}", f"{clock_ps * LOGIC_SHARE:.0f}").replace(" ", ",")
    return f"""read_rtlil logic.il
abc -liberty {library.logic.resolve()} -constr constraints -script +{script}
setundef -zero
splitnets
opt_clean -purge
select -module {name}
write_rtlil -selected mapped.il
select -clear
write_json block.json
"""

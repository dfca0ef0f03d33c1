"""Entries of a program put together: each with the row tile that suits the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from unmask.compiler.context import Context, Tiling
from unmask.compiler.memory import Hbm, SramOverflow, ceil_to
from unmask.errors import UnmaskError
from unmask.isa.encoding import Op, encode
from unmask.isa.program import Program
from unmask.machine.config import Machine
from unmask.machine.cycle import check_depth, check_length
from unmask.machine.state import check_hbm
from unmask.numerics import mx

Emit = Callable[[Context, Tiling], None]
"""Emits an entry up to HALT with some row tile."""


@dataclass(frozen=True)
class Plan:
    """What a program is assembled from: entries over the same memory.

    Attributes:
        entries: what emits each entry, by its name.
        rows: how many rows of each of the `sequences` each entry feeds.
        hbm: where everything lies.
        about: of the program.
        what: the entries do, for messages.
    """

    entries: Mapping[str, Emit]
    rows: Mapping[str, int]
    sequences: int
    hbm: Hbm
    about: Mapping[str, object]
    what: str = "this model and policy"

    def emitted(self, name: str, tiling: Tiling, machine: Machine) -> Context:
        """An entry with a row tile.

        Raises:
            UnmaskError: the tile does not fit (`SramOverflow`), or the machine holds fewer instructions or nests fewer loops.
        """
        c = Context(machine, self.hbm)
        self.entries[name](c, tiling)
        check_depth(c.e.ops, machine)
        check_length(c.e.ops, machine)
        return c


Chosen = Mapping[str, tuple[Context, Tiling]]
"""Every entry of a plan with its row tile, by its name."""


def choose(plan: Plan, machine: Machine, emitted: Callable[[str, Tiling], Context]) -> Chosen:
    """Each entry of a plan with the row tile that suits the machine.

    Args:
        emitted: `plan.emitted` for the machine.

    Raises:
        UnmaskError: the machine cannot hold a tile.
    """
    return {name: _fitting(plan, name, machine, emitted) for name in plan.entries}


def parts_of(plan: Plan, chosen: Chosen, machine: Machine) -> dict[str, Any]:
    """What a program of these entries is made of, by the names of `Program`'s attributes; its instructions are `ops`.

    Raises:
        UnmaskError: the machine has less HBM.
    """
    check_hbm(plan.hbm.size, machine)
    ops: list[Op] = []
    phases: list[str] = []
    places: dict[str, tuple[int, int]] = {}
    high_water: dict[str, int] = {}
    for name, (c, _) in chosen.items():
        places[name] = (len(ops), len(ops) + len(c.e.ops))
        ops += c.e.ops
        phases += c.e.phases
        for memory, mark in c.high_water.items():
            high_water[memory] = max(mark, high_water.get(memory, 0))
    tiles = {name: asdict(tiling) for name, (_, tiling) in chosen.items()}
    lists = {name: c.lists for name, (c, _) in chosen.items() if c.lists}
    return {
        "ops": ops,
        "phases": phases,
        "hbm_bytes": plan.hbm.size,
        "regions": plan.hbm.regions,
        "data": plan.hbm.data,
        "machine": machine.model_dump(),
        "about": {**plan.about, "row_tiles": tiles, "sram_high_water": high_water} | ({"expert_lists": lists} if lists else {}),
        "entries": places,
    }


def assemble(plan: Plan, machine: Machine) -> Program:
    """The program of a plan.

    Raises:
        UnmaskError: the machine cannot hold a tile or an entry's instructions, nests fewer loops, or has less HBM.
    """
    parts = parts_of(plan, choose(plan, machine, lambda name, tiling: plan.emitted(name, tiling, machine)), machine)
    return Program(words=encode(parts.pop("ops")), **parts)


def _tilings(rows: int, sequences: int, most: int) -> Iterator[Tiling]:
    """Row tiles of at most `most` rows, from the tallest on: whole sequences, evenly, then parts of one, evenly."""
    tried = set()
    for parts in range(1, sequences + rows):
        whole = parts < sequences
        tiling = Tiling(-(-sequences // parts), rows) if whole else Tiling(1, -(-rows // (parts - sequences + 1)))
        if tiling.height <= most and tiling not in tried:
            tried.add(tiling)
            yield tiling


def _fitting(plan: Plan, name: str, machine: Machine, emitted: Callable[[str, Tiling], Context]) -> tuple[Context, Tiling]:
    """The entry with the tallest tile that fits, or with whole tiles of the array where these take less time."""
    rows, sequences = plan.rows[name], plan.sequences
    overflow: SramOverflow | None = None
    for tiling in _tilings(rows, sequences, machine.vector.accumulators):
        try:
            c = emitted(name, tiling)
        except SramOverflow as error:
            overflow = error
            continue
        whole = _whole_tiles(tiling, machine)
        if _cost(whole, rows, sequences, machine) < _cost(tiling, rows, sequences, machine):
            return emitted(name, whole), whole
        return c, tiling
    raise UnmaskError(f"machine {machine.name} cannot run {plan.what}: {overflow}")


def _whole_tiles(tiling: Tiling, machine: Machine) -> Tiling:
    """The tallest tile that is no taller and fills the array's tiles of `blen` rows, if there is one."""
    height = tiling.height // machine.matrix.blen * machine.matrix.blen
    if tiling.sequences > 1:
        return Tiling(max(height // tiling.rows, 1), tiling.rows)
    return Tiling(1, height or tiling.rows)


def _cost(tiling: Tiling, rows: int, sequences: int, machine: Machine) -> float:
    """Cycles per weight: those of the array or, where that is more, those in which the memory brings it; once for every tile."""
    blen, bits = machine.matrix.blen, mx.format_named(machine.formats.weights).bits_per_element
    memory = bits / 8 * machine.clock_ghz / machine.memory_gbps

    def cost(height: int) -> float:
        return max(ceil_to(height, blen) / machine.peak_multiplies, memory) if height else 0.0

    if tiling.sequences > 1:
        return sequences // tiling.sequences * cost(tiling.height) + cost(sequences % tiling.sequences * rows)
    return sequences * (rows // tiling.rows * cost(tiling.rows) + cost(rows % tiling.rows))

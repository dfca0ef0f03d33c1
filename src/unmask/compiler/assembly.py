"""Entries of a program put together: each with the row tile that suits the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict

from unmask.compiler.context import Context, Tiling
from unmask.compiler.memory import Hbm, SramOverflow, ceil_to
from unmask.errors import UnmaskError
from unmask.isa.encoding import Op, encode
from unmask.isa.program import Program
from unmask.machine.config import Machine
from unmask.machine.cycle import check_depth, check_length
from unmask.machine.state import check_hbm
from unmask.numerics import mx


def assemble(
    entries: dict[str, Callable[[Context, Tiling], None]],
    rows: dict[str, int],
    sequences: int,
    hbm: Hbm,
    machine: Machine,
    about: dict[str, object],
    what: str = "this model and policy",
) -> Program:
    """One program of several entries over the same memory, each with the row tile that suits the machine.

    Args:
        entries: what emits each entry up to HALT, by its name.
        rows: how many rows of each of the `sequences` each entry feeds.
        what: the entries do, for messages.

    Raises:
        UnmaskError: the machine cannot hold a tile or an entry's instructions, nests fewer loops, or has less HBM.
    """
    ops: list[Op] = []
    phases: list[str] = []
    places: dict[str, tuple[int, int]] = {}
    tiles: dict[str, object] = {}
    high_water: dict[str, int] = {}
    lists: dict[str, object] = {}
    for name, emit in entries.items():
        c, tiling = _fitting(emit, rows[name], sequences, hbm, machine, what)
        check_depth(c.e.ops, machine)
        check_length(c.e.ops, machine)
        places[name] = (len(ops), len(ops) + len(c.e.ops))
        ops += c.e.ops
        phases += c.e.phases
        tiles[name] = asdict(tiling)
        if c.lists:
            lists[name] = c.lists
        for memory, mark in c.high_water.items():
            high_water[memory] = max(mark, high_water.get(memory, 0))
    check_hbm(hbm.size, machine)
    return Program(
        words=encode(ops),
        phases=phases,
        hbm_bytes=hbm.size,
        regions=hbm.regions,
        data=hbm.data,
        machine=machine.model_dump(),
        about={**about, "row_tiles": tiles, "sram_high_water": high_water} | ({"expert_lists": lists} if lists else {}),
        entries=places,
    )


def _tilings(rows: int, sequences: int, most: int) -> Iterator[Tiling]:
    """Row tiles of at most `most` rows, from the tallest on: whole sequences, evenly, then parts of one, evenly."""
    tried = set()
    for parts in range(1, sequences + rows):
        whole = parts < sequences
        tiling = Tiling(-(-sequences // parts), rows) if whole else Tiling(1, -(-rows // (parts - sequences + 1)))
        if tiling.height <= most and tiling not in tried:
            tried.add(tiling)
            yield tiling


def _fitting(
    emit: Callable[[Context, Tiling], None], rows: int, sequences: int, hbm: Hbm, machine: Machine, what: str
) -> tuple[Context, Tiling]:
    """The entry with the tallest tile that fits, or with whole tiles of the array where these take less time."""
    overflow: SramOverflow | None = None
    for tiling in _tilings(rows, sequences, machine.vector.accumulators):
        c = Context(machine, hbm)
        try:
            emit(c, tiling)
        except SramOverflow as error:
            overflow = error
            continue
        whole = _whole_tiles(tiling, machine)
        if _cost(whole, rows, sequences, machine) < _cost(tiling, rows, sequences, machine):
            c, tiling = Context(machine, hbm), whole
            emit(c, tiling)
        return c, tiling
    raise UnmaskError(f"machine {machine.name} cannot run {what}: {overflow}")


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

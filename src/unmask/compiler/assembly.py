"""Entries of a program put together: each with the tallest row tile that the machine holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict

from unmask.compiler.context import Context, Tiling
from unmask.compiler.memory import Hbm, SramOverflow
from unmask.errors import UnmaskError
from unmask.isa.encoding import Op, encode
from unmask.isa.program import Program
from unmask.machine.config import Machine
from unmask.machine.cycle import check_depth
from unmask.machine.state import check_hbm


def assemble(
    entries: dict[str, Callable[[Context, Tiling], None]],
    rows: dict[str, int],
    sequences: int,
    hbm: Hbm,
    machine: Machine,
    about: dict[str, object],
    what: str = "this model and policy",
) -> Program:
    """One program of several entries over the same memory, each with the tallest row tile that the machine holds.

    Args:
        entries: what emits each entry up to HALT, by its name.
        rows: how many rows of each of the `sequences` each entry feeds.
        what: the entries do, for messages.

    Raises:
        UnmaskError: the machine cannot hold a tile, nests fewer loops, or has less HBM.
    """
    ops: list[Op] = []
    phases: list[str] = []
    places: dict[str, tuple[int, int]] = {}
    tiles: dict[str, object] = {}
    high_water: dict[str, int] = {}
    for name, emit in entries.items():
        c, tiling = _tallest(emit, rows[name], sequences, hbm, machine, what)
        check_depth(c.e.ops, machine)
        places[name] = (len(ops), len(ops) + len(c.e.ops))
        ops += c.e.ops
        phases += c.e.phases
        tiles[name] = asdict(tiling)
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
        about={**about, "row_tiles": tiles, "sram_high_water": high_water},
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


def _tallest(
    emit: Callable[[Context, Tiling], None], rows: int, sequences: int, hbm: Hbm, machine: Machine, what: str
) -> tuple[Context, Tiling]:
    overflow: SramOverflow | None = None
    for tiling in _tilings(rows, sequences, machine.vector.accumulators):
        c = Context(machine, hbm)
        try:
            emit(c, tiling)
        except SramOverflow as error:
            overflow = error
        else:
            return c, tiling
    raise UnmaskError(f"machine {machine.name} cannot run {what}: {overflow}")

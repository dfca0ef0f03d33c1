"""A program in numbers, as the analytic reading walks it: first what a compiled program alone says, then what it takes on a machine."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from unmask.errors import UnmaskError
from unmask.isa.encoding import Op
from unmask.isa.table import BY_NAME, INSTRUCTIONS, NO_SEMAPHORE, Cost, Engine, Kind
from unmask.machine import _analytic as kernels
from unmask.machine.analytic_memory import Pins, Place
from unmask.machine.config import Machine
from unmask.machine.costs import Cycles, cost_of, operations_of
from unmask.machine.cycle import MOVERS, PIPELINED, engine_of
from unmask.machine.dma import Transfer, is_dma, transfer_of

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

_FLOW: dict[str, int] = {
    name: getattr(kernels, name) for name in ("LOOP", "END", "SEM_SET", "HALT", "S_LI", "S_ADDI", "S_ADD", "S_MULI", "S_XORI", "S_LD")
}
_SIZES = {row.name: tuple(spec.name for spec in row.fields if spec.kind is not Kind.REGISTER) for row in INSTRUCTIONS}
"""The operands of an instruction of which its cycles may depend."""
_UNKNOWN = (0,) * (kernels.COLUMNS - kernels.OCCUPANCY)
_NONE = (NO_SEMAPHORE, NO_SEMAPHORE)
_MACHINES = 8
"""For how many machines what instructions take is kept."""


class Alike(NamedTuple):
    """Instructions that take as long on any machine: the operands they share, the first of them, and its number in the program."""

    key: Hashable
    op: Op
    first: int


class Moving(NamedTuple):
    """A DMA instruction: its number in the program, and what it moves."""

    at: int
    transfer: Transfer
    write: bool


class Group(NamedTuple):
    """What instructions have in common: numbers of their phase, their engine and their cost class."""

    phase: int
    engine: int
    kind: int


@dataclass(frozen=True)
class Skeleton:
    """A program of one entry in numbers, but for what depends on the machine: its formats are all that enters.

    Attributes:
        table: int64 [instructions, COLUMNS], 0 where the machine decides.
        repeats: int64 [instructions], how often each runs: the product of the trip counts around it.
        phases: names, by their number in the table.
        alike: instructions that are no transfers, by what they take; `alike_of` int64 [instructions] is their number, -1 of transfers.
        moving: the transfers.
        groups: instructions by phase, engine and class; `group_of` int64 [instructions] is their number.
        counts, operations: int64 [groups], executed and computed.
        semaphores: int64, those named.
    """

    table: I64
    repeats: I64
    phases: tuple[str, ...]
    alike: tuple[Alike, ...]
    alike_of: I64
    moving: tuple[Moving, ...]
    groups: tuple[Group, ...]
    group_of: I64
    counts: I64
    operations: I64
    semaphores: I64

    @property
    def engines(self) -> I64:
        """Number of the engine that runs each instruction."""
        return self.table[:, kernels.ENGINE]


@dataclass(frozen=True)
class Listing:
    """A program of one entry on a machine.

    Attributes:
        skeleton: what is so on every machine.
        table: int64 [instructions, COLUMNS], what the walk reads.
        moved: float64 [instructions], bytes of HBM that one moves each time, on average over its addresses.
        asked: int64 [instructions], bytes of HBM that one names each time.
    """

    skeleton: Skeleton
    table: I64
    moved: F64
    asked: I64

    @property
    def busy(self) -> I64:
        """Cycles for which each instruction keeps its engine each time; 0 of load and store, whose time the memory decides; of a pipelined
        engine, until it takes the next."""
        engines, whole = self.skeleton.engines, self.table[:, kernels.OCCUPANCY] + self.table[:, kernels.LATENT]
        return np.where(np.isin(engines, MOVERS), 0, np.where(np.isin(engines, PIPELINED), self.table[:, kernels.OCCUPANCY], whole))


def _row(op: Op, phase: int, target: int) -> tuple[int, ...]:
    """An instruction's row of the table."""
    operands = cast(Mapping[str, int], op.operands)  # those read here are integers
    kind, engine = _FLOW.get(op.name, kernels.PLAIN), 0
    value = rd = rs = rt = scales = 0
    address = -1
    if kind == kernels.PLAIN:
        engine = engine_of(op)
        if is_dma(op):
            address = operands["table"] if op.name == "L_GATHER" else operands["dst" if engine is Engine.STORE else "src"]
            scales = operands["ids"] if op.name == "L_GATHER" else operands.get("scales", 0)
    elif kind >= kernels.S_LI:
        rd, rs, rt, value = operands["rd"], operands.get("rs", operands.get("a", 0)), operands.get("rt", 0), operands.get("value", 0)
    elif kind == kernels.LOOP:
        value = operands["count"]
    elif kind == kernels.SEM_SET:
        target, value = operands["semaphore"], operands["value"]
    wait = (*op.wait, *_NONE)[:2] if op.wait else _NONE
    signal = (*op.signal, *_NONE)[:2] if op.signal else _NONE
    return (kind, engine, phase, *wait, *signal, target, value, rd, rs, rt, address, scales, *_UNKNOWN)


def skeleton_of(ops: Sequence[Op], phases: Sequence[str], machine: Machine) -> Skeleton:
    """Instructions of one entry, with the phase of each, in numbers.

    Args:
        machine: any with the formats that the program was compiled for.

    Raises:
        UnmaskError: an operand that the instruction set has not, or a size of 0 of a transfer; names the instruction.
    """
    names = tuple(dict.fromkeys(phases))
    phase_number = {name: index for index, name in enumerate(names)}
    numbers: dict[Hashable, int] = {}
    group_numbers: dict[tuple[int, int, int], int] = {}
    rows: list[tuple[int, ...]] = []
    alike: list[Alike] = []
    computed: list[int] = []
    transfers: dict[Hashable, Transfer] = {}
    moving: list[Moving] = []
    alike_of, group_of, repeats = [], [], []
    starts, trips = [0], [1]
    for index, (op, phase) in enumerate(zip(ops, phases, strict=True)):
        repeats.append(trips[-1])
        target, number = 0, -1
        if op.name == "LOOP":
            starts.append(index)
            trips.append(trips[-1] * int(op.operands["count"]))
        elif op.name == "END":
            target = starts.pop()
            trips.pop()
        try:
            row = _row(op, phase_number[phase], target)
            if row[kernels.ADDRESS0] >= 0:
                key = (op.name, *(op.operands[spec.name] for spec in op.row.fields))
                transfer = transfers.get(key)
                if transfer is None:
                    transfer = transfers[key] = transfer_of(op, machine)
                moving.append(Moving(index, transfer, row[kernels.ENGINE] == Engine.STORE))
            else:
                plain = row[kernels.KIND] == kernels.PLAIN
                key = (op.name, *[op.operands[name] for name in _SIZES[op.name]]) if plain else (op.name,)
                number = numbers.setdefault(key, len(alike))
                if number == len(alike):
                    alike.append(Alike(key, op, index))
                    computed.append(operations_of(op))
        except UnmaskError as error:
            raise UnmaskError(f"instruction {index}: {error}") from None
        rows.append(row)
        alike_of.append(number)
        kind = Cost.SEQUENCER if row[kernels.ENGINE] == 0 else BY_NAME[op.name].cost
        group_of.append(group_numbers.setdefault((row[kernels.PHASE], row[kernels.ENGINE], kind), len(group_numbers)))
    table = np.array(rows, np.int64).reshape(-1, kernels.COLUMNS)
    times, groups, numbered = (np.array(values, np.int64) for values in (repeats, group_of, alike_of))
    done = np.array([*computed, 0], np.int64)[numbered]  # the last is what a transfer's -1 finds
    counts, operations = (np.bincount(groups, times * amount, len(group_numbers)).astype(np.int64) for amount in (1, done))
    used = np.setdiff1d(table[:, kernels.WAIT0 : kernels.SIGNAL1 + 1], [NO_SEMAPHORE])
    known = tuple(Group(*group) for group in group_numbers)
    return Skeleton(table, times, names, tuple(alike), numbered, tuple(moving), known, groups, counts, operations, used)


class _Prices:
    """What instructions take on a machine, kept from program to program."""

    def __init__(self, machine: Machine) -> None:
        self._machine, self.pins = machine, Pins(machine)
        self._known: dict[Hashable, Cycles] = {}

    def of(self, alike: Alike) -> Cycles:
        """What instructions take that are no transfers."""
        found = self._known.get(alike.key)
        if found is None:
            try:
                found = self._known[alike.key] = cost_of(alike.op, self._machine)
            except UnmaskError as error:
                raise UnmaskError(f"instruction {alike.first}: {error}") from None
        return found


@lru_cache(maxsize=_MACHINES)
def _prices(machine: str) -> _Prices:
    """By the machine's JSON, since a machine may hold what cannot be hashed."""
    return _Prices(Machine.model_validate_json(machine))


def list_skeleton(skeleton: Skeleton, machine: Machine, parameters: Mapping[int, int] | None = None) -> Listing:
    """What the instructions of a program take on a machine; `parameters` as of `unmask.machine.analytic.analytic_time`.

    Raises:
        UnmaskError: an instruction without a cost; names it.
    """
    prices, table = _prices(machine.model_dump_json()), skeleton.table.copy()
    costs = np.array([*map(prices.of, skeleton.alike), Cycles(0, 0)], np.int64)  # the last is what a transfer's -1 finds
    table[:, [kernels.OCCUPANCY, kernels.LATENT, kernels.GAP]] = costs[skeleton.alike_of]
    words = np.zeros(max(parameters or {}, default=-1) + 1, np.int64)
    for address, value in (parameters or {}).items():
        words[address] = value
    found = np.zeros((len(table), 4), np.int64)
    kernels.places(table, machine.sequencer.loop_depth, words, found)
    moved, asked = np.zeros(len(table)), np.zeros(len(table), np.int64)
    for moving in skeleton.moving:
        times = prices.pins.times(moving.transfer, moving.write, Place(*found[moving.at].tolist()))
        table[moving.at, kernels.OCCUPANCY : kernels.GAP] = times[: kernels.GAP - kernels.OCCUPANCY]
        moved[moving.at], asked[moving.at] = times.moved, times.asked
    return Listing(skeleton, table, moved, asked)


def forget_machines() -> None:
    """Drop what is kept of machines."""
    _prices.cache_clear()

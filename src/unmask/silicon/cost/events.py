"""What a program does, counted: from operands and trip counts, none of it estimated.

Two kinds of figures come from a timing and not from the program: the bytes that the memory moves, which depend on addresses, and cycles.
Of a value that only a run knows the largest is counted: noise that a register may switch off is counted unless a constant does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from unmask.isa.encoding import Op
from unmask.isa.program import Program
from unmask.isa.table import BF16_BYTES, INSTRUCTIONS, REGISTER_COUNT, STRIDE_UNIT, Cost, Engine, Kind
from unmask.machine.access import Access, accesses, operand_format
from unmask.machine.config import Machine
from unmask.machine.cycle import engine_of
from unmask.numerics import mx
from unmask.silicon.cost.sram import BF16_BITS, INSTRUCTION_BITS, WORD_BITS, block_bits

Key = tuple[str, str]
"""Phase and event."""
LANE_PARTS = ("lane", "function", "noise", "max", "window", "sum")
"""Parts of the vector engine that there are as many of as lanes."""
_NO_REGISTERS = (0,) * REGISTER_COUNT
_SIZES = {
    row.name: tuple(spec.name for spec in row.fields if spec.kind is not Kind.REGISTER and row.engine is not Engine.SEQUENCER)
    for row in INSTRUCTIONS
}
"""The operands of an instruction on which its events depend: none that a register holds, and none of the sequencer's."""
_WRITING = frozenset(row.name for row in INSTRUCTIONS if any(spec.name == "rd" for spec in row.fields))
_NOISY = frozenset(row.name for row in INSTRUCTIONS if any(spec.name == "temperature" for spec in row.fields))
"""Instructions that write a register, and those that add noise by one."""
_Alike = tuple[Any, ...]
"""What instructions of the same events have in common: name, whether they are without noise, and sizes."""
_TREES = {"V_RED_SUM": "sum", "V_RED_SUM_GE": "sum", "V_RED_SUM_WIN": "window"}


@dataclass(frozen=True)
class Counts:
    """Events of one or several runs of programs on a machine.

    Attributes:
        machine: what ran them.
        cycles: from the first instruction to the last, of all runs.
        events: how often, by phase and event. Events begin with the engine or the memory they happen in: "vector.lane", elements;
            "matrix.mac.<format>", products with a right operand of that format; "vector_sram.read", bits; "load.hbm_bytes", bytes moved;
            "vector.busy", lanes times the cycles in which they do something.
    """

    machine: Machine
    cycles: int
    events: Mapping[Key, int] = field(default_factory=dict)

    def __add__(self, other: Counts) -> Counts:
        """One after the other, on the same machine."""
        return Counts(self.machine, self.cycles + other.cycles, Counter(self.events) + Counter(other.events))

    def __mul__(self, times: int) -> Counts:
        """So many times."""
        return Counts(self.machine, self.cycles * times, {key: number * times for key, number in self.events.items()})

    @property
    def totals(self) -> dict[str, int]:
        """Events of all phases."""
        found: Counter[str] = Counter()
        for (_, event), number in self.events.items():
            found[event] += number
        return dict(found)


def count_events(program: Program, machine: Machine, cycles: int, hbm_bytes: Mapping[str, int]) -> Counts:
    """The events of one run of a program of one entry.

    Args:
        program: need not be encoded or have data.
        machine: what it runs on.
        cycles: that the run takes, by any reading.
        hbm_bytes: that "load" and "store" move in it; phases share them by what they ask for.
    """
    events: Counter[Key] = Counter()
    asked: dict[str, Counter[str]] = {name: Counter() for name in hbm_bytes}
    ops = program.ops
    repeats, constants = [1], _Constants(ops)
    alike: dict[_Alike, Op] = {}
    runs: Counter[tuple[str, _Alike]] = Counter()
    for index, (op, phase) in enumerate(zip(ops, program.phases, strict=True)):
        operands = op.operands
        key = (op.name, constants.noiseless(op), *[operands[name] for name in _SIZES[op.name]])
        alike.setdefault(key, op)
        runs[phase, key] += repeats[-1]
        constants.step(index, op)
        if op.name == "LOOP":
            repeats.append(repeats[-1] * int(op.operands["count"]))
        elif op.name == "END":
            repeats.pop()
    each = {key: _events(op, machine, key[1]) for key, op in alike.items()}
    for (phase, key), times in runs.items():
        for event, number in each[key].items():
            if event == "asked":
                asked[engine_of(alike[key]).name.lower()][phase] += number * times
            else:
                events[phase, event] += number * times
    for engine, moved in hbm_bytes.items():
        whole, before = sum(asked[engine].values()), 0
        for phase, share in asked[engine].items():
            events[phase, f"{engine}.hbm_bytes"] += moved * (before + share) // whole - moved * before // whole
            before += share
    return Counts(machine, cycles, dict(events))


class _Constants:
    """Which registers hold a constant that the program states."""

    def __init__(self, ops: list[Op]) -> None:
        self._values: dict[int, int] = {}
        self._written: dict[int, set[int]] = {}
        starts: list[int] = []
        for index, op in enumerate(ops):
            if op.name == "LOOP":
                starts.append(index)
                self._written[index] = set()
            elif op.name == "END":
                starts.pop()
            elif op.name in _WRITING:
                for start in starts:
                    self._written[start].add(int(op.operands["rd"]))

    def step(self, index: int, op: Op) -> None:
        """Go on past an instruction; what a loop writes is unknown from its first iteration on."""
        if op.name == "LOOP":
            for register in self._written[index]:
                self._values.pop(register, None)
        if op.name in _WRITING:
            self._values.pop(int(op.operands["rd"]), None)
        if op.name == "S_LI":
            self._values[int(op.operands["rd"])] = int(op.operands["value"])

    def noiseless(self, op: Op) -> bool:
        """Whether an instruction's temperature is the constant 0."""
        return op.name in _NOISY and self._values.get(int(op.operands["temperature"])) == 0


def _events(op: Op, machine: Machine, noiseless: bool) -> Counter[str]:
    """Events of an instruction each time; "asked" are bytes of HBM that it names."""
    found: Counter[str] = Counter({"sequencer.instruction": 1, "program_sram.read": INSTRUCTION_BITS})
    engine = op.row.engine
    if engine is Engine.MATRIX:
        found.update(_product(op, machine))
    elif engine is Engine.VECTOR:
        found.update(_OF_VECTOR[op.row.cost](op, machine))
        found["vector.busy"] = max(found.get(f"vector.{part}", 0) for part in LANE_PARTS)
        if noiseless:
            del found["vector.noise"]
    elif engine in (Engine.LOAD, Engine.STORE):
        found.update(_transfer(op, machine))
    for event, number in _touched(op, machine):
        found[event] += number
    return found


def _number(op: Op, name: str) -> int:
    return int(op.operands[name])


def _product(op: Op, machine: Machine) -> dict[str, int]:
    m, n, k = (_number(op, name) for name in ("m", "n", "k"))
    form = machine.formats.stored[_number(op, "format")]
    return {
        f"matrix.mac.{form}": m * n * k,
        "matrix.tail": m * n * ceil(k / min(machine.matrix.blen, mx.BLOCK)),
        "matrix.quantize": _left_reads(op, machine) * m * k,
        "matrix.round": m * n,
    }


def _left_reads(op: Op, machine: Machine) -> int:
    """How often the left operand of a product passes the array: rows of sub-arrays work on neighbouring columns and share it."""
    return ceil(_number(op, "n") / machine.matrix.blen / machine.matrix.rows)


def _elements(op: Op) -> int:
    return _number(op, "rows") * _number(op, "cols")


def _lanes(op: Op, machine: Machine) -> dict[str, int]:
    return {"vector.lane": _elements(op)}


def _function(op: Op, machine: Machine) -> dict[str, int]:
    return {"vector.function": _elements(op)}


def _noise(op: Op, machine: Machine) -> dict[str, int]:
    return {"vector.noise": _elements(op), "vector.lane": _elements(op)}


def _reduce(op: Op, machine: Machine) -> dict[str, int]:
    return {f"vector.{_TREES.get(op.name, 'max')}": _elements(op)}


def _sample(op: Op, machine: Machine) -> dict[str, int]:
    return {f"vector.{part}": _elements(op) for part in ("noise", "function", "max", "window")}


def _scalar(op: Op, machine: Machine) -> dict[str, int]:
    return {"vector.scalar": _number(op, "count")}


def _scalar_function(op: Op, machine: Machine) -> dict[str, int]:
    return {"vector.scalar_function": _number(op, "count")}


def _integer(op: Op, machine: Machine) -> dict[str, int]:
    return {"vector.integer": _number(op, "count")}


def _top_k(op: Op, machine: Machine) -> dict[str, int]:
    # Every score is compared with every entry at once.
    return {"vector.sorter": _number(op, "count") * machine.vector.sorter}


def _top_k_row(op: Op, machine: Machine) -> dict[str, int]:
    return {"vector.max": _number(op, "k") * _elements(op), "vector.lane": _elements(op)}


def _rows(op: Op, machine: Machine) -> dict[str, int]:
    return {"vector.lane": _number(op, "rows")}


def _expert_tiles(op: Op, machine: Machine) -> dict[str, int]:
    return {"vector.lane": _number(op, "span") * _number(op, "cols"), "vector.integer": 2 * _number(op, "tiles")}


def _moved_rows(op: Op, machine: Machine) -> dict[str, int]:
    # The scan of the weights looks at whole rows of them.
    return {"vector.lane": _elements(op) + _number(op, "span") * _number(op, "b_stride") * STRIDE_UNIT}


_OF_VECTOR: dict[Cost, Callable[[Op, Machine], dict[str, int]]] = {
    Cost.LANES: _lanes,
    Cost.FUNCTION: _function,
    Cost.NOISE: _noise,
    Cost.REDUCE: _reduce,
    Cost.SAMPLE: _sample,
    Cost.SCALAR: _scalar,
    Cost.SCALAR_FUNCTION: _scalar_function,
    Cost.INTEGER: _integer,
    Cost.TOPK: _top_k,
    Cost.TOPK_ROW: _top_k_row,
    Cost.ROWS: _rows,
    Cost.EXPERT_TILES: _expert_tiles,
    Cost.GATHER_ROWS: _moved_rows,
    Cost.SCATTER_ADD: _moved_rows,
}


def _transfer(op: Op, machine: Machine) -> dict[str, int]:
    """Elements that a DMA engine converts, and the bytes that it names."""
    if op.row.cost is Cost.GATHER:
        return {"asked": _elements(op) * BF16_BYTES}
    engine = op.row.engine.name.lower()
    asked = sum(access.rows * access.cols for access in accesses(op, _NO_REGISTERS, machine) if access.space == "hbm")
    return {"asked": asked, **({f"{engine}.element": _elements(op)} if op.name in ("L_MX", "ST_MX") else {})}


def _touched(op: Op, machine: Machine) -> Iterator[tuple[str, int]]:
    """Bits of the on-chip memories, and row accumulators, that an instruction reads and writes."""
    for access in accesses(op, _NO_REGISTERS, machine):
        if access.space != "hbm":
            where = "vector.accumulator" if access.space == "accumulators" else f"{access.space}_sram.{'write' if access.write else 'read'}"
            yield where, _passes(op, access, machine) * _bits(op, access, machine)


def _passes(op: Op, access: Access, machine: Machine) -> int:
    """How often an instruction goes through a tile."""
    if op.row.cost is Cost.TOPK_ROW and not access.write:
        return _number(op, "k")
    if op.row.engine is Engine.MATRIX and not access.write:
        return _left_reads(op, machine) if access.space == "vector" else ceil(_number(op, "m") / machine.matrix.blen)
    return 1


def _bits(op: Op, access: Access, machine: Machine) -> int:
    rows = access.rows
    if op.row.cost in (Cost.GATHER_ROWS, Cost.SCATTER_ADD) and access.cols == _number(op, "cols"):
        # Any of the rows that there are may be meant, but a tile's are as many as it has.
        rows = min(rows, _number(op, "rows"))
    if access.space == "vector" and op.row.cost is Cost.ROWS:
        # One column of each row, wherever it is.
        return rows * machine.vector.granule * BF16_BITS
    if access.space == "vector":
        return rows * ceil(access.cols / machine.vector.granule) * machine.vector.granule * BF16_BITS
    if access.space == "matrix":
        return rows * access.cols * block_bits(_stored(op, machine))
    return rows * access.cols * (1 if access.space == "accumulators" else WORD_BITS)


def _stored(op: Op, machine: Machine) -> str:
    return operand_format(op, machine) if op.name == "L_MAT" else machine.formats.stored[_number(op, "format")]

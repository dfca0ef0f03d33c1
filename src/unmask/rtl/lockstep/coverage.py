"""What random programs have exercised: instructions x operand classes, and hazards; and what they have not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from unmask.isa.encoding import Op
from unmask.isa.table import BY_NAME, STRIDE_UNIT, Engine, Instruction, Kind
from unmask.machine.access import Access
from unmask.machine.config import MATRIX_FORMATS, Machine
from unmask.machine.state import State
from unmask.rtl.lockstep.nodes import ENGINES, probe
from unmask.rtl.lockstep.sizes import MATRIX_INSTRUCTIONS

_TILE = ("one row", "rows", "less than a vector", "whole vectors", "vectors and a part", "off a vector")
_VALUES = ("NaN", "infinity", "subnormal", "zero", "minus zero", "equal maxima")
_MASKS = ("none eligible", "all eligible", "some eligible")
_K = ("k negative or 0", "k below the eligible", "k all the eligible", "k above the eligible")
_NOISE = ("temperature 0", "temperature")
_PRODUCTS = ("transposed", "straight", "part of a tile", "whole tiles", "several chunks", "several groups")
_HBM = ("off a beat", "on a beat", "contiguous", "rows apart")
_SMALLEST = np.float32(2.0**-126)


def _fields(row: Instruction) -> set[str]:
    return {spec.name for spec in row.fields}


def classes_of(row: Instruction, machine: Machine) -> list[str]:
    """The operand classes that an instruction can have."""
    fields, engine = _fields(row), row.engine
    found: list[str] = []
    if engine is Engine.SEQUENCER:
        return found
    sizes: dict[str, Any] = {spec.name: 1 for spec in row.fields if spec.kind is not Kind.REGISTER}
    roles = probe(row.name, {**sizes, "running": 0, "format": 0}, machine).roles
    reads = [a[0] for a in roles.values() if not a[0].write]
    if "rows" in fields and engine is Engine.VECTOR and any(a[0].space == "vector" for a in roles.values()):
        found += _TILE if machine.vector.granule < machine.vector.vlen else _TILE[:-1]
    elif "rows" in fields:
        found += _TILE[:2]
    if "running" in fields:
        found += ["running", "not running"]
    if "format" in fields:
        formats = MATRIX_FORMATS if row.name in MATRIX_INSTRUCTIONS else len(machine.formats.stored)
        found += [f"format {number}" for number in range(formats)]
    if engine is Engine.MATRIX:
        found += _PRODUCTS
    if any(a.space in ("vector", "float") for a in reads):
        found += _VALUES[:5] if row.name != "F_EXP" else _VALUES[:4]
    if row.name.startswith(("V_RED_MAX", "V_SAMPLE")) and "rows" in fields:
        found.append(_VALUES[5])
    if "eligible" in fields:
        found += _MASKS
    if {"k", "eligible"} <= fields:
        found += _K
    if "temperature" in fields:
        found += _NOISE
    if any(a[0].space == "hbm" for a in roles.values()):
        found += _HBM[:2] + (_HBM[2:] if "rows" in fields else ())
    return found


def universe(names: Collection[str], machine: Machine) -> list[str]:
    """Every point: instructions, instructions with their classes, and hazards."""
    found = []
    for name in sorted(names):
        found.append(name)
        found += [f"{name}: {label}" for label in classes_of(BY_NAME[name], machine)]
    engines = [engine for engine in ENGINES if engine in {BY_NAME[name].engine for name in names}]
    pairs = [f"hazard: {a.name.lower()} -> {b.name.lower()}" for a in engines for b in engines if a is not b]
    found += [*pairs, *(f"{pair} of the next iteration" for pair in pairs)]
    if "L_GATHER" in names:
        found.append("hazard: load -> load")
    if "M_MM" in names:
        found.append("hazard: matrix -> matrix")
    found += ["hazard: load -> sequencer", "hazard: two waits", "hazard: two signals", "hazard: engine busy", "hazard: engine waits"]
    return found


class Coverage:
    """Counts points while programs run."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._beat = machine.hbm.beat_bytes
        self.counts: Counter[str] = Counter()

    def see(self, op: Op, registers: Sequence[int], touches: Sequence[Access], state: State) -> None:
        """Note an instruction that is about to be executed."""
        name = op.name
        labels = set()
        if op.row.engine is not Engine.SEQUENCER:
            labels = self._labels(op, registers, touches, state)
        self.counts[name] += 1
        self.counts.update(f"{name}: {label}" for label in labels)

    def pairs(self, pairs: dict[str, int], ops: Sequence[Op]) -> None:
        """Note a program's hazards."""
        self.counts.update({f"hazard: {label}": count for label, count in pairs.items()})
        self.counts["hazard: two waits"] += sum(len(op.wait) > 1 for op in ops)
        self.counts["hazard: two signals"] += sum(len(op.signal) > 1 for op in ops)
        for name in ("HALT", "LOOP", "END", "SEM_SET"):
            self.counts[name] += sum(op.name == name for op in ops)

    def starts(self, engine: np.ndarray[Any, Any], start: np.ndarray[Any, Any], ready: np.ndarray[Any, Any]) -> None:
        """Note whether instructions found their engine busy."""
        for number in ENGINES:
            mine = engine == number
            busy = start[mine][1:] == ready[mine][:-1]
            self.counts["hazard: engine busy"] += int(busy.sum())
            self.counts["hazard: engine waits"] += int((~busy).sum())

    def _labels(self, op: Op, registers: Sequence[int], touches: Sequence[Access], state: State) -> set[str]:
        row, get = op.row, op.operands
        fields = _fields(row)
        labels: set[str] = set()
        vlen = self._machine.vector.vlen
        if "rows" in get:
            labels.add(_TILE[0] if get["rows"] == 1 else _TILE[1])
        if "cols" in get and row.engine is Engine.VECTOR:
            cols = int(get["cols"])
            labels.add(_TILE[2] if cols < vlen else _TILE[4] if cols % vlen else _TILE[3])
        if "running" in get:
            labels.add("running" if get["running"] else "not running")
        if "format" in get:
            labels.add(f"format {get['format']}")
        if row.engine is Engine.MATRIX:
            labels |= self._products(op)
        for access in touches:
            if row.engine is not Engine.MATRIX and access.space == "vector" and access.start % vlen:
                labels.add(_TILE[5])
            elif access.space == "hbm":
                labels.add(_HBM[0] if access.start % self._beat else _HBM[1])
                labels.add(_HBM[2] if access.row_stride == access.cols else _HBM[3])
            if not access.write:
                self._values(access, state, labels)
        if "eligible" in fields:
            count = int(get["count"])
            chosen = int(np.count_nonzero(state.words(registers[int(get["eligible"])], count)))
            labels.add(_MASKS[0] if chosen == 0 else _MASKS[1] if chosen == count else _MASKS[2])
            if "k" in fields:
                k = registers[int(get["k"])]
                labels.add(_K[0] if k <= 0 else _K[1] if k < chosen else _K[2] if k == chosen else _K[3])
        if "temperature" in fields:
            labels.add(_NOISE[1] if registers[int(get["temperature"])] & 0xFFFF else _NOISE[0])
        return labels

    def _products(self, op: Op) -> set[str]:
        array, (m, n, k) = self._machine.matrix, (int(op.operands[name]) for name in ("m", "n", "k"))
        width = array.blen * array.rows
        labels = {_PRODUCTS[0] if op.operands["transposed"] else _PRODUCTS[1]}
        labels.add(_PRODUCTS[2] if m % array.blen or n % width or k % array.mlen else _PRODUCTS[3])
        if k > array.mlen:
            labels.add(_PRODUCTS[4])
        if m > array.blen and n > width:
            labels.add(_PRODUCTS[5])
        return labels

    def _values(self, access: Access, state: State, labels: set[str]) -> None:
        if access.space == "vector":
            x = state.tile(access.start, access.rows, access.cols, access.row_stride // STRIDE_UNIT)
        elif access.space == "float":
            x = state.scalars(access.start, access.cols).reshape(1, -1)
        else:
            return
        magnitude = np.abs(x)
        if np.isnan(magnitude).any():
            labels.add(_VALUES[0])
        if np.isinf(magnitude).any():
            labels.add(_VALUES[1])
        small = magnitude < _SMALLEST
        if small.any():
            zero = magnitude == 0
            if (small & ~zero).any():
                labels.add(_VALUES[2])
            if zero.any():
                negative = np.signbit(x)
                if (zero & negative).any():
                    labels.add(_VALUES[4])
                if (zero & ~negative).any():
                    labels.add(_VALUES[3])
        if access.space == "vector" and access.cols > 1:
            top = np.fmax.reduce(x, axis=1)
            if ((x == top[:, None]).sum(axis=1) > 1).any():
                labels.add(_VALUES[5])

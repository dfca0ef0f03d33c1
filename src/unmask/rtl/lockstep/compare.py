"""What the RTL did against what it should have done: every value, and every instruction's first and last cycle.

Values are compared after each instruction: in every location that it may write, the RTL must have the reference's value, counting only what
the instruction and those before it have written; and it may write nowhere else. Which instruction a write belongs to follows from time: one
of an engine's writes is its instruction's that ends next. Those of store and matrix engine are told apart by their number, because the next
instruction's beats pass while the last one's response is still on its way, and its results before the last one's end. So are the words of
loads, whose end an earlier one may put off, but for those of the matrix SRAM: a beat that ends inside a block writes of it what the next
one writes again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unmask.isa.table import Engine
from unmask.rtl.lockstep.bench import RETIRE, START, Outcome
from unmask.rtl.lockstep.reference import Expected, Space

I64 = NDArray[np.int64]
_ENGINES = len(Engine)
_CYCLE_BITS = 36
_RANK_BITS = 24
_COUNTED = (Engine.STORE, Engine.MATRIX, Engine.LOAD)
_REWRITTEN = (Space.MATRIX, Space.SCALES)
"""Memories whose locations a load may write more than once."""


class Mismatch(NamedTuple):
    """A difference.

    Attributes:
        program: number in the batch.
        instruction: number of the executed instruction in program order; -1 for one that should not be there.
        pc: its place in the program.
        what: "value", "extra write", "start", "end", "missing", "extra instruction", "pc" or "cycles".
        where: location, for values: "vector 17".
        expected, found: cycles or bit patterns.
    """

    program: int
    instruction: int
    pc: int
    what: str
    where: str
    expected: int
    found: int

    def __str__(self) -> str:
        place = f" at {self.where}" if self.where else ""
        values = f"expected {self.expected:#x}, found {self.found:#x}"
        return f"program {self.program}, executed instruction {self.instruction} (pc {self.pc}): {self.what}{place}: {values}"


@dataclass
class Comparison:
    """Differences of a batch: how many instructions leave a wrong value, how many start or end in a wrong cycle, and the first of each."""

    instructions: int = 0
    value_mismatches: int = 0
    cycle_mismatches: int = 0
    failing: set[int] = field(default_factory=set)
    details: list[Mismatch] = field(default_factory=list)


class _Executions:
    """The executed instructions of a batch as flat arrays, and by (program, engine, rank)."""

    def __init__(self, expected: Sequence[Expected]) -> None:
        sizes = [len(e.trace.pc) for e in expected]
        self.first = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
        self.program = np.repeat(np.arange(len(expected)), sizes)

        def column(name: str) -> I64:
            return np.concatenate([getattr(e.trace, name) for e in expected])

        self.pc, self.engine, self.start, self.end = column("pc"), column("engine"), column("start"), column("end")
        self.key = _ranked(self.program * _ENGINES + self.engine)
        self.order = np.argsort(self.key)
        self.sorted = self.key[self.order]

    def find(self, keys: I64) -> I64:
        """Flat numbers of instructions by (program, engine, rank); -1 where there is none."""
        if not len(self.sorted):
            return np.full(len(keys), -1)
        at = np.minimum(np.searchsorted(self.sorted, keys), len(self.sorted) - 1)
        return np.where(self.sorted[at] == keys, self.order[at], -1)


def _ranked(lane: I64) -> I64:
    """Each entry's lane and how many of the same lane come before it, in one number."""
    order = np.argsort(lane, kind="stable")
    where = lane[order]
    first = np.searchsorted(where, where)
    keys = np.empty(len(lane), np.int64)
    keys[order] = (where.astype(np.int64) << _RANK_BITS) + np.arange(len(lane)) - first
    return keys


def compare(
    expected: Sequence[Expected], log: NDArray[Any], outcomes: Sequence[Outcome], timed: Sequence[bool], most: int = 200
) -> Comparison:
    """Hold a log against what was expected.

    Args:
        expected: of each program.
        log: of `unmask.rtl.lockstep.runner.execute`.
        outcomes: of each program.
        timed: whether the program's cycles are to be compared: not where the memory stalls.
        most: differences to describe.
    """
    if not expected:
        return Comparison()
    executions = _Executions(expected)
    result = Comparison(instructions=len(executions.pc))
    found: list[Mismatch] = []
    _times(executions, np.asarray(timed, bool), log, result, found)
    _values(executions, expected, log, result, found)
    for number, (e, outcome) in enumerate(zip(expected, outcomes, strict=True)):
        if outcome.status != 1 or (timed[number] and outcome.cycles != e.cycles % 2**32):
            result.cycle_mismatches += 1
            what = "cycles" if outcome.status == 1 else {2: "fault", 3: "timeout"}[outcome.status]
            found.append(Mismatch(number, -1, outcome.pc, what, "", e.cycles, outcome.cycles if outcome.status == 1 else outcome.code))
    result.failing |= {mismatch.program for mismatch in found}
    result.details = sorted(found)[:most]
    return result


def _times(x: _Executions, timed: NDArray[np.bool_], log: NDArray[Any], result: Comparison, found: list[Mismatch]) -> None:
    wrong = np.zeros(len(x.pc), bool)
    for kind, label, due in ((START, "start", x.start), (RETIRE, "end", x.end)):
        events = log[log["kind"] == kind]
        cycle = events["cycle"] + (kind == RETIRE)
        lane = events["program"].astype(np.int64) * _ENGINES + events["engine"]
        number = x.find(_ranked(lane))
        extra = np.flatnonzero(number < 0)
        result.cycle_mismatches += len(extra)
        found += [
            Mismatch(int(events["program"][i]), -1, int(events["address"][i]), "extra instruction", label, 0, int(cycle[i]))
            for i in extra[:50]
        ]
        seen = np.full(len(x.pc), -1, np.int64)
        pc = np.full(len(x.pc), -1, np.int64)
        known = number >= 0
        seen[number[known]], pc[number[known]] = cycle[known], events["address"][known].astype(np.int64)
        late = (seen != due) & ((seen < 0) | timed[x.program])
        for what, mask, good, bad in ((label, late, due, seen), ("pc", (pc != x.pc) & (seen >= 0), x.pc, pc)):
            wrong |= mask
            for i in np.flatnonzero(mask)[:50]:
                name = "missing" if seen[i] < 0 else what
                number_in = int(i - x.first[x.program[i]])
                found.append(Mismatch(int(x.program[i]), number_in, int(x.pc[i]), name, label, int(good[i]), int(bad[i])))
    result.cycle_mismatches += int(wrong.sum())


def _owners(x: _Executions, expected: Sequence[Expected], log: NDArray[Any], writes: NDArray[Any]) -> I64:
    """Flat numbers of the instructions that writes belong to, -1 for none."""
    lane = writes["program"].astype(np.int64) * _ENGINES + writes["engine"]
    ends = log[log["kind"] == RETIRE]
    end_lane = ends["program"].astype(np.int64) * _ENGINES + ends["engine"]
    end_codes = (end_lane << _CYCLE_BITS) + ends["cycle"] + 1
    end_codes.sort()
    rank = np.searchsorted(end_codes, (lane << _CYCLE_BITS) + writes["cycle"], side="right") - np.searchsorted(
        end_codes, lane << _CYCLE_BITS
    )
    for engine in _COUNTED:
        mine = (writes["engine"] == engine) & ~np.isin(writes["kind"], _REWRITTEN)
        if not mine.any():
            continue
        # The locations that each instruction writes, in order: a program's n-th belongs to the one that brings their sum above n.
        sizes = np.concatenate(
            [
                np.bincount(
                    e.instruction[(e.trace.engine[e.instruction] == engine) & ~np.isin(e.space, _REWRITTEN)], minlength=len(e.trace.pc)
                )
                for e in expected
            ]
        )
        order = x.order
        of_engine = order[x.engine[order] == engine]
        total = np.cumsum(sizes[of_engine])
        before = np.concatenate(([0], total))
        programs = x.program[of_engine]
        first = np.searchsorted(programs, np.arange(len(expected)))
        base = before[first]
        program = writes["program"][mine].astype(np.int64)
        position = _ranked(program) & ((1 << _RANK_BITS) - 1)
        rank[mine] = np.searchsorted(total, base[program] + position, side="right") - first[program]
    code = (lane << _RANK_BITS) + rank
    owner = x.find(code)
    # A SYNC may end in the cycle in which the load behind it writes its first words.
    writes_some = np.zeros(len(x.pc), bool)
    for number, e in enumerate(expected):
        writes_some[x.first[number] + e.instruction] = True
    loads = writes["engine"] == Engine.LOAD
    while (silent := loads & (owner >= 0) & ~writes_some[owner]).any():
        code[silent] += 1
        owner[silent] = x.find(code[silent])
    return owner


def _values(x: _Executions, expected: Sequence[Expected], log: NDArray[Any], result: Comparison, found: list[Mismatch]) -> None:
    writes = log[log["kind"] < START]
    owner = _owners(x, expected, log, writes)
    sizes = [len(e.instruction) for e in expected]
    program = np.repeat(np.arange(len(expected)), sizes)
    due = np.concatenate([e.instruction for e in expected]) + x.first[program]
    space = np.concatenate([e.space for e in expected])
    address = np.concatenate([e.address for e in expected])
    value = np.concatenate([e.value for e in expected])
    # One number per location of a program's memories, the same for both sides.
    places = np.empty(len(space) + len(writes), [("program", "<i8"), ("space", "<i8"), ("address", "<i8")])
    places["program"] = np.concatenate((program, writes["program"]))
    places["space"] = np.concatenate((space, writes["kind"]))
    places["address"] = np.concatenate((address, writes["address"].astype(np.int64)))
    codes = (places["program"] << 3 | places["space"]) << 40 | places["address"] & ((1 << 40) - 1)
    _, number = np.unique(codes, return_inverse=True)
    due_code = (number[: len(space)].astype(np.int64) << 34) + due
    place = number[len(space) :].astype(np.int64) << 34
    # A load that a SYNC before it keeps from ending lets the next one's first words pass.
    passing = np.flatnonzero((writes["engine"] == Engine.LOAD) & (owner >= 0) & ~np.isin(place + owner, due_code))
    following = x.find(x.key[owner[passing]] + 1)
    owner[passing] = np.where(np.isin(place[passing] + following, due_code), following, owner[passing])
    code = place + owner
    # Stable: of several writes of an instruction to a location, the last counts.
    order = np.argsort(code, kind="stable")
    code_sorted = code[order]
    at = np.searchsorted(code_sorted, due_code, side="right") - 1
    same = (at >= 0) & (code_sorted[np.maximum(at, 0)] >> 34 == due_code >> 34) if len(code_sorted) else np.zeros(len(due_code), bool)
    held = np.zeros(len(due_code), np.uint64)
    if len(code_sorted):
        held = np.where(same, writes["value"][order[np.maximum(at, 0)]], np.uint64(0))
    wrong = ~same | (held != value)
    bad = np.unique(due[wrong])
    for i in np.flatnonzero(wrong)[:100]:
        where = f"{Space(int(space[i])).name.lower()} {int(address[i])}" + ("" if same[i] else " (not written)")
        flat = int(due[i])
        found.append(
            Mismatch(int(program[i]), flat - int(x.first[program[i]]), int(x.pc[flat]), "value", where, int(value[i]), int(held[i]))
        )
    extra = (owner < 0) | ~np.isin(code, due_code)
    for i in np.flatnonzero(extra)[:100]:
        flat, p = int(owner[i]), int(writes["program"][i])
        where = f"{Space(int(writes['kind'][i])).name.lower()} {int(writes['address'][i])}"
        inside = flat - int(x.first[p]) if flat >= 0 else -1
        pc = int(x.pc[flat]) if flat >= 0 else -1
        found.append(Mismatch(p, inside, pc, "extra write", where, 0, int(writes["value"][i])))
    result.value_mismatches += len(np.unique(np.concatenate((bad, owner[extra]))))
    result.failing |= set(program[wrong].tolist()) | set(writes["program"][extra].tolist())

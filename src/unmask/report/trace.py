"""A generation's time as a Chrome trace: engines as tracks, SRAM occupancy and HBM bandwidth as counters; the Perfetto UI opens it.

Every kind of step is a process of its own whose time starts at 0. Times are microseconds at the machine's clock, whole nanoseconds; `start`
and `cycles` of an instruction are exact. An instruction's slice is the time in which its engine takes no other; a load or a store may be
`done` later. A phase's slices are what its instructions add to the latest end so far, as in `unmask.machine.cycle.Timing`.

A file has a size that the UI can open: of each step only a window of cycles is drawn, by default as many from its beginning as fit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unmask.compiler.generation import GenerationTime
from unmask.errors import UnmaskError
from unmask.isa.encoding import Op
from unmask.isa.program import Program
from unmask.isa.table import REGISTER_COUNT, Engine, Kind
from unmask.machine.access import accesses
from unmask.machine.config import Machine
from unmask.machine.cycle import MOVERS, PIPELINED, Trace, engine_of, time_program
from unmask.machine.sequencer import REGISTER_INSTRUCTIONS, execute
from unmask.report.occupancy import Occupancy

I64 = NDArray[np.int64]

LARGEST_FILE = 48_000_000
"""Bytes: what the UI still opens with ease, and under 50 MB."""
MOST_TRACED = 2**23
"""Instructions of a step, from its beginning, that are looked at; 48 bytes of memory each."""
BINS = 2000
"""Values of a counter over a window, at most."""
_COUNTER_BYTES = 2_000_000
"""Room for the counters and the names of a step."""
_PHASE_BYTES = 200
"""Room for a slice of a phase."""
_ADDRESS_BYTES = 16
"""Room for an address register: 48 bits and a sign."""


class Window(NamedTuple):
    """Cycles [start, end) of every step."""

    start: int
    end: int

    @classmethod
    def parse(cls, text: str) -> Window:
        """The window `START:END`; an empty END is the end of the step.

        Raises:
            UnmaskError: not two numbers, or not in order.
        """
        first, colon, last = text.partition(":")
        try:
            window = cls(int(first or 0), int(last) if last else 2**62)
        except ValueError:
            window = cls(0, 0)
        if not colon or not 0 <= window.start < window.end:
            raise UnmaskError(f"window {text!r}: expected START:END in cycles, START below END")
        return window


WHOLE = Window(0, 2**62)


@dataclass(frozen=True)
class Step:
    """What is traced as one process: a program of one entry, the integer parameters it finds, and a title."""

    name: str
    title: str
    program: Program
    parameters: Mapping[int, int] = field(default_factory=dict)


class Drawn(NamedTuple):
    """What of a step is in the file: its window in cycles, its slices, and what there is in all."""

    start: int
    end: int
    cycles: int
    instructions: int
    executed: int


def steps_of(done: GenerationTime) -> list[Step]:
    """The first step of each kind of a generation."""
    return [
        Step(run.entry, f"{run.entry}, {run.count:,} of {done.steps:,} steps", done.program.entry(run.entry), run.parameters)
        for run in done.runs
    ]


def write_trace(
    path: Path,
    steps: Sequence[Step],
    machine: Machine,
    window: Window = WHOLE,
    about: Mapping[str, Any] | None = None,
    room: int = LARGEST_FILE,
) -> dict[str, Drawn]:
    """Time steps and write what happens in them, event by event; the file is replaced only when complete.

    Args:
        path: a file whose name may be anything.
        steps: in the order in which they are shown; every one gets an equal share of the room that those before it left.
        machine: that runs them.
        window: in cycles from the beginning of each step.
        about: goes into the file's `otherData`, beside what is drawn of each step.
        room: bytes of the file, at most.

    Returns:
        What is drawn, by the step's name.

    Raises:
        UnmaskError: the file cannot be written, a window that begins after a step's end or after `MOST_TRACED` instructions, a step that
            addresses more memory than the machine has, or what `time_program` raises.
    """
    partial = path.with_name(path.name + ".partial")
    drawn: dict[str, Drawn] = {}
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write('{"displayTimeUnit":"ns","traceEvents":[\n')
            events = _Events(file)
            for number, step in enumerate(steps):
                share = (room - file.tell()) // (len(steps) - number)
                drawn[step.name] = _draw(events, step, 1000 * (number + 1), machine, window, share - _COUNTER_BYTES)
            other = {**(about or {}), "machine": machine.name, "clock_ghz": machine.clock_ghz}
            other["steps"] = {name: _left_out(found) for name, found in drawn.items()}
            file.write(f'\n],"otherData":{json.dumps(other)}}}\n')
        partial.replace(path)
    except OSError as error:
        raise UnmaskError(f"{path}: cannot write the trace: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)
    return drawn


def _left_out(found: Drawn) -> dict[str, Any]:
    return {
        "window_cycles": [found.start, found.end],
        "cycles": found.cycles,
        "instructions_drawn": found.instructions,
        "instructions_executed": found.executed,
        "left_out": "nothing" if found.end - found.start == found.cycles else "instructions that start outside the window",
    }


class _Events:
    """Events of a file, a line each."""

    def __init__(self, file: IO[str]) -> None:
        self._file, self._separator = file, ""

    def put(self, event: str) -> None:
        self._file.write(self._separator + event)
        self._separator = ",\n"

    def put_all(self, events: Iterable[Mapping[str, Any]]) -> None:
        for event in events:
            self.put(json.dumps(event, separators=(",", ":")))


@dataclass(frozen=True)
class _Clock:
    ghz: float

    def nanoseconds(self, cycle: int) -> int:
        return round(cycle / self.ghz)

    def text(self, nanoseconds: int) -> str:
        """Microseconds."""
        return f"{nanoseconds // 1000}.{nanoseconds % 1000:03d}"

    def microseconds(self, cycle: int) -> float:
        return self.nanoseconds(cycle) / 1000


def _draw(events: _Events, step: Step, pid: int, machine: Machine, window: Window, room: int) -> Drawn:
    timing = time_program(step.program, machine, parameters=step.parameters, trace=MOST_TRACED)
    trace, executed = timing.trace, sum(timing.instructions.values())
    assert trace is not None
    clock = _Clock(machine.clock_ghz)
    slices = [_Slice(op, pc, phase, pid) for pc, (op, phase) in enumerate(zip(step.program.ops, step.program.phases, strict=True))]
    # Whatever is not traced is dispatched, and so starts, after the last traced instruction of the sequencer.
    seen = timing.cycles if len(trace.pc) == executed else int(trace.start[trace.engine == Engine.SEQUENCER][-1])
    if window.start >= seen:
        what = "the step has" if len(trace.pc) == executed else f"its first {MOST_TRACED:,} instructions take"
        raise UnmaskError(f"step {step.name}: the window begins at cycle {window.start:,}; {what} {seen:,}")
    digits = max(len(str(timing.cycles)), len(clock.text(clock.nanoseconds(timing.cycles))))
    most_bytes = np.array([piece.most_bytes(digits) for piece in slices])[trace.pc]
    most_bytes[1:] += _PHASE_BYTES * (np.diff(_phase_numbers(step.program)[trace.pc]) != 0)
    window = _fit(trace, Window(window.start, min(window.end, seen)), most_bytes, room)
    events.put_all(_names(step, pid, window, timing.cycles))
    events.put_all(_phases(step.program, trace, window, pid, clock))
    occupancy = Occupancy(machine, window.start, window.end)
    count = 0
    for text in _instructions(step, slices, trace, window, machine, occupancy, clock):
        events.put(text)
        count += 1
    bins = _bins(window)
    for (name, unit), values in {**_bandwidth(trace, window, bins, machine), **occupancy.peaks(bins)}.items():
        events.put_all(_counter(name, unit, values, bins, pid, clock))
    return Drawn(*window, timing.cycles, count, executed)


def _inside(trace: Trace, window: Window) -> NDArray[np.bool_]:
    """Of every traced instruction, whether it is drawn: those that take time and start inside the window."""
    inside: NDArray[np.bool_] = (trace.start >= window.start) & (trace.start < window.end) & (trace.ready > trace.start)
    return inside


def _fit(trace: Trace, window: Window, most_bytes: I64, room: int) -> Window:
    """The window, shortened to what fits; it ends where an instruction starts, and keeps at least one cycle."""
    inside = _inside(trace, window)
    order = np.argsort(trace.start[inside], kind="stable")
    total = np.cumsum(most_bytes[inside][order])
    fits = int(np.searchsorted(total, room, side="right"))
    if fits == len(order):
        return window
    return Window(window.start, max(int(trace.start[inside][order[fits]]), window.start + 1))


class _Slice:
    """An instruction as text, but for its times and the values of its address registers."""

    def __init__(self, op: Op, pc: int, phase: str, pid: int) -> None:
        self.op, engine = op, engine_of(op)
        self.keeps_registers = op.name in REGISTER_INSTRUCTIONS
        in_sequencer = engine is Engine.SEQUENCER
        registers = [spec.name for spec in op.row.fields if spec.kind is Kind.REGISTER]
        self._addresses = [] if in_sequencer else [(f',"{name}":', int(op.operands[name])) for name in registers]
        fixed = {name: _argument(value, name in registers) for name, value in op.operands.items() if in_sequencer or name not in registers}
        semaphores = {name: list(used) for name, used in (("wait", op.wait), ("signal", op.signal)) if used}
        arguments = json.dumps({"pc": pc, **fixed, **semaphores}, separators=(",", ":"))
        self._head = (
            f'{{"ph":"X","pid":{pid},"tid":{_track(pid, engine)},"name":"{op.name}","cat":{json.dumps(phase)},"args":{arguments[:-1]}'
        )
        self._late = engine in PIPELINED

    def most_bytes(self, digits: int) -> int:
        """No slice of this instruction is longer, where times have so many digits."""
        names = sum(len(name) + _ADDRESS_BYTES for name, _ in self._addresses)
        return len(self._head) + names + 5 * digits + len(',"start":,"cycles":,"done":},"ts":.,"dur":.},\n')

    def text(self, start: int, ready: int, end: int, registers: Sequence[int], clock: _Clock) -> str:
        at, until = clock.nanoseconds(start), clock.nanoseconds(ready)
        addresses = "".join(f"{name}{registers[register]}" for name, register in self._addresses)
        done = f',"done":{end}' if self._late else ""
        return (
            f'{self._head}{addresses},"start":{start},"cycles":{ready - start}{done}}},'
            f'"ts":{clock.text(at)},"dur":{clock.text(until - at)}}}'
        )


def _argument(value: float, register: bool) -> float | str:
    """An operand as JSON can say it."""
    if register:
        return f"r{value}"
    return value if math.isfinite(value) else str(value)


def _instructions(
    step: Step, slices: Sequence[_Slice], trace: Trace, window: Window, machine: Machine, occupancy: Occupancy, clock: _Clock
) -> Iterator[str]:
    """The slices of a window in program order; their accesses go to `occupancy`."""
    registers = [0] * REGISTER_COUNT
    inside = _inside(trace, window)
    drawn = np.flatnonzero(inside)
    upto = int(drawn[-1]) + 1 if len(drawn) else 0
    columns = (trace.pc, trace.start, trace.ready, trace.end, inside)
    for first in range(0, upto, 2**16):
        chunk = slice(first, min(first + 2**16, upto))
        for pc, start, ready, end, shown in zip(*(column[chunk].tolist() for column in columns), strict=True):
            piece = slices[pc]
            if shown:
                yield piece.text(start, ready, end, registers, clock)
                occupancy.add(accesses(piece.op, registers, machine), start, end)
            if piece.keeps_registers:
                execute(piece.op, registers, lambda address: step.parameters.get(address, 0))


def _track(pid: int, engine: Engine | None) -> int:
    """Number of an engine's track, or of that of the phases."""
    return pid + 1 if engine is None else pid + 2 + engine


def _names(step: Step, pid: int, window: Window, cycles: int) -> Iterator[dict[str, Any]]:
    part = "" if window == (0, cycles) else f", cycles {window.start:,} to {window.end:,} of {cycles:,}"
    yield {"ph": "M", "pid": pid, "name": "process_name", "args": {"name": step.title + part}}
    yield {"ph": "M", "pid": pid, "name": "process_sort_index", "args": {"sort_index": pid}}
    for engine in (None, *Engine):
        track = {"ph": "M", "pid": pid, "tid": _track(pid, engine)}
        yield {**track, "name": "thread_name", "args": {"name": "phases" if engine is None else engine.name.lower()}}
        yield {**track, "name": "thread_sort_index", "args": {"sort_index": _track(pid, engine)}}


def _phases(program: Program, trace: Trace, window: Window, pid: int, clock: _Clock) -> Iterator[dict[str, Any]]:
    """One slice wherever instructions of one phase follow each other in moving the latest end so far."""
    latest = np.maximum.accumulate(trace.end)
    moves = np.flatnonzero(np.diff(latest, prepend=0) > 0)
    last = np.flatnonzero(np.append(np.diff(_phase_numbers(program)[trace.pc[moves]]) != 0, True))
    start = 0
    for index in last.tolist():
        end = int(latest[moves[index]])
        first, until = max(start, window.start), min(end, window.end)
        if first < until:
            at, length = clock.microseconds(first), clock.nanoseconds(until) - clock.nanoseconds(first)
            name = program.phases[trace.pc[moves[index]]]
            track = {"ph": "X", "pid": pid, "tid": _track(pid, None), "name": name, "cat": "phase"}
            yield {**track, "ts": at, "dur": length / 1000, "args": {"start": first, "cycles": until - first}}
        start = end


def _phase_numbers(program: Program) -> I64:
    """A number for the phase of each instruction of a program."""
    return np.unique(program.phases, return_inverse=True)[1]


def _bins(window: Window) -> I64:
    """Where the counters' bins start, and where the last one ends: int64 [bins + 1]."""
    width = -(-(window.end - window.start) // BINS)
    return np.append(np.arange(window.start, window.end, width), window.end)


def _bandwidth(trace: Trace, window: Window, bins: I64, machine: Machine) -> dict[tuple[str, str], NDArray[np.float64]]:
    """GB/s of loads and stores in each bin, by the counter's name and unit.

    An instruction's bytes are spread evenly over the cycles in which it keeps its engine, and further where the memory is not that fast.
    """
    rates = {}
    fastest = machine.memory_gbps / machine.clock_ghz
    for engine in MOVERS:
        mine = (trace.engine == engine) & _inside(trace, window)
        moved, start, until = trace.hbm_bytes[mine], trace.start[mine].astype(np.float64), trace.ready[mine]
        free = 0.0
        begins, ends = np.empty(len(moved)), np.empty(len(moved))
        for index, (size, at, ready) in enumerate(zip(moved.tolist(), start.tolist(), until.tolist(), strict=True)):
            at = max(at, free)
            free = max(ready, at + size / fastest)
            begins[index], ends[index] = at, free
        corners = np.ravel(np.column_stack((begins, ends)))
        so_far = np.ravel(np.column_stack((np.cumsum(moved) - moved, np.cumsum(moved))))
        moved_by = np.interp(bins, corners, so_far) if len(corners) else np.zeros(len(bins))
        rates[f"HBM {engine.name.lower()}", f"of {machine.memory_gbps:,.4g} GB/s"] = np.diff(moved_by) / np.diff(bins) * machine.clock_ghz
    return rates


def _counter(name: str, unit: str, values: NDArray[Any], bins: I64, pid: int, clock: _Clock) -> Iterator[dict[str, Any]]:
    """A counter's values where they change, and 0 at the end."""
    before = None
    for at, value in zip(bins.tolist(), [*values.tolist(), 0], strict=True):
        value = round(value, 3)
        if value != before:
            yield {"ph": "C", "pid": pid, "name": name, "ts": clock.microseconds(at), "args": {unit: value}}
        before = value

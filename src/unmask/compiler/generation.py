"""How long a whole generation takes: every kind of step compiled and timed once, and counted as often as the schedule runs it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

from unmask.compiler.lower import compile_step
from unmask.compiler.routing import even_routing
from unmask.compiler.sampling.streamed import SamplingProgram
from unmask.compiler.schedule import Run, runs_of
from unmask.decoding.policy import Policy
from unmask.isa.encoding import Op
from unmask.isa.program import Program
from unmask.isa.table import BF16_BYTES, REGISTER_COUNT, Cost, Engine
from unmask.machine.access import accesses
from unmask.machine.config import Machine
from unmask.machine.costs import cost_of, operations_of
from unmask.machine.cycle import Timing, engine_of, time_program
from unmask.models.layers import Architecture

MEMORY = "memory"
"""What bounds a phase in which the load and the store engine are the busiest."""
_OF_A_LAYER = ("attention", "smoothing", "feed-forward")
_NO_REGISTERS = (0,) * REGISTER_COUNT
_Key = TypeVar("_Key", bound=Hashable)


class Part(NamedTuple):
    """What instructions of an entry have in common: their phase, their engine and their class (`unmask.isa.row.Cost`), in lower case."""

    phase: str
    engine: str
    kind: str


class Work(NamedTuple):
    """What the instructions of a part do, as often as their loops say.

    Attributes:
        instructions: executed.
        cycles: in which they keep their engine busy.
        hbm_bytes: moved.
        operations: of the matrix engine a multiplication and an addition for every product; of the vector engine one for every element.
    """

    instructions: int
    cycles: int
    hbm_bytes: int
    operations: int


def work_of(program: Program, timing: Timing, machine: Machine) -> dict[Part, Work]:
    """The work of every part of a program of one entry.

    An engine's cycles and bytes are those of `timing`, shared out among its parts: by occupancy and latency or, for load and store, by the
    bytes that the instructions ask for, since how long a transfer takes depends on what else the memory does.
    """
    counts: Counter[Part] = Counter()
    operations: Counter[Part] = Counter()
    weights: dict[str, Counter[Part]] = {engine.name.lower(): Counter() for engine in Engine}
    repeats = [1]
    for op, phase in zip(program.ops, program.phases, strict=True):
        engine = engine_of(op).name.lower()
        part = Part(phase, engine, op.row.cost.name.lower())
        counts[part] += repeats[-1]
        operations[part] += operations_of(op) * repeats[-1]
        weights[engine][part] += _weight(op, machine) * repeats[-1]
        if op.name == "LOOP":
            repeats.append(repeats[-1] * int(op.operands["count"]))
        elif op.name == "END":
            repeats.pop()
    cycles: dict[Part, int] = {}
    moved: dict[Part, int] = {}
    for engine, shares in weights.items():
        cycles |= shared_out(timing.busy[engine], shares)
        moved |= shared_out(timing.hbm_bytes.get(engine, 0), shares)
    return {part: Work(count, cycles[part], moved[part], operations[part]) for part, count in counts.items()}


def _weight(op: Op, machine: Machine) -> int:
    """Bytes of HBM that an instruction asks for, of load and store; else the cycles that it keeps its engine."""
    if op.row.engine not in (Engine.LOAD, Engine.STORE):
        cost = cost_of(op, machine)
        return 0 if op.name == "SYNC" and engine_of(op) in (Engine.LOAD, Engine.STORE) else cost.occupancy + cost.latency
    if op.row.cost is Cost.GATHER:
        return int(op.operands["rows"]) * int(op.operands["cols"]) * BF16_BYTES
    return sum(access.rows * access.cols for access in accesses(op, _NO_REGISTERS, machine) if access.space == "hbm")


def shared_out(total: int, shares: Mapping[_Key, int]) -> dict[_Key, int]:
    """`total` in whole parts that are in proportion to the shares and sum to it; all 0 where the shares are."""
    whole, before, result = sum(shares.values()) or 1, 0, {}
    for key, share in shares.items():
        result[key] = total * (before + share) // whole - total * before // whole
        before += share
    return result


class Bound(NamedTuple):
    """What a phase waits for: an engine or the memory, and the share of the phase's cycles in which it is busy.

    The share may exceed 1: engines work ahead in the time of the phase before.
    """

    by: str
    share: float


@dataclass(frozen=True)
class GenerationTime:
    """The cycle reading of a whole generation. Totals are sums over `runs`: an entry's figure times how often it runs.

    Attributes:
        machine, policy, shape: what was timed.
        batch, prompt_length: sequences, and positions of each before the generated ones.
        tokens_per_step: of a sequence; of commits by value an assumption.
        program: of all kinds of step, without weights.
        runs: how often each entry runs.
        timings, work: of one run of each entry, by its name.
        compile_seconds, timing_seconds: wall time of compilation and of the cycle reading.
    """

    machine: Machine
    policy: Policy
    shape: Architecture
    batch: int
    prompt_length: int
    tokens_per_step: float
    program: Program
    runs: tuple[Run, ...]
    timings: Mapping[str, Timing]
    work: Mapping[str, Mapping[Part, Work]]
    compile_seconds: float
    timing_seconds: float

    @property
    def steps(self) -> int:
        """Denoising steps."""
        return sum(run.count for run in self.runs)

    @property
    def tokens(self) -> int:
        """New tokens of all sequences."""
        return self.batch * self.policy.gen_length

    @property
    def cycles(self) -> int:
        """Cycles of all steps; the host's own time between them is not modelled."""
        return sum(self.timings[run.entry].cycles * run.count for run in self.runs)

    @property
    def seconds(self) -> float:
        """Time at the machine's clock."""
        return self.cycles / (self.machine.clock_ghz * 1e9)

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    @property
    def cycles_by_engine(self) -> dict[str, int]:
        """Cycles in which each engine is busy."""
        return self._of_timings(lambda timing: timing.busy)

    @property
    def utilization(self) -> dict[str, float]:
        """Share of all cycles in which each engine is busy."""
        return {engine: busy / self.cycles for engine, busy in self.cycles_by_engine.items()}

    @property
    def cycles_by_phase(self) -> dict[str, int]:
        """What every phase adds to the time; sums to `cycles`."""
        return self._of_timings(lambda timing: timing.phases)

    @property
    def cycles_by_layer(self) -> dict[str, tuple[int, int]]:
        """How many layers of a kind there are, and the cycles of all of them; what is no transformer layer counts as one of its kind."""
        kinds: Counter[str] = Counter()
        for phase, cycles in self.cycles_by_phase.items():
            kind = "transformer" if phase in _OF_A_LAYER else "sampling" if phase.startswith("sampling") else phase
            kinds[kind] += cycles
        return {kind: (self.shape.layers if kind == "transformer" else 1, cycles) for kind, cycles in kinds.items()}

    @property
    def hbm_bytes(self) -> int:
        """Bytes moved to and from HBM."""
        return sum(self.bytes_by_engine.values())

    @property
    def bytes_by_engine(self) -> dict[str, int]:
        """Bytes that the load and the store engine moved."""
        return self._of_timings(lambda timing: timing.hbm_bytes)

    @property
    def gbps(self) -> float:
        """GB/s moved, loads and stores together, over the whole time."""
        return self.hbm_bytes / self.seconds / 1e9

    def work_by(self, key: Callable[[Part], _Key]) -> dict[_Key, Work]:
        """Work of all steps, summed over the parts to which `key` gives the same."""
        totals: dict[_Key, Work] = {}
        for run in self.runs:
            for part, work in self.work[run.entry].items():
                name = key(part)
                before = totals.get(name, Work(0, 0, 0, 0))
                totals[name] = Work(*(old + new * run.count for old, new in zip(before, work, strict=True)))
        return totals

    @property
    def bounds(self) -> dict[str, Bound]:
        """What bounds each phase: its busiest engine, or the memory where that is the load or the store engine."""
        busy = {phase: {MEMORY: 0, "matrix": 0, "vector": 0, "sequencer": 0} for phase in self.cycles_by_phase}
        for (phase, engine), work in self.work_by(lambda part: (part.phase, part.engine)).items():
            by = MEMORY if engine in ("load", "store") else engine
            busy[phase][by] = max(busy[phase][by], work.cycles)
        cycles = self.cycles_by_phase
        busiest = {phase: max(engines, key=engines.__getitem__) for phase, engines in busy.items()}
        return {phase: Bound(by, busy[phase][by] / max(cycles[phase], 1)) for phase, by in busiest.items()}

    def _of_timings(self, part: Callable[[Timing], dict[str, int]]) -> dict[str, int]:
        total: Counter[str] = Counter()
        for run in self.runs:
            total.update({name: value * run.count for name, value in part(self.timings[run.entry]).items()})
        return dict(total)


def time_generation(
    shape: Architecture,
    policy: Policy,
    machine: Machine,
    prompt_length: int,
    batch: int = 1,
    tokens_per_step: float | None = None,
    sampling: SamplingProgram = "general",
    skip: bool = True,
) -> GenerationTime:
    """Compile the kinds of step of a generation and time each once.

    Args:
        shape: of the network; no weights are needed.
        policy: how the canvas is unmasked.
        machine: what runs it.
        prompt_length: positions before the generated ones.
        batch: sequences that are decoded side by side.
        tokens_per_step: see `runs_of`.
        sampling: see `compile_step`.
        skip: see `time_program`.

    Raises:
        UnmaskError: what `compile_step`, `runs_of` or `time_program` raise.
    """
    runs = runs_of(policy, shape, prompt_length, batch, tokens_per_step)
    started = time.perf_counter()
    program = compile_step(shape, policy, machine, prompt_length, batch, sampling=sampling)
    runs = tuple(replace(run, parameters=run.parameters | even_routing(program, run.entry)) for run in runs)
    compiled = time.perf_counter()
    entries = {run.entry: program.entry(run.entry) for run in runs}
    timings = {run.entry: time_program(entries[run.entry], machine, parameters=run.parameters, skip=skip) for run in runs}
    timed = time.perf_counter()
    work = {name: work_of(entry, timings[name], machine) for name, entry in entries.items()}
    rate = tokens_per_step or policy.gen_length / sum(run.count for run in runs)
    return GenerationTime(
        machine, policy, shape, batch, prompt_length, rate, program, runs, timings, work, compiled - started, timed - compiled
    )

"""Many random programs: made, run in three readings, compared; what differs is shrunk and saved."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from unmask.errors import UnmaskError
from unmask.isa.program import Program
from unmask.machine.config import Machine
from unmask.rtl.lockstep.bench import FAULT
from unmask.rtl.lockstep.build import harness
from unmask.rtl.lockstep.compare import Comparison, Mismatch, compare
from unmask.rtl.lockstep.coverage import Coverage, universe
from unmask.rtl.lockstep.faulty import EVERY, FaultyCase, fault_kinds, faulty
from unmask.rtl.lockstep.generator import Case, generate
from unmask.rtl.lockstep.names import instructions_of
from unmask.rtl.lockstep.reference import Expected, expect
from unmask.rtl.lockstep.runner import Job, execute, outcomes
from unmask.rtl.lockstep.shrink import shrink

CHUNK = 20
"""Programs that one process of the harness runs."""
_STALLED, _FAULTY = 4, 9
"""Of ten programs, one runs on a memory of random latency, and one ends in a fault."""
_PATIENCE = 4
"""A program has run away after so many times the cycles that it should take."""


@dataclass
class Result:
    """What came of some programs.

    Attributes:
        programs, instructions: run; executed.
        value_mismatches, cycle_mismatches: instructions that leave a wrong value or write where they should not; instructions, and
            programs, that start or end in a wrong cycle or not at all.
        fault_mismatches: faulty programs whose fault was not reported, or wrongly.
        coverage: points and how often they were met.
        failing: numbers of the programs with a mismatch; details: the first differences, their programs numbered likewise.
    """

    programs: int = 0
    instructions: int = 0
    value_mismatches: int = 0
    cycle_mismatches: int = 0
    fault_mismatches: int = 0
    coverage: Counter[str] = field(default_factory=Counter)
    failing: list[int] = field(default_factory=list)
    details: list[Mismatch] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not (self.value_mismatches or self.cycle_mismatches or self.fault_mismatches)

    def add(self, other: Result) -> None:
        """Count another result's programs too."""
        for name in ("programs", "instructions", "value_mismatches", "cycle_mismatches", "fault_mismatches"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.coverage.update(other.coverage)
        self.failing += other.failing
        self.details += other.details

    def take(self, comparison: Comparison, numbers: Sequence[int]) -> None:
        """Count a comparison, whose i-th program has number `numbers[i]`."""
        self.instructions += comparison.instructions
        self.value_mismatches += comparison.value_mismatches
        self.cycle_mismatches += comparison.cycle_mismatches
        self.failing += [numbers[p] for p in sorted(comparison.failing)]
        self.details += [d._replace(program=numbers[d.program]) for d in comparison.details]


def _job(case: Case, expected: Expected, stalls: bool, fresh: bool = False) -> Job:
    patience = _PATIENCE * expected.cycles + 10_000
    return Job(case.program.words, case.program.image(), patience * (40 if stalls else 1), fresh=fresh, stalls=stalls)


def run(programs: Sequence[Case], machine: Machine, unit: str = "sampler", *, stalls: Sequence[int] = ()) -> Result:
    """Run programs in all readings and compare them.

    Args:
        programs: one after the other in one simulation, each from where the last one left the engine.
        stalls: numbers of those whose memory has random latency; their cycles are not compared.

    Raises:
        UnmaskError: the unit cannot be built, or a program is not legal.
    """
    result, coverage = Result(programs=len(programs)), Coverage(machine)
    expected = [_expect(case, machine, coverage) for case in programs]
    jobs = [_job(case, e, number in stalls) for number, (case, e) in enumerate(zip(programs, expected, strict=True))]
    log = execute(harness(machine, unit), jobs, machine)
    timed = [number not in stalls for number in range(len(programs))]
    result.take(compare(expected, log, outcomes(log, len(jobs)), timed), range(len(programs)))
    result.coverage.update(coverage.counts)
    return result


def _expect(case: Case, machine: Machine, coverage: Coverage) -> Expected:
    expected = expect(case.program, machine, case.parameters, coverage.see)
    coverage.pairs(case.pairs, case.program.ops)
    coverage.starts(expected.trace.engine, expected.trace.start, expected.trace.ready)
    return expected


def chunk(program: Path, machine: Machine, unit: str, seed: int, numbers: Sequence[int]) -> Result:
    """Make and run the programs of a seed with these numbers, in one simulation."""
    names = instructions_of(unit)
    result, coverage = Result(programs=len(numbers)), Coverage(machine)
    cases: dict[int, tuple[Case, Expected]] = {}
    bad: dict[int, FaultyCase] = {}
    jobs: list[Job] = []
    for number in numbers:
        if number % EVERY == _FAULTY:
            bad[number] = faulty(seed, number, machine, names)
            jobs.append(bad[number].job)
        else:
            case = generate(seed, number, machine, names)
            cases[number] = case, _expect(case, machine, coverage)
            jobs.append(_job(*cases[number], number % EVERY == _STALLED))
    log = execute(program, jobs, machine, seed)
    ends = outcomes(log, len(jobs))
    places = [place for place, number in enumerate(numbers) if number in cases]
    kept = [numbers[place] for place in places]
    renumber = np.full(len(numbers), -1)
    renumber[places] = np.arange(len(places))
    log = log[renumber[log["program"]] >= 0]
    log["program"] = renumber[log["program"]]
    timed = [number % EVERY != _STALLED for number in kept]
    result.take(compare([cases[n][1] for n in kept], log, [ends[place] for place in places], timed), kept)
    for place, number in enumerate(numbers):
        if number in bad:
            case_, end = bad[number], ends[place]
            coverage.counts[f"fault: {case_.what.split(':')[0]}"] += 1
            if (end.status, end.code, end.pc) != (FAULT, case_.fault, case_.pc):
                result.fault_mismatches += 1
                result.failing.append(number)
                result.details.append(Mismatch(number, -1, case_.pc, f"fault, {case_.what} (pc {end.pc})", "", case_.fault, end.code))
    result.coverage.update(coverage.counts)
    return result


def fuzz(
    programs: int,
    seed: int,
    machine: Machine,
    unit: str = "sampler",
    *,
    jobs: int = 1,
    progress: Callable[[Result], None] = lambda result: None,
) -> Result:
    """Run the first programs of a seed.

    Args:
        jobs: processes.
        progress: called with what has been found so far, after every chunk.

    Raises:
        UnmaskError: the unit cannot be built.
    """
    program = harness(machine, unit)
    total = Result()
    ranges = [list(range(start, min(start + CHUNK, programs))) for start in range(0, programs, CHUNK)]
    for part in _parts(program, machine, unit, seed, ranges, jobs):
        total.add(part)
        progress(total)
    total.failing.sort()
    total.details.sort()
    return total


def _parts(program: Path, machine: Machine, unit: str, seed: int, ranges: list[list[int]], jobs: int) -> Iterator[Result]:
    if jobs == 1:
        for numbers in ranges:
            yield chunk(program, machine, unit, seed, numbers)
        return
    # The command's progress bar is a thread, which a forked process would not have. An interrupt is the parent's to handle.
    with ProcessPoolExecutor(jobs, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        waiting: set[Future[Result]] = {pool.submit(chunk, program, machine, unit, seed, numbers) for numbers in ranges}
        try:
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def missing(result: Result, machine: Machine, unit: str = "sampler") -> list[str]:
    """Points that a result has not met."""
    names = instructions_of(unit)
    points = [*universe(names, machine), *(f"fault: {kind}" for kind in fault_kinds(names))]
    return [point for point in points if not result.coverage[point]]


def verdicts(cases: Sequence[Case], machine: Machine, unit: str, stalls: bool) -> list[bool]:
    """Which of some programs fail, each from a reset engine."""
    expected: list[Expected | None] = []
    for case in cases:
        try:
            expected.append(expect(case.program, machine, case.parameters))
        except UnmaskError:
            expected.append(None)
    kept = [(number, case, e) for number, (case, e) in enumerate(zip(cases, expected, strict=True)) if e is not None]
    if not kept:
        return [False] * len(cases)
    jobs = [_job(case, e, stalls, fresh=True) for _, case, e in kept]
    log = execute(harness(machine, unit), jobs, machine)
    comparison = compare([e for _, _, e in kept], log, outcomes(log, len(jobs)), [not stalls] * len(jobs))
    failing = {kept[place][0] for place in comparison.failing}
    return [number in failing for number in range(len(cases))]


def save_failure(
    seed: int, number: int, machine: Machine, unit: str, folder: Path, progress: Callable[[int], None] = lambda size: None
) -> Path:
    """Shrink a failing program and save it, ready for `replay`.

    A program that fails only after others have run is saved as it is.

    Args:
        progress: called with the number of instructions left.

    Raises:
        UnmaskError: a faulty program, which is its seed and number and nothing else; or the file cannot be written.
    """
    if number % EVERY == _FAULTY:
        raise UnmaskError(f"program {number} of seed {seed} is meant to end in a fault: there is nothing to shrink")
    stalls = number % EVERY == _STALLED
    case = generate(seed, number, machine, instructions_of(unit))
    if verdicts([case], machine, unit, stalls)[0]:
        case = shrink(case, machine, lambda cases: verdicts(cases, machine, unit, stalls), progress)
    path = folder / f"fuzz-{seed}-{number}.unmask"
    about: dict[str, Any] = {"unit": unit, "seed": seed, "number": number, "stalls": stalls}
    about["parameters"] = {str(address): value for address, value in case.parameters.items()}
    folder.mkdir(parents=True, exist_ok=True)
    replace(case.program, about=about).save(path)
    return path


def replay(path: Path) -> Result:
    """Run a saved program again.

    Raises:
        UnmaskError: it is not one that `save_failure` wrote.
    """
    program = Program.load(path)
    try:
        unit, stalls = program.about["unit"], bool(program.about["stalls"])
        case = Case(program, {int(address): value for address, value in program.about["parameters"].items()})
        machine = Machine.model_validate(program.machine)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnmaskError(f"{path}: not a program that `unmask fuzz` saved ({type(error).__name__}: {error})") from None
    return run([case], machine, unit, stalls=(0,) if stalls else ())

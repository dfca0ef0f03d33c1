"""Every compiled program is free of races, would not be without its semaphores, and has a time."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import pytest

from unmask import Policy, UnmaskError, compile
from unmask.compiler.step import PARAMETERS, PARAMETERS_AT
from unmask.isa.encoding import Op, encode
from unmask.isa.program import Program
from unmask.isa.table import INSTRUCTIONS, Cost, Engine
from unmask.machine import access, costs
from unmask.machine.cycle import Timing, time_program
from unmask.machine.hazards import find_races
from unmask.machine.semantics import SEMANTICS

from .cases import BASE, CASES, NANO, SMALL, Case, compiled, network

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def parameters(case: Case, block: int = 0, commits: int = 1, seed: int = 3, step: int = 4) -> dict[int, int]:
    """The integer SRAM words that a step's program reads into registers."""
    start = case.prompt_length + block * case.policy.block_length
    words = {"first": 0, "block_start": start, "head_row": start, "seed": seed, "step": step}
    assert tuple(words) == PARAMETERS
    return {PARAMETERS_AT + index: value for index, value in enumerate((*words.values(), commits))}


@every_case
def test_no_program_races(case):
    for block in sorted({0, case.policy.blocks // 2, case.policy.blocks - 1}):
        assert find_races(compiled(case), case.machine, parameters(case, block)) == []
    assert find_races(compiled(case), case.machine, parameters(case, 0, case.policy.block_length, 2**31 - 1, 10**6)) == []


def complains(program: Program, case: Case) -> bool:
    try:
        return bool(find_races(program, case.machine, parameters(case)))
    except UnmaskError as error:
        return "semaphore" in str(error)


def without(program: Program, semaphore: int) -> Program:
    """The program with every signal, wait and credit of one semaphore taken out."""

    def strip(op: Op) -> Op:
        wait, signal = (tuple(name for name in names if name != semaphore) for names in (op.wait, op.signal))
        no_credit = op.name == "SEM_SET" and op.operands["semaphore"] == semaphore
        return Op(op.name, {**op.operands, "value": 0} if no_credit else op.operands, wait, signal)

    return replace(program, words=encode(map(strip, program.ops)))


# What stores write, loads read only after the vector engine has waited for the store: STORE to LOAD is there for clarity.
PAIRS = [
    (Engine.LOAD, Engine.SEQUENCER),
    (Engine.LOAD, Engine.VECTOR),
    (Engine.STORE, Engine.VECTOR),
    (Engine.MATRIX, Engine.VECTOR),
    (Engine.VECTOR, Engine.LOAD),
    (Engine.VECTOR, Engine.STORE),
    (Engine.VECTOR, Engine.MATRIX),
]
MUTATED = [case for case in CASES if case.name.split("-")[0] in {"2", "12", "15"}]


@pytest.mark.parametrize("case", MUTATED, ids=lambda case: case.name)
@pytest.mark.parametrize(("before", "after"), PAIRS, ids=lambda engine: engine.name.lower())
def test_a_program_without_the_order_of_two_engines_races(case, before, after):
    semaphore = int(before) * len(Engine) + int(after)
    mutant = without(compiled(case), semaphore)
    assert (mutant.words != compiled(case).words).any()
    assert complains(mutant, case)


def rings(case: Case) -> Iterator[tuple[int, int]]:
    """The semaphores (free, full) of each ring of buffers: the free one has the credits."""
    credited = [op.operands["semaphore"] for op in compiled(case).ops if op.name == "SEM_SET" and op.operands["value"]]
    return ((int(free), int(free) + 1) for free in credited)


@pytest.mark.parametrize("case", MUTATED, ids=lambda case: case.name)
def test_a_program_without_the_full_signal_of_a_ring_races(case):
    assert all(complains(without(compiled(case), full), case) for _, full in rings(case))


def test_a_program_without_the_free_signal_of_a_ring_of_three_tiles_races():
    [case] = [case for case in CASES if case.name.startswith("15-")]
    uses = [name for op in compiled(case).ops for name in op.wait]
    caught = [free for free, _ in rings(case) if complains(without(compiled(case), free), case)]
    # A stream's last uses of its two slots are not followed by others, so those of two tiles need no free signal.
    assert len(caught) >= len(list(rings(case))) / 2
    assert all(free in uses for free in caught)


@pytest.mark.parametrize("case", MUTATED[1:], ids=lambda case: case.name)
def test_one_missing_pair_between_a_load_and_the_array_races(case):
    program, (_, full) = compiled(case), next(rings(case))
    signals = [index for index, op in enumerate(program.ops) if op.name == "L_MAT"]
    waits = [index for index, op in enumerate(program.ops) if op.name == "M_MM"]
    for pair in zip(signals, waits, strict=True):
        ops = program.ops
        for index in pair:
            op = ops[index]
            assert full in (*op.wait, *op.signal)
            wait, signal = (tuple(name for name in names if name != full) for names in (op.wait, op.signal))
            ops[index] = Op(op.name, op.operands, wait, signal)
        assert complains(replace(program, words=encode(ops)), case)


@every_case
def test_one_missing_signal_is_a_deadlock(case):
    program = compiled(case)
    ops = program.ops
    index, op = next((index, op) for index, op in reversed(list(enumerate(ops))) if op.signal and op.name != "END")
    ops[index] = Op(op.name, op.operands, op.wait, ())
    mutant = replace(program, words=encode(ops))
    with pytest.raises(UnmaskError, match="deadlock"):
        time_program(mutant, case.machine)
    with pytest.raises(UnmaskError, match="deadlock"):
        find_races(mutant, case.machine, parameters(case))


SAMPLING = {"sampling-1-confidence", "sampling-2-scalars", "sampling-3-topk", "sampling-4-select"}
PHASES = {"embedding", "attention", "feed-forward", "lm-head"} | SAMPLING


@every_case
def test_every_phase_takes_time_and_all_sum_to_the_total(case):
    timing = time_program(compiled(case), case.machine)
    assert set(timing.phases) >= PHASES
    assert sum(timing.phases.values()) == timing.cycles
    assert all(timing.phases[phase] > 0 for phase in PHASES)
    assert set(timing.phases) - PHASES <= {"setup"}


@every_case
def test_no_engine_is_busier_than_the_program_is_long(case):
    timing = time_program(compiled(case), case.machine)
    assert set(timing.busy) == {engine.name.lower() for engine in Engine}
    assert all(0 < busy <= timing.cycles for busy in timing.busy.values())
    assert all(moved > 0 for moved in timing.hbm_bytes.values())


@every_case
def test_every_instruction_is_carried_out_as_often_as_its_loops_say(case):
    program, timing = compiled(case), time_program(compiled(case), case.machine)
    repeats, executed = [1], 0
    for op in program.ops:
        if op.name == "LOOP":
            executed += repeats[-1]
            repeats.append(repeats[-1] * int(op.operands["count"]))
            continue
        executed += repeats[-1]
        if op.name == "END":
            repeats.pop()
    assert sum(timing.instructions.values()) == executed


@cache
def _time(prompt_length: int, gen_length: int, block_length: int, temperature: float = 0.0, fast: bool = True) -> Timing:
    policy, machine = Policy(gen_length, block_length, gen_length, temperature=temperature), SMALL if fast else NANO
    return time_program(compile(network(BASE), policy, machine, prompt_length), machine)


def test_a_longer_canvas_takes_longer():
    lengths = [_time(prompt, 16, 16).cycles for prompt in (1, 16, 40, 80)]
    assert lengths == sorted(set(lengths))


def test_a_longer_block_takes_longer_in_head_and_sampling_only():
    short, long = _time(13, 32, 8), _time(13, 32, 32)
    assert long.cycles > short.cycles
    assert all(long.phases[phase] > short.phases[phase] for phase in SAMPLING | {"lm-head"} if phase != "sampling-4-select")
    assert all(long.phases[phase] == short.phases[phase] for phase in ("embedding", "attention", "feed-forward"))


def test_noise_takes_time_in_the_first_sampling_phase_only():
    greedy, noisy = _time(13, 32, 8), _time(13, 32, 8, 1.0)
    assert noisy.phases["sampling-1-confidence"] > greedy.phases["sampling-1-confidence"]
    assert {phase for phase in PHASES if noisy.phases[phase] != greedy.phases[phase]} == {"sampling-1-confidence"}


def test_a_smaller_machine_takes_longer():
    assert _time(13, 32, 8, fast=False).cycles > _time(13, 32, 8).cycles


def test_every_instruction_has_semantics_accesses_and_a_cost():
    on_engines = {row.name for row in INSTRUCTIONS if row.engine is not Engine.SEQUENCER}
    assert set(SEMANTICS) == on_engines
    assert set(access._RULES) == on_engines | {"S_LD", "SYNC"}
    assert {row.cost for row in INSTRUCTIONS} - {Cost.DMA, Cost.GATHER} <= set(costs._RULES)  # DMA is timed by its addresses


def test_plain_decoding_uses_every_instruction_of_the_transformer():
    used = {op.name for case in CASES for op in compiled(case).ops}
    unused = {row.name for row in INSTRUCTIONS} - used
    # Other policies (test_sampling.py) and smoothing (test_smoothing.py) use these.
    of_scorers = {"V_CUT", "V_RED_SUM_GE", "V_XEXP", "F_LOG", "F_GUMBEL", "F_FROM_INT", "F_LT", "I_SET_BIT_GT"}
    of_commits = {"V_THRESHOLD_MASK", "V_BARS_MASK", "F_FILL"}
    of_formats = {"L_MX", "V_COL_ABSMAX", "V_POW2", "V_RECIP"}
    of_other_programs = {"V_SAMPLE", "V_SAMPLE_END", "V_EXP_WIN", "V_RED_SUM_WIN", "F_EXP_WIN"}  # test_streaming.py
    of_mixtures = {"V_TOPK_ROW", "V_EXPERT_TILES", "V_GATHER_ROWS", "V_SCATTER_ADD"}  # test_experts.py
    assert unused == of_scorers | of_commits | of_formats | of_other_programs | of_mixtures

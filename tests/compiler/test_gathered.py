"""Before DRAM the time of a step depends on which rows of the embedding table it takes."""

from pathlib import Path

from unmask.compiler.host import Simulation, cycles_of_steps, simulate
from unmask.compiler.lower import compile_step
from unmask.decoding.policy import Policy
from unmask.isa.program import Program
from unmask.machine.config import Machine
from unmask.machine.cycle import time_program

from .cases import BASE, network

MACHINE = Machine.load(str(Path(__file__).parents[2] / "examples" / "machines" / "rtl-tiny-hbm2e.toml"))
LENGTH = 24


def generated(prompt: list[int]) -> tuple[Program, Simulation]:
    program = compile_step(network(BASE), Policy(4, 4, 2), MACHINE, len(prompt))
    return program, simulate(program, prompt)


def test_a_step_knows_the_rows_that_it_took() -> None:
    _, done = generated([7, 3, 300, 12])
    for step in done.steps:
        assert step.gathered.tolist() == step.before.reshape(-1).tolist()


def test_its_cycles_are_those_of_these_rows() -> None:
    spread = [(97 * number) % (BASE.vocab_size - 1) for number in range(LENGTH)]
    cycles = []
    for prompt in ([5] * LENGTH, spread):
        program, done = generated(prompt)
        step = done.steps[0]
        cycles.append(cycles_of_steps(program, done)[0])
        part = program.entry(step.entry)
        assert cycles[-1] == time_program(part, MACHINE, parameters=step.parameters, gathered=step.before.reshape(-1)).cycles
    assert cycles[0] != cycles[1], "the rows make no difference: another prompt is needed"

"""Whole generations by each sampling program: identical to the reference, and to each other wherever logits have one format."""

from __future__ import annotations

import pytest

from unmask import Policy, check, compile, simulate
from unmask.compiler.sampling.streamed import PROGRAMS
from unmask.errors import UnmaskError
from unmask.machine.hazards import find_races

from .cases import BASE, NANO, NARROW_HEADS, ODD, SMALL, TILES, TINY, network

PROMPTS = [[5, 9, 2, 6, 5, 3, 8], [4, 9, 2, 6, 6, 3, 8]]
RUNS = {
    "block-wise": (BASE, Policy(24, 12, 8, remasking="low_confidence", seed=5), NANO),
    "noise": (BASE, Policy(24, 24, 6, temperature=0.7, suppress_eos=True, seed=1), SMALL),
    "threshold": (TINY, Policy(9, 9, 9, temperature=1.0, remasking="low_confidence", commit="threshold", threshold=0.4), TILES),
    "uneven": (TINY, Policy(14, 7, 6, remasking="low_confidence"), ODD),
    "dual cache": (NARROW_HEADS, Policy(12, 4, 6, temperature=0.3, remasking="low_confidence", cache="dual"), SMALL),
}
STREAMING = PROGRAMS[1:]


@pytest.mark.parametrize("run", RUNS.values(), ids=list(RUNS))
def test_generations_equal_the_reference_and_each_other(run):
    config, policy, machine = run
    model = network(config)
    found = {}
    for sampling in STREAMING:
        program = compile(model, policy, machine, len(PROMPTS[0]), len(PROMPTS), sampling=sampling)
        simulation = simulate(program, PROMPTS)
        assert simulation.sampling == sampling
        assert check(simulation, model).identical
        found[sampling] = [step.canvas.tolist() for step in simulation.steps]
    assert found["four-phase"] == found["single-pass"] == found["fused"]


@pytest.mark.parametrize("sampling", STREAMING)
def test_programs_are_free_of_races(sampling):
    program = compile(network(TINY), Policy(14, 7, 6, temperature=0.5), TILES, 5, 3, sampling=sampling)
    words = dict(enumerate([0, 5, 5, 1, 0, 2, 2, 2]))
    for entry in program.entries:
        assert find_races(program.entry(entry), TILES, words) == []


def test_logits_in_mx_are_what_the_reference_of_each_program_sees():
    machine = SMALL.model_copy(update={"formats": SMALL.formats.model_copy(update={"logits": "mxfp8"})})
    model, policy = network(BASE), Policy(12, 12, 4, remasking="low_confidence")
    for sampling in STREAMING:
        assert check(simulate(compile(model, policy, machine, 7, sampling=sampling), PROMPTS[0]), model).identical


@pytest.mark.parametrize("sampling", STREAMING)
@pytest.mark.parametrize("fields", [{"remasking": "entropy"}, {"cfg_scale": 1.5}])
def test_a_policy_that_is_not_served_is_an_error(sampling, fields):
    with pytest.raises(UnmaskError, match="do not serve"):
        compile(network(TINY), Policy(8, 8, 4, **fields), SMALL, 3, sampling=sampling)

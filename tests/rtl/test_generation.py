"""Whole generations on the hardware in Verilator: the tokens, the positions and the cycles of all other readings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random

import pytest
from tests.cli.conftest import Command, unmask  # noqa: F401
from tests.compiler.cases import BASE, GROUPED, NARROW_HEADS, TINY, network

from unmask.compiler.check import check
from unmask.compiler.host import Simulation, cycles_of_steps, simulate
from unmask.compiler.lower import compile_step
from unmask.decoding.policy import Policy
from unmask.machine.config import Machine
from unmask.models.family import Network
from unmask.rtl.backend import RtlMachine, require_instructions
from unmask.rtl.lockstep.build import harness

MACHINE = Machine.preset("rtl-tiny")
BEFORE_DRAM = str(Path(__file__).parents[2] / "examples" / "machines" / "rtl-tiny-hbm2e.toml")
PROMPT = "My fellow citizens, the"
SHORT = ["--model", "micro", "--machine", "rtl-tiny", "--gen-length", "8", "--block-length", "4", "--steps", "4"]


def generated(model: Network, policy: Policy, prompt: Sequence[int], sampling: str, machine: Machine = MACHINE) -> Simulation:
    """A generation on the hardware, of which the other readings say the same."""
    program = compile_step(model, policy, machine, len(prompt), sampling=sampling)
    require_instructions(program, "npu")
    loaded: list[RtlMachine] = []

    def hardware(program, machine):
        loaded.append(RtlMachine(program, machine, harness(machine, "npu")))
        return loaded[0]

    done, read = simulate(program, prompt, executing=hardware), simulate(program, prompt)
    assert [step.canvas.tolist() for step in done.steps] == [step.canvas.tolist() for step in read.steps]
    assert [run.cycles for run in loaded[0].runs] == cycles_of_steps(program, done)
    assert check(done, model).identical
    loaded[0].close()
    return done


def test_the_command_checks_every_reading(unmask: Command) -> None:  # noqa: F811
    done = unmask("generate", PROMPT, *SHORT, "--temperature", "0.5", "--sampling", "fused", "--backend", "rtl", "--check", "--json")
    assert done.status == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["identical"]
    assert found["check"]["identical"]
    assert found["check"]["functional"]
    assert found["cycle_difference"] == 0
    assert found["cycles_per_second"] > 0
    assert len(found["tokens"]) == 8


def test_what_no_hardware_can_be_is_refused_with_the_reason(unmask: Command) -> None:  # noqa: F811
    machine = ["--machine", "published-512"]
    assert "hbm.ports 32: expected 1" in unmask("generate", PROMPT, "--model", "micro", *machine, "--backend", "rtl").is_mistake()


POLICIES = {
    "prefix cache": (Policy(8, 4, 4, cache="prefix", temperature=0.7, seed=3), "single-pass"),
    "dual cache": (Policy(8, 4, 4, cache="dual", temperature=0.3, seed=4), "fused"),
    "threshold": (Policy(8, 4, 8, commit="threshold", threshold=0.4), "four-phase"),
}
LONGER = {
    "plain": (Policy(16, 8, 16), "general"),
    "prefix cache": (Policy(16, 8, 8, cache="prefix", temperature=0.7, seed=3), "general"),
    "dual cache": (Policy(16, 8, 8, cache="dual", temperature=0.3, seed=4), "four-phase"),
    "factor": (Policy(16, 8, 16, cache="dual", commit="factor"), "single-pass"),
    "threshold": (Policy(16, 8, 16, cache="prefix", commit="threshold", threshold=0.4), "fused"),
    "Dream's scorer": (Policy(16, 16, 8, remasking="entropy", temperature=0.4, schedule="timesteps", seed=2), "general"),
    "padding of guidance": (Policy(8, 8, 4, cfg_scale=0.5), "general"),
}


def of_shipped(model: str, prompt: str, policy: Policy, sampling: str, machine: Machine = MACHINE) -> Simulation:
    """`generated` of a shipped model."""
    from unmask.models.checkpoint import load_network
    from unmask.models.tokenizer import load_tokenizer

    return generated(load_network(model), policy, load_tokenizer(model).encode(prompt), sampling, machine)


@pytest.mark.parametrize("name", POLICIES)
def test_the_micro_model_generates_what_it_should(name: str) -> None:
    policy, sampling = POLICIES[name]
    assert len(of_shipped("micro", PROMPT, policy, sampling).new_tokens()) == policy.gen_length


@pytest.mark.slow
@pytest.mark.parametrize("name", LONGER)
def test_the_micro_model_generates_more(name: str) -> None:
    policy, sampling = LONGER[name]
    assert len(of_shipped("micro", PROMPT, policy, sampling).new_tokens()) == policy.gen_length


@pytest.mark.slow
@pytest.mark.parametrize("cache_", ["none", "prefix", "dual"])
@pytest.mark.parametrize("temperature", [0.0, 0.6])
@pytest.mark.parametrize("sampling", ["four-phase", "single-pass", "fused"])
def test_caches_temperatures_and_sampling_programs_go_together(sampling: str, temperature: float, cache_: str) -> None:
    of_shipped("micro", PROMPT, Policy(8, 4, 4, cache=cache_, temperature=temperature, seed=5), sampling)


@pytest.mark.slow
def test_two_steps_of_the_shipped_model() -> None:
    """Minutes, besides the build."""
    assert len(of_shipped("sotu", "My fellow", Policy(8, 8, 2), "fused").steps) == 2


@cache
def before_dram() -> Machine:
    return Machine.load(BEFORE_DRAM)


@pytest.mark.slow
def test_before_dram_it_takes_the_cycles_of_the_model() -> None:
    generated(network(TINY), Policy(8, 4, 4), [5, 9, 2, 6, 5, 3, 8], "general", before_dram())


@pytest.mark.slow
@pytest.mark.parametrize("sampling", ["general", "fused"])
def test_the_micro_model_before_dram(sampling: str) -> None:
    of_shipped("micro", PROMPT, Policy(8, 4, 4, cache="dual", temperature=0.5), sampling, before_dram())


def drawn(seed: int) -> tuple[Network, Policy, list[int], str]:
    """A small network with random weights, a policy, a prompt and a sampling program."""
    rng = Random(seed)
    config = rng.choice([BASE, GROUPED, NARROW_HEADS, TINY])
    heads = rng.choice([1, 2])
    config = replace(
        config,
        n_layers=rng.choice([1, 2]),
        mlp_hidden_size=rng.randrange(30, 140),
        n_heads=config.n_heads,
        n_kv_heads=heads if config.n_heads % heads == 0 else config.n_heads,
        weight_tying=rng.random() < 0.3,
    )
    length, blocks = rng.choice([4, 8, 12]), rng.choice([1, 2])
    cache_ = rng.choice(["none", "prefix", "dual"])
    commit = rng.choice(["schedule", "schedule", "threshold", "factor"])
    steps = blocks * rng.randrange(1, length + 1)
    temperature = rng.choice([0.0, 0.4, 1.0])
    policy = Policy(
        length * blocks,
        length,
        steps,
        temperature=temperature,
        cache=cache_,
        commit=commit,
        threshold=0.5,
        remasking="random" if commit == "schedule" and rng.random() < 0.2 else "low_confidence",
        suppress_eos=rng.random() < 0.3,
        seed=rng.randrange(1000),
    )
    prompt = [rng.randrange(config.vocab_size) for _ in range(rng.randrange(1, 20))]
    prompt = [token for token in prompt if token != config.mask_token_id] or [config.eos_token_id]
    return network(config, seed), policy, prompt, rng.choice(["general", "four-phase", "single-pass", "fused"])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_random_networks_and_policies_agree_in_four_readings(seed: int) -> None:
    generated(*drawn(seed))


OTHER = {
    "wide": {"matrix": {"mlen": 64}, "vector": {"vlen": 16}, "formats": {"weights": "mxfp4", "activations": "mxfp8", "kv": "mxint4"}},
    "before DRAM": {"hbm": before_dram().hbm.model_dump(), "sequencer": {"queue_depth": 2}},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHER)
def test_random_networks_agree_on_other_machines(name: str) -> None:
    values = MACHINE.model_dump()
    for part, fields in OTHER[name].items():
        values[part] = fields if part == "hbm" else values[part] | fields
    machine = Machine.model_validate(values | {"name": "other"})
    for seed in range(100, 104):
        generated(*drawn(seed), machine)

"""Whole generations on the hardware in Verilator: the tokens, the positions and the cycles of all other readings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from random import Random

import pytest
from tests.cli.conftest import Command, unmask  # noqa: F401
from tests.compiler.cases import BASE, GROUPED, NARROW_HEADS, TINY, network

from unmask.compiler.check import check
from unmask.compiler.host import Simulation, cycles_of_steps, simulate
from unmask.compiler.lower import compile_step
from unmask.decoding.policy import Policy
from unmask.machine.config import Machine
from unmask.machine.memory import Dram
from unmask.models.family import Network
from unmask.rtl.backend import RtlMachine, require_instructions
from unmask.rtl.lockstep.build import harness

MACHINE = Machine.preset("rtl-tiny")
HBM2E = Dram.model_validate(
    {"device": "hbm2e", "devices": 1, "interleave_bytes": 256, "refresh": "bank", "latency": 60, "ports": 1, "beat_bytes": 32}
    | {"burst_beats": 16, "outstanding_reads": 4, "outstanding_writes": 3}
)
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
    "plain": (Policy(16, 8, 16), "general"),
    "prefix cache": (Policy(16, 8, 8, cache="prefix", temperature=0.7, seed=3), "single-pass"),
    "dual cache": (Policy(16, 8, 8, cache="dual", temperature=0.3, seed=4), "fused"),
    "threshold": (Policy(16, 8, 16, cache="dual", commit="threshold", threshold=0.4), "four-phase"),
    "Dream's scorer": (Policy(16, 16, 8, remasking="entropy", temperature=0.4, schedule="timesteps", seed=2), "general"),
    "padding of guidance": (Policy(8, 8, 4, cfg_scale=0.5), "general"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", POLICIES)
def test_the_micro_model_generates_what_it_should(name: str) -> None:
    from unmask.models.checkpoint import load_network
    from unmask.models.tokenizer import load_tokenizer

    policy, sampling = POLICIES[name]
    done = generated(load_network("micro"), policy, load_tokenizer("micro").encode(PROMPT), sampling)
    assert len(done.new_tokens()) == policy.gen_length


@pytest.mark.slow
def test_two_steps_of_the_shipped_model() -> None:
    """On a matrix SRAM that holds two of its tiles; minutes, besides the build."""
    from unmask.models.checkpoint import load_network
    from unmask.models.tokenizer import load_tokenizer

    machine = Machine.model_validate(MACHINE.model_dump() | {"name": "rtl-roomy", "sram": MACHINE.sram.model_dump() | {"matrix_kib": 64}})
    done = generated(load_network("sotu"), Policy(8, 8, 2), load_tokenizer("sotu").encode("My fellow"), "fused", machine)
    assert len(done.steps) == 2


@cache
def before_dram() -> Machine:
    return MACHINE.model_copy(update={"name": "rtl-tiny-hbm2e", "hbm": HBM2E})


@pytest.mark.slow
def test_before_dram_it_takes_the_cycles_of_the_model() -> None:
    generated(network(TINY), Policy(8, 4, 4), [5, 9, 2, 6, 5, 3, 8], "general", before_dram())


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
    "before DRAM": {"hbm": HBM2E.model_dump(), "sequencer": {"queue_depth": 2}},
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

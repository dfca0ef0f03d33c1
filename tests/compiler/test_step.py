"""A denoising step on the machine equals the reference in the machine's number formats, token for token."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from unmask import Machine, Policy, UnmaskError, generate, load_model
from unmask.compiler.check import in_formats
from unmask.compiler.lower import compile_step
from unmask.models.config import LladaConfig
from unmask.models.llada import Llada
from unmask.quant.sampler import MachineSampler

from .cases import (
    BASE,
    CASES,
    FLAT,
    NANO,
    ODD,
    SMALL,
    TILES,
    TINY,
    Case,
    Npu,
    Reference,
    Start,
    compiled,
    network,
    shrunk,
    starts,
    with_formats,
)

PAIRS = 9
"""Steps per case: prompt, canvas, block, commits and seed are new in each."""


def hold(model: Llada, policy: Policy, machine: Machine, npu: Npu, pairs: list[Start]) -> set[int]:
    """Compare steps; the tokens that they committed."""
    reference, mask = Reference(model, policy, machine), model.config.mask_token_id
    committed: set[int] = set()
    for start in pairs:
        after = npu.step(start)
        np.testing.assert_array_equal(after, reference.step(start))
        changed = np.flatnonzero(after != start.canvas)
        block = slice(start.block_start, start.block_start + policy.block_length)
        assert set(changed) <= set(block.start + np.flatnonzero(start.canvas[block] == mask))
        assert len(changed) == min(start.commits, (start.canvas[block] == mask).sum())
        committed |= set(after[changed].tolist())
    return committed


def pairs_of(case: Case) -> list[Start]:
    return list(starts(case.model, case.policy, case.prompt_length, PAIRS, seed=CASES.index(case)))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_step_equals_the_reference(case):
    committed = hold(case.model, case.policy, case.machine, Npu(compiled(case), case.machine), pairs_of(case))
    assert len(committed) > 1


def test_there_are_at_least_200_prompts_and_seeds():
    pairs = {(case.prompt_length, *start.canvas[: case.prompt_length], start.seed) for case in CASES for start in pairs_of(case)}
    assert len(pairs) == PAIRS * len(CASES) >= 200


def test_the_cases_tile_every_kernel():
    """Row tiles, weight tiles and vocabulary chunks: one, several, and several with a remainder."""
    row_tiles, weights, vocabulary = set(), set(), set()
    for case in CASES:
        program = compiled(case)
        [tile] = program.about["row_tiles"].values()
        row_tiles.add(-(-program.about["positions"] // tile["rows"]))
        for seen, name, size in ((weights, "M_MM", "n"), (vocabulary, "V_RED_MAX_IDX", "cols")):
            phase = "lm-head" if name == "M_MM" else "sampling-1-confidence"
            sizes = {op.operands[size] for op, where in zip(program.ops, program.phases, strict=True) if (op.name, where) == (name, phase)}
            seen.add((len(sizes), max(sizes) < case.config.vocab_size))
    assert {1, 2} < row_tiles
    assert weights >= {(1, False), (2, True)}
    assert vocabulary >= {(1, False), (2, True)}


SIZES = st.integers(1, 100)


@st.composite
def networks(draw) -> LladaConfig:
    head_dim, kv_heads, group = draw(st.sampled_from([2, 16, 32, 48, 64])), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    vocabulary = draw(st.integers(3, 300))
    mask, eos = draw(st.permutations(range(vocabulary)))[:2] if vocabulary < 20 else (draw(st.integers(0, vocabulary - 1)), 0)
    return LladaConfig(
        d_model=head_dim * kv_heads * group,
        n_heads=kv_heads * group,
        n_kv_heads=kv_heads,
        n_layers=draw(st.integers(1, 2)),
        mlp_hidden_size=draw(SIZES),
        vocab_size=vocabulary,
        embedding_size=vocabulary + draw(st.integers(0, 9)),
        max_sequence_length=80,
        mask_token_id=mask,
        eos_token_id=eos,
        weight_tying=draw(st.booleans()),
    )


FORMATS = st.sampled_from(["mxint8", "mxint4", "mxfp8", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp4"])


@settings(max_examples=24, deadline=None, derandomize=True, database=None)
@given(networks(), st.data())
def test_a_step_of_any_network_equals_the_reference(config, data):
    blocks, length = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 12))
    temperature = data.draw(st.sampled_from([0.0, 0.0, 0.2, 1.0, 5.0]))
    policy = Policy(
        blocks * length,
        length,
        blocks * length,
        temperature=temperature,
        remasking=data.draw(st.sampled_from(["low_confidence", "random"])),
        suppress_eos=data.draw(st.booleans()),
    )
    machine = with_formats(data.draw(st.sampled_from([SMALL, NANO, TILES, FLAT, ODD])), *(data.draw(FORMATS) for _ in range(3)))
    if config.head_dim < 2 * machine.vector.granule:
        machine = shrunk(machine, vector={"granule": config.head_dim // 2})
    prompt_length = data.draw(st.integers(1, 40))
    try:
        program = compile_step(network(config), policy, machine, prompt_length)
    except UnmaskError as error:
        if "cannot hold" not in str(error):
            raise
        assume(False)
    pairs = list(starts(network(config), policy, prompt_length, 3, seed=data.draw(st.integers(0, 1000))))
    hold(network(config), policy, machine, Npu(program, machine), pairs)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_only_temperature_makes_the_seed_and_the_step_matter(temperature):
    policy = Policy(16, 16, 16, temperature=temperature)
    npu = Npu(compile_step(network(BASE), policy, SMALL, 5), SMALL)
    [start] = starts(network(BASE), policy, 5, 1, seed=1)
    results = {
        npu.step(Start(start.canvas, start.block_start, 16, seed, step)).tobytes() for seed, step in [(0, 0), (1, 0), (0, 1), (0, 0)]
    }
    assert len(results) == (3 if temperature else 1)


@pytest.mark.parametrize("name", ["0-", "2-", "22-"])
def test_a_step_depends_on_nothing_that_an_earlier_step_left(name):
    [case] = [case for case in CASES if case.name.startswith(name)]
    first, second = pairs_of(case)[1:3]
    used = Npu(compiled(case), case.machine)
    used.step(first)
    np.testing.assert_array_equal(used.step(second), Npu(compiled(case), case.machine).step(second))


@pytest.mark.parametrize("policy", [Policy(12, 6, 6), Policy(12, 4, 9, temperature=0.8), Policy(10, 5, 4, remasking="random")])
def test_the_reference_step_is_a_step_of_generate(policy):
    seed, prompt = 11, [3, 1, 4, 1, 5]
    canvas = np.array(prompt + [TINY.mask_token_id] * policy.gen_length)
    reference = Reference(network(TINY), policy, SMALL)
    for record in generate(in_formats(network(TINY), SMALL.formats), [prompt], policy, sampler=MachineSampler(policy, seed=seed)).steps:
        canvas = reference.step(Start(canvas, record.start, len(record.positions()), seed, record.step))
        np.testing.assert_array_equal(canvas, record.canvas[0].numpy())


@pytest.mark.parametrize(
    ("machine", "policy"),
    [(SMALL, Policy(32, 16, 16)), (NANO, Policy(8, 8, 8, temperature=0.5))],
    ids=["small-greedy", "nano-noise"],
)
def test_a_step_of_the_shipped_model_equals_the_reference(machine, policy):
    model = load_model("sotu")
    npu = Npu(compile_step(model, policy, machine, 9), machine)
    committed = hold(model, policy, machine, npu, list(starts(model, policy, 9, 8, seed=3)))
    assert len(committed) > 1


@pytest.mark.slow
@pytest.mark.parametrize("policy", [Policy(32, 32, 32), Policy(32, 16, 16, temperature=0.7, remasking="random")], ids=["greedy", "noise"])
def test_two_hundred_steps_of_the_shipped_model_equal_the_reference(policy):
    model = load_model("sotu")
    npu = Npu(compile_step(model, policy, SMALL, 12), SMALL)
    hold(model, policy, SMALL, npu, list(starts(model, policy, 12, 200, seed=4)))


def test_a_step_with_nan_logits_equals_the_reference():
    model = Llada(TINY).eval()
    model.load_state_dict(network(TINY).state_dict())
    with torch.no_grad():
        model.model.transformer.ff_out.weight[5] *= 1e30
    policy = Policy(8, 8, 8)
    npu = Npu(compile_step(model, policy, SMALL, 3), SMALL)
    hold(model, policy, SMALL, npu, list(starts(model, policy, 3, 12, seed=0)))


def test_a_block_may_have_many_row_tiles():
    policy = Policy(50, 50, 50)
    program = compile_step(network(TINY), policy, TILES, 3)
    hold(network(TINY), policy, TILES, Npu(program, TILES), list(starts(network(TINY), policy, 3, 2, seed=0)))

"""Networks with a mixture of experts on the NPU equal the reference, race nowhere, and take a time that no value decides."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unmask import Policy, check, simulate
from unmask.compiler.lower import compile_step
from unmask.compiler.routing import even_routing
from unmask.compiler.step import PARAMETERS, PARAMETERS_AT
from unmask.isa.program import Program
from unmask.machine.cycle import time_program
from unmask.machine.hazards import find_races
from unmask.models.checkpoint import load_network, save_model
from unmask.models.family import Network
from unmask.models.llada_moe import LladaMoe, LladaMoeConfig
from unmask.quant.checkpoint import quantize_checkpoint
from unmask.quant.layout import CheckpointFormats

from .cases import FLAT, NANO, ODD, SMALL, TILES, shrunk
from .test_by_shape import same

PAIR = LladaMoeConfig(
    vocab_size=75,
    hidden_size=48,
    expert_intermediate_size=40,
    num_experts=8,
    num_experts_per_tok=2,
    num_hidden_layers=2,
    num_attention_heads=3,
    num_key_value_heads=1,
    max_position_embeddings=96,
    mask_token_id=74,
    eos_token_id=3,
)
SINGLE = replace(PAIR, num_experts=5, num_experts_per_tok=1, norm_topk_prob=True, num_hidden_layers=1, expert_intermediate_size=70)
MANY = replace(PAIR, num_experts=33, num_experts_per_tok=4, norm_topk_prob=True, num_attention_heads=1, hidden_size=32)
ALL = replace(PAIR, num_experts=3, num_experts_per_tok=3, num_key_value_heads=3, tie_word_embeddings=True)
CONFIGS = {"pair": PAIR, "single": SINGLE, "many": MANY, "all": ALL}
MACHINES = {"small": SMALL, "nano": NANO, "tiles": TILES, "flat": FLAT, "odd": ODD}
FORMATS = ("mxint8", "mxint4", "mxfp8", "mxfp4", "mxfp6_e2m3")


@cache
def network(name: str, seed: int = 0) -> Network:
    generator = torch.Generator().manual_seed(seed)
    model = LladaMoe(CONFIGS[name]).eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            parameter.normal_(std=0.25, generator=generator)
            if "norm" in parameter_name:
                parameter += 1
    return model


def prompt(length: int, row: int = 0) -> list[int]:
    return [(7 * index + 5 * row + 1) % 74 for index in range(length)]


@st.composite
def runs(draw):
    """A network, a policy, a machine in some formats, and a batch of prompts."""
    model = network(draw(st.sampled_from(sorted(CONFIGS))), draw(st.integers(0, 1)))
    block, blocks = draw(st.integers(2, 5)), draw(st.integers(1, 2))
    policy = Policy(
        gen_length=block * blocks,
        block_length=block,
        steps=blocks * 2,
        cache=draw(st.sampled_from(["none", "prefix", "dual"])),
        temperature=draw(st.sampled_from([0.0, 0.8])),
        cfg_scale=draw(st.sampled_from([0.0, 0.0, 1.5])),
    )
    formats = {name: draw(st.sampled_from(FORMATS)) for name in ("weights", "activations", "kv")}
    machine = shrunk(MACHINES[draw(st.sampled_from(sorted(MACHINES)))], formats=formats)
    length = draw(st.integers(1, 24))
    return model, policy, machine, [prompt(length, row) for row in range(draw(st.sampled_from([1, 1, 2, 3])))]


@settings(max_examples=12, suppress_health_check=list(HealthCheck))
@given(run=runs())
def test_a_generation_equals_the_reference(run):
    model, policy, machine, prompts = run
    done = simulate(compile_step(model, policy, machine, len(prompts[0]), len(prompts)), prompts)
    found = check(done, model)
    assert (found.identical, found.first_difference) == (True, None)


def words(program: Program, name: str, policy: Policy, prompt_length: int, batch: int) -> dict[int, int]:
    """What an entry's S_LD find, but for its lists of tiles."""
    first = prompt_length + policy.gen_length - int(name.split("-")[1])
    values = {"first": first, "block_start": max(prompt_length, first), "head_row": max(prompt_length - first, 0), "seed": 1, "step": 2}
    assert tuple(values) == PARAMETERS
    return {PARAMETERS_AT + index: value for index, value in enumerate((*values.values(), *[1] * batch))}


@settings(max_examples=6, suppress_health_check=list(HealthCheck))
@given(run=runs(), data=st.data())
def test_no_entry_races_whatever_the_experts(run, data):
    model, policy, machine, prompts = run
    program = compile_step(model, policy, machine, len(prompts[0]), len(prompts))
    name = data.draw(st.sampled_from(sorted(program.entries)))
    listed = even_routing(program, name)
    experts = st.integers(0, model.config.num_experts - 1)
    routed = {address: data.draw(experts) if index % 2 == 0 else word for index, (address, word) in enumerate(sorted(listed.items()))}
    given_words = words(program, name, policy, len(prompts[0]), len(prompts)) | routed
    assert find_races(program.entry(name), machine, given_words) == []


def test_both_ways_of_going_over_the_experts_are_taken():
    policy = Policy(8, 4, 4, cache="dual")
    program = compile_step(network("pair"), policy, NANO, 21)
    assert set(program.about["expert_lists"]) == {"rows-29"}
    used = {name: [op.name for op in program.entry(name).ops] for name in program.entries}
    assert "V_EXPERT_TILES" in used["rows-29"]
    assert "V_EXPERT_TILES" not in used["rows-4"]
    assert all({"V_TOPK_ROW", "V_GATHER_ROWS", "V_SCATTER_ADD"} <= set(names) for names in used.values())


def test_an_even_routing_gives_every_expert_as_many_tiles():
    program = compile_step(network("pair"), Policy(8, 4, 4), NANO, 21)
    [(address, tiles)] = program.about["expert_lists"]["rows-29"]
    found = even_routing(program, "rows-29")
    assert sorted(found) == list(range(address, address + 2 * tiles))
    counts = [sum(found[address + 2 * tile] == expert for tile in range(tiles)) for expert in range(8)]
    assert sum(counts) == tiles
    assert max(counts) - min(counts) <= 1


def test_time_does_not_depend_on_which_experts_are_taken():
    policy = Policy(8, 4, 4)
    program = compile_step(network("pair"), policy, NANO, 21)
    given_words = words(program, "rows-29", policy, 21, 1)
    even = even_routing(program, "rows-29")
    times = {
        time_program(program.entry("rows-29"), NANO, parameters=given_words | even | dict.fromkeys(list(even)[::2], word)).cycles
        for word in (0, 3, 7)
    }
    assert len(times) == 1


def test_tokens_do_not_depend_on_the_machines_shape_nor_on_the_batch():
    model, policy = network("pair"), Policy(12, 6, 6, cache="dual", temperature=0.6)
    prompts = [prompt(9, row) for row in range(3)]
    whole = [simulate(compile_step(model, policy, machine, 9, 3), prompts).ids for machine in (SMALL, NANO, TILES)]
    assert all((ids == whole[0]).all() for ids in whole)
    alone = simulate(compile_step(model, policy, SMALL, 9), prompts[1])
    assert (alone.ids[0] == whole[0][1]).all()


def test_a_padded_batch_equals_the_reference():
    prompts, mask = [[0, 0, *prompt(4)], prompt(6)], [[0, 0, 1, 1, 1, 1], [1] * 6]
    model, policy = network("many"), Policy(8, 4, 4, cache="dual")
    done = simulate(compile_step(model, policy, SMALL, 6, 2, padded=True), prompts, attention_mask=mask)
    assert check(done, model).identical


@pytest.mark.parametrize("smoothing", ["tensor", "baos"])
def test_a_smoothed_cache_equals_the_reference(smoothing):
    machine = SMALL.with_formats(smoothing=smoothing, kv="mxint4")
    model, policy = network("pair"), Policy(8, 4, 4, cache="dual")
    assert check(simulate(compile_step(model, policy, machine, 9), prompt(9)), model).identical


@pytest.mark.parametrize("program", ["four-phase", "single-pass", "fused"])
def test_every_sampling_program_equals_its_reference(program):
    model, policy = network("pair"), Policy(8, 4, 4, cache="dual")
    assert check(simulate(compile_step(model, policy, SMALL, 9, sampling=program), prompt(9)), model).identical


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_without_weights_the_program_is_bit_identical(name):
    arguments = (Policy(8, 4, 4, cache="dual"), NANO, 5, 2)
    same(compile_step(network(name), *arguments), compile_step(CONFIGS[name].architecture, *arguments))


def test_rows_whose_scores_are_no_numbers_take_no_more_experts_than_others():
    model = network("pair", 9)
    with torch.no_grad():
        model.model.embed_tokens.weight[5] = float("inf")
    policy = Policy(8, 4, 4)
    done = simulate(compile_step(model, policy, NANO, 9), [5] * 4 + prompt(5))
    assert len(done.steps) == 4


def test_the_router_is_in_the_wider_of_the_formats_and_its_values_are_those_of_a_machine_checkpoint(tmp_path):
    model, machine = network("pair"), shrunk(NANO, formats={"weights": "mxfp4", "kv": "mxint8"})
    router = next(op for op in compile_step(model, Policy(8, 4, 4), machine, 9).ops if op.name == "M_MM" and op.operands["n"] == 8)
    assert router.operands["format"] == 1
    save_model(model, tmp_path / "source")
    quantize_checkpoint(tmp_path / "source", tmp_path / "packed", CheckpointFormats("mxfp4", "mxint8", "mxint8"))
    packed = load_network(tmp_path / "packed")
    name = "model.layers.0.mlp.{}.weight"
    assert torch.equal(packed.state_dict()[name.format("gate")], model.state_dict()[name.format("gate")].bfloat16().float())
    assert not torch.equal(packed.state_dict()[name.format("experts.7.up_proj")], model.state_dict()[name.format("experts.7.up_proj")])
    policy = Policy(8, 4, 4)
    assert check(simulate(compile_step(packed, policy, machine, 9), prompt(9)), packed).identical

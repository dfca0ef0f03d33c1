"""Whole generations under every policy, cache, commit and format that is offered equal the reference, step by step."""

from dataclasses import asdict
from functools import cache

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unmask import Policy, UnmaskError, check, simulate
from unmask.compiler.guide import NpuGuide, compile_guide
from unmask.compiler.lower import compile_step
from unmask.compiler.step import PARAMETERS, PARAMETERS_AT
from unmask.decoding.policy import DREAM_SCORERS
from unmask.machine.config import Machine
from unmask.machine.hazards import find_races
from unmask.models.dream import Dream, DreamConfig
from unmask.models.family import Network
from unmask.models.guide import GuideConfig, GuideNetwork

from .cases import BASE, GROUPED, NANO, ODD, SMALL, TILES, TINY, network, shrunk

DREAM = DreamConfig(
    vocab_size=75,
    hidden_size=48,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=3,
    num_key_value_heads=1,
    max_position_embeddings=96,
    mask_token_id=74,
    eos_token_id=3,
)
FORMATS = ("mxint8", "mxint4", "mxfp8", "mxfp4", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp8_e5m2")
MACHINES = {"small": SMALL, "nano": NANO, "odd": ODD}


def _randomized(model: Network, seed: int) -> Network:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.25, generator=generator)
            if "norm" in name or "ln_f" in name:
                parameter += 1
    return model.eval()


@cache
def dream(seed: int) -> Network:
    return _randomized(Dream(DREAM), seed)


@cache
def guide(config: object, seed: int = 5) -> GuideNetwork:
    shape = config.architecture
    values = {**asdict(TINY), "vocab_size": shape.vocab_size, "embedding_size": shape.vocab_size, "n_layers": 2, "weight_tying": True}
    values |= {"mask_token_id": shape.mask_token_id, "eos_token_id": shape.eos_token_id}
    model = _randomized(GuideNetwork(GuideConfig(**values)), seed)
    assert isinstance(model, GuideNetwork)
    return model


@st.composite
def runs(draw):
    """A network, a policy, a machine in some formats, a batch of prompts, and perhaps a template."""
    model = draw(st.sampled_from([network(TINY), network(GROUPED, 2), dream(0), dream(1)]))
    shape = model.config.architecture
    block = draw(st.integers(2, 5))
    blocks = draw(st.integers(1, 3))
    steps = blocks * draw(st.integers(2, block + 1))
    cache = draw(st.sampled_from(["none", "prefix", "dual", "freecache", "prompt"]))
    opening = shape.shifted_logits and cache in ("prefix", "dual", "prompt")
    commit = draw(st.sampled_from(["schedule", "threshold", "factor"]))
    scorers = ["low_confidence", "maskgit_plus", "topk_margin"]
    if commit == "schedule":
        scorers += ["random", "entropy"]
    remasking = draw(st.sampled_from(scorers))
    schedule = "timesteps" if opening else draw(st.sampled_from(["uniform", "timesteps", "shared_timesteps"]))
    if commit == "schedule" and schedule == "timesteps" and not opening and draw(st.booleans()):
        remasking = "origin"
    options = {}
    if remasking in DREAM_SCORERS:
        options["top_p"] = draw(st.none() | st.floats(0.3, 1))
        options["top_k"] = draw(st.none() | st.integers(1, 20))
        if commit == "schedule" and remasking != "origin":
            options["alg_temp"] = draw(st.sampled_from([0.0, 0.5]))
    else:
        options["defer_eos"] = draw(st.booleans())
    policy = Policy(
        gen_length=block * blocks,
        block_length=block,
        steps=steps,
        temperature=draw(st.sampled_from([0.0, 0.0, 0.8])),
        cfg_scale=draw(st.sampled_from([0.0, 0.0, 1.5])),
        remasking=remasking,
        schedule=schedule,
        commit=commit,
        cache=cache,
        threshold=draw(st.sampled_from([0.05, 0.3, 1.0])),
        factor=draw(st.sampled_from([0.5, 1.5, 4.0])),
        suppress_eos=draw(st.booleans()),
        seed=draw(st.integers(0, 2**32 - 1)),
        **options,
    )
    formats = {name: draw(st.sampled_from(FORMATS)) for name in ("weights", "activations", "kv")}
    formats["softmax_sums"] = draw(st.sampled_from(["lanes", "array"]))
    formats["logits"] = draw(st.sampled_from(["bf16", "bf16", *FORMATS]))
    machine = shrunk(MACHINES[draw(st.sampled_from(list(MACHINES)))], formats=formats)
    batch = draw(st.sampled_from([1, 1, 2, 3]))
    tokens = st.integers(0, shape.vocab_size - 1).filter(lambda token: token != shape.mask_token_id)
    length = draw(st.integers(1, 6))
    prompts = draw(st.lists(st.lists(tokens, min_size=length, max_size=length), min_size=batch, max_size=batch))
    template = None
    if draw(st.booleans()):
        row = st.lists(st.just(shape.mask_token_id) | tokens, min_size=policy.gen_length, max_size=policy.gen_length)
        template = draw(st.lists(row.filter(lambda ids: shape.mask_token_id in ids), min_size=batch, max_size=batch))
    return model, policy, machine, prompts, template


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(run=runs())
def test_a_generation_equals_the_reference(run):
    model, policy, machine, prompts, template = run
    program = compile_step(model, policy, machine, len(prompts[0]), len(prompts))
    done = simulate(program, prompts, template=template)
    found = check(done, model)
    assert (found.identical, found.first_difference) == (True, None)
    assert set(done.runs) <= set(program.entries)
    given_tokens = done.start != model.config.mask_token_id
    assert (done.ids[given_tokens] == done.start[given_tokens]).all()
    if policy.commit != "schedule":
        assert model.config.mask_token_id not in done.ids


@settings(max_examples=12, suppress_health_check=list(HealthCheck))
@given(run=runs(), words=st.data())
def test_no_entry_races(run, words):
    model, policy, machine, prompts, _ = run
    program = compile_step(model, policy, machine, len(prompts[0]), len(prompts))
    name = words.draw(st.sampled_from(sorted(program.entries)))
    rows, start = int(name.split("-")[1]), len(prompts[0])
    first = len(prompts[0]) + policy.gen_length - rows
    values = {"first": first, "block_start": max(start, first), "head_row": max(start - first, 0), "seed": 1, "step": 2}
    assert tuple(values) == PARAMETERS
    commits = [1] * len(prompts)
    given_words = {PARAMETERS_AT + index: value for index, value in enumerate((*values.values(), *commits))}
    assert find_races(program.entry(name), machine, given_words) == []


@settings(max_examples=10, suppress_health_check=list(HealthCheck))
@given(
    accept_top_k=st.sampled_from([1, 8, 40]),
    accept_ratio=st.sampled_from([0.0, 0.5]),
    cache=st.sampled_from(["none", "prompt", "dual"]),
    machine=st.sampled_from([SMALL, NANO]),
    shifted=st.booleans(),
    length=st.integers(4, 20),
    seed=st.integers(0, 100),
)
def test_guided_diffusion_equals_the_reference(accept_top_k, accept_ratio, cache, machine, shifted, length, seed):
    model = dream(seed % 3) if shifted else network(GROUPED, seed % 3)
    vocabulary = model.config.vocab_size
    policy = Policy(length, length, length, commit="guided", cache=cache, accept_top_k=accept_top_k, accept_ratio=accept_ratio)
    prompt = torch.randint(0, vocabulary - 1, (5 + seed % 30,), generator=torch.Generator().manual_seed(seed)).tolist()
    prompt = [token for token in prompt if token != model.config.mask_token_id]
    judge = guide(model.config)
    reader = NpuGuide(compile_guide(judge, machine, len(prompt) + length))
    done = simulate(compile_step(model, policy, machine, len(prompt)), prompt, guide=reader)
    assert check(done, model, guide=judge).identical
    assert model.config.mask_token_id not in done.ids
    assert done.runs["guide"] >= len(done.steps)
    assert done.cycles == sum(done.timings[entry].cycles * count for entry, count in done.runs.items())


def test_a_guides_program_does_not_race():
    program = compile_guide(guide(GROUPED), ODD, 40)
    for first in (0, 17, 40):
        assert find_races(program, ODD, {0: first}) == []


PADDED = [[0, 0, 5, 9, 2, 6], [0, 5, 9, 2, 6, 5], [5, 9, 2, 6, 5, 3]]
MASK = [[0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]]


@pytest.mark.parametrize("machine", [SMALL, TILES], ids=["small", "tiles"])
@pytest.mark.parametrize("options", [{}, {"cache": "dual"}, {"cache": "prefix", "commit": "threshold"}, {"cfg_scale": 0.5}], ids=str)
def test_a_padded_batch_equals_the_reference(options, machine):
    policy = Policy(8, 4, 4, **options)
    model = network(BASE)
    done = simulate(compile_step(model, policy, machine, 6, 3, padded=True), PADDED, attention_mask=MASK)
    assert check(done, model).identical
    disregarded = simulate(compile_step(model, policy, machine, 6, 3), PADDED)
    assert check(disregarded, model).identical
    assert not (disregarded.ids == done.ids).all()


def test_faithful_padding_is_disregarded():
    model, policy = network(BASE), Policy(8, 4, 4, honour_padding=False)
    program = compile_step(model, policy, SMALL, 6, 3)
    assert (simulate(program, PADDED, attention_mask=MASK).ids == simulate(program, PADDED).ids).all()


def test_tokens_do_not_depend_on_the_machines_shape_nor_on_the_batch():
    model, policy = network(BASE), Policy(12, 6, 6, cache="dual", temperature=0.6, cfg_scale=1.0)
    prompts = [[5, 9, 2], [4, 4, 8], [1, 7, 7]]
    whole = [simulate(compile_step(model, policy, machine, 3, 3), prompts).ids for machine in (SMALL, NANO, TILES)]
    assert all((ids == whole[0]).all() for ids in whole)
    alone = simulate(compile_step(model, policy, SMALL, 3), prompts[1])
    assert (alone.ids[0] == whole[0][1]).all()


def test_a_cached_generation_feeds_fewer_rows_and_takes_fewer_cycles():
    model = network(BASE)
    cycles = {}
    for name in ("none", "prefix", "dual"):
        policy = Policy(32, 8, 32, cache=name)
        cycles[name] = simulate(compile_step(model, policy, SMALL, 20), list(range(20))).cycles
    assert cycles["none"] > cycles["prefix"] > cycles["dual"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: simulate(compile_step(network(BASE), Policy(4, 4, 4), SMALL, 2, 2), [1, 2]), "the prompt has 1 rows; .* compiled for 2"),
        (lambda: simulate(compile_step(network(BASE), Policy(4, 4, 4), SMALL, 2), [1, 2], template=[1, 2, 3, 4]), "template has no gap"),
        (lambda: simulate(compile_step(network(BASE), Policy(4, 4, 4), SMALL, 2), [1, 2], template=[330, 2]), "template needs 4 tokens"),
        (lambda: simulate(compile_step(network(BASE), Policy(4, 4, 4), SMALL, 2), [1, 2], attention_mask=[0, 1]), "is padded; the program"),
        (
            lambda: simulate(compile_step(network(BASE), Policy(4, 4, 4, commit="guided"), SMALL, 2), [1, 2]),
            "commit 'guided' needs a guide",
        ),
        (
            lambda: simulate(compile_step(network(BASE), Policy(4, 4, 4, commit="guided"), SMALL, 0), [], template=[330, 330, 1, 2]),
            "commit 'guided' needs a token before the first gap",
        ),
        (lambda: compile_step(dream(0), Policy(4, 4, 4), SMALL, 2, 2, padded=True), "padding moves the positions"),
        (lambda: compile_step(dream(0), Policy(4, 4, 4, cache="dual"), SMALL, 2), "expected schedule 'timesteps'"),
        (lambda: compile_step(guide(GROUPED), Policy(4, 4, 4), SMALL, 2), "expected a diffusion model"),
        (lambda: compile_guide(guide(GROUPED), SMALL, 90), "90 positions need a guide's context of 105; it has 96"),
        (lambda: compile_step(network(BASE), Policy(4, 4, 4), Machine.preset("small"), 2).entry("nope"), "no entry 'nope'"),
    ],
)
def test_mistakes_are_one_line(call, message):
    with pytest.raises(UnmaskError, match=message) as error:
        call()
    assert "\n" not in str(error.value)

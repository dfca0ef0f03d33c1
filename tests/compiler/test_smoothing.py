"""Smoothed KV caches: the NPU finds the reference's scales and commits its tokens, whatever the cache, the network and the machine."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
from tests.models.small import DREAM_CONFIG, small_dream

from unmask import Policy, UnmaskError, check, compile, simulate
from unmask.compiler.check import in_formats
from unmask.compiler.step import PARAMETERS_AT
from unmask.machine.functional import FunctionalMachine
from unmask.machine.hazards import find_races
from unmask.numerics import bf16
from unmask.quant.smoothing.registry import smoothing_named
from unmask.quant.smoothing.static import KvScales, calibrate

from .cases import BASE, FLAT, GROUPED, LINE, NANO, NARROW_HEADS, ODD, ODD_HEADS, ONE_HEAD, SMALL, TILES, TINY, WIDE, network, shrunk

METHODS = ("tensor", "static", "baos", "baos-bf16")
ONLINE = ("tensor", "baos", "baos-bf16")
CACHES = ("none", "prefix", "dual")
HARDWARE = (
    (BASE, TILES),
    (NARROW_HEADS, ODD),
    (GROUPED, FLAT),
    (TINY, SMALL),
    (WIDE, FLAT),
    (ODD_HEADS, NANO),
    (ONE_HEAD, TILES),
    (GROUPED, ODD),
    (BASE, NANO),
    (NARROW_HEADS, TILES),
    (WIDE, ODD),
)


def smoothing(machine, method, kv="mxint4"):
    return shrunk(machine, formats={"kv": kv, "smoothing": method})


@cache
def calibrated(config) -> KvScales:
    ids = torch.randint(0, config.vocab_size, (3, 24), generator=torch.Generator().manual_seed(4))
    return calibrate(network(config), ids)


def prompt(length, batch=1, seed=0):
    """Rows of tokens that are no mask in any of the networks."""
    return np.random.default_rng(seed).integers(14, 40, (batch, length)).tolist()


def same(model, policy, machine, rows, scales=None, **options) -> bool:
    """Whether the NPU commits what PyTorch does; its program has no races."""
    program = compile(model, policy, machine, len(rows[0]), len(rows), kv_scales=scales, **options)
    for name in program.entries:
        fed = int(name.split("-")[1])
        start = len(rows[0]) + policy.gen_length - fed
        words = [start, len(rows[0]), 0, 1, 2, *[1] * len(rows)]
        assert find_races(program.entry(name), machine, {PARAMETERS_AT + index: word for index, word in enumerate(words)}) == []
    return check(simulate(program, rows), model, kv_scales=scales).identical


@pytest.mark.parametrize(
    ("method", "cache_name", "kv", "number"),
    [(*combination, number) for number, combination in enumerate(product(METHODS, CACHES, ("mxint4", "mxint8")))],
)
def test_tokens_are_the_references(method, cache_name, kv, number):
    config, machine = HARDWARE[number % len(HARDWARE)]
    policy = Policy(8, 4, 4, cache=cache_name, temperature=0.8 * (number % 2), seed=number)
    assert same(network(config), policy, smoothing(machine, method, kv), prompt(3 + number, seed=number), calibrated(config))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("config", "machine", "policy"),
    [
        (GROUPED, SMALL, Policy(6, 3, 2, cache="dual")),
        (TINY, FLAT, Policy(6, 6, 2)),
        (BASE, NANO, Policy(6, 3, 2, cache="prefix", cfg_scale=1.5)),
    ],
    ids=["whole sequences in a tile", "parts of one in a tile", "guidance"],
)
def test_sequences_have_scales_of_their_own(method, config, machine, policy):
    assert same(network(config), policy, smoothing(machine, method), prompt(5, batch=2), calibrated(config))


@pytest.mark.parametrize("method", ["baos", "static"])
def test_padding_has_a_part_in_the_scales_of_both(method):
    model, machine, rows = network(BASE), smoothing(NANO, method), prompt(6, batch=2)
    program = compile(model, Policy(6, 3, 2, cache="dual"), machine, 6, 2, padded=True, kv_scales=calibrated(BASE))
    done = simulate(program, rows, attention_mask=[[0, 0, 1, 1, 1, 1], [1] * 6])
    assert check(done, model, kv_scales=calibrated(BASE)).identical


@pytest.mark.parametrize("method", METHODS)
def test_rows_of_one_position_and_a_frozen_prompt(method):
    assert same(network(TINY), Policy(4, 2, 2), smoothing(LINE, method), prompt(3), calibrated(TINY))
    assert same(network(BASE), Policy(8, 4, 4, cache="freecache"), smoothing(NANO, method), prompt(6), calibrated(BASE))


@pytest.mark.parametrize("cache_name", CACHES)
def test_biases_and_shifted_logits(cache_name):
    model = small_dream(replace(DREAM_CONFIG, max_position_embeddings=64))
    policy = Policy(8, 4, 4, cache=cache_name, remasking="maskgit_plus", schedule="timesteps")
    assert same(model, policy, smoothing(shrunk(NANO, vector={"granule": 2}), "baos"), prompt(6), None)


@pytest.mark.parametrize("method", ONLINE)
def test_the_scales_in_memory_are_the_references(method):
    model, machine, policy, rows = network(GROUPED), smoothing(ODD, method), Policy(8, 4, 8, cache="dual"), prompt(9, batch=2)
    program = compile(model, policy, machine, 9, 2)
    canvas = np.concatenate((rows, np.full((2, 8), model.config.mask_token_id)), axis=1)
    npu = FunctionalMachine(program, machine)
    npu.write("canvas", canvas.astype("<i4"))
    npu.write("parameters", np.array([0, 9, 9, 0, 0, 1, 1], "<u4"))
    npu.run("rows-17")
    found = bf16.from_bits(npu.read("kv_scales", "<u2")).reshape(model.config.n_layers, 2, 4, -1)

    reference, layers = smoothing_named(method), []

    def run(index, block, x, cos, sin, bias, arithmetic):
        q, k, v = block.project(x, cos, sin, arithmetic)
        scales = reference.scales(index, k, v)
        layers.append(scales)
        smooth = [arithmetic.scaled(part, by.reciprocal()) for part, by in ((k, scales.keys), (v, scales.values))]
        group = q.shape[1] // k.shape[1]
        q = arithmetic.scaled(q, scales.keys.repeat_interleave(group, dim=1))

        class Restoring:
            def __getattr__(self, name):
                return getattr(arithmetic, name)

            def attention(self, *operands):
                return arithmetic.scaled(arithmetic.attention(*operands), scales.values.repeat_interleave(group, dim=1))

        return block.attend(x, q, *smooth, bias, Restoring())

    with torch.no_grad():
        in_formats(model, machine.formats).hidden(torch.from_numpy(canvas), layers=run)
    for layer, scales in enumerate(layers):
        for place, part in ((0, scales.keys), (2, scales.values)):
            assert np.array_equal(found[layer, :, place], part.flatten(1).numpy())
            assert np.array_equal(found[layer, :, place + 1], part.reciprocal().flatten(1).bfloat16().float().numpy())


def test_smoothing_takes_time_of_its_own():
    policy, rows = Policy(8, 4, 8, cache="dual"), prompt(9)
    runs = {method: simulate(compile(network(BASE), policy, smoothing(NANO, method), 9), rows) for method in ("none", "baos")}
    assert "smoothing" not in runs["none"].cycles_by_phase
    assert 0 < runs["baos"].cycles_by_phase["smoothing"] <= runs["baos"].cycles - 0.9 * runs["none"].cycles


def test_static_smoothing_needs_scales_of_this_network():
    machine, policy = smoothing(NANO, "static"), Policy(4, 4, 4)
    with pytest.raises(UnmaskError, match="needs scales"):
        compile(network(BASE), policy, machine, 3)
    with pytest.raises(UnmaskError, match=r"tensor keys has shape \[3, 2, 16\]; expected \[2, 1, 32\]"):
        compile(network(BASE), policy, machine, 3, kv_scales=calibrated(GROUPED))

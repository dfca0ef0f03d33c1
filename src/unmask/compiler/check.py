"""Holds a generation on the machine against the PyTorch reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import TypeVar

import torch

from unmask.compiler.host import Simulation, Step
from unmask.decoding.compose import cache_of, opens_blocks, sampler_of
from unmask.decoding.dream import Opening
from unmask.decoding.evaluate import Evaluator
from unmask.decoding.generate import Generation, StepRecord, generate
from unmask.decoding.guide import CachedGuide
from unmask.decoding.piecewise import PiecewiseGuide
from unmask.decoding.sampler import Sampler, Sampling
from unmask.machine.config import BF16, Formats
from unmask.models.family import Network
from unmask.models.guide import GuideNetwork
from unmask.quant.arithmetic import MachineArithmetic
from unmask.quant.commit import machine_committer
from unmask.quant.draws import CounterDraws
from unmask.quant.noise import CounterNoise
from unmask.quant.sampler import MachineSampler
from unmask.quant.smoothing.registry import smoothing_named
from unmask.quant.smoothing.static import KvScales
from unmask.quant.streaming import StreamingSampler

AnyNetwork = TypeVar("AnyNetwork", bound=Network)


@dataclass(frozen=True)
class Check:
    """How a generation compares with PyTorch.

    Attributes:
        identical: every step committed the positions and tokens that PyTorch commits in the machine's number formats.
        first_difference: the first step that did not, or None.
        float32_agreement: the fraction of committed (position, token) pairs that the float32 network would also have committed, had it been
            given the same canvas and the same noise at that step.
    """

    identical: bool
    first_difference: int | None
    float32_agreement: float


def in_formats(model: AnyNetwork, formats: Formats) -> AnyNetwork:
    """The same network, sharing its weights, computed in a machine's number formats."""
    return model.computed_in(
        MachineArithmetic(formats.weights, formats.activations, formats.kv, formats.logits, softmax_sums=formats.softmax_sums)
    )


def check(
    simulation: Simulation,
    model: Network,
    *,
    guide: GuideNetwork | None = None,
    kv_scales: KvScales | None = None,
    seed: int | None = None,
    on_step: Callable[[StepRecord], None] | None = None,
) -> Check:
    """Run the reference over the same prompt, policy and seed, and compare step by step.

    Args:
        model: the float32 network that was compiled.
        guide: the float32 guide network that was compiled.
        kv_scales: those that were compiled, under smoothing `static`.
        seed: as given to `simulate`.
    """
    reference = reference_generation(simulation, model, guide=guide, kv_scales=kv_scales, seed=seed, on_step=on_step)
    different = [
        index
        for index, (ours, theirs) in enumerate(zip_longest(simulation.steps, reference.steps))
        if ours is None or theirs is None or any(_pairs(ours, row) != _pairs(theirs, row) for row in range(len(simulation.start)))
    ]
    agreed = sum(_agreements(simulation, model, guide, seed))
    committed = sum(len(step.positions(row)) for step in simulation.steps for row in range(len(simulation.start)))
    return Check(not different, different[0] if different else None, agreed / committed if committed else 1.0)


def reference_generation(
    simulation: Simulation,
    model: Network,
    *,
    guide: GuideNetwork | None = None,
    kv_scales: KvScales | None = None,
    seed: int | None = None,
    on_step: Callable[[StepRecord], None] | None = None,
) -> Generation:
    """What PyTorch generates in the machine's number formats, from the same canvas under the same policy; arguments as of `check`."""
    policy, formats, prompt_length = simulation.policy, simulation.machine.formats, simulation.prompt_length
    if simulation.sampling == "fused":
        formats = formats.model_copy(update={"logits": BF16})  # they are never stored
    network, judge = in_formats(model, formats), None
    sampler: Sampler = (MachineSampler if simulation.sampling == "general" else StreamingSampler)(policy, seed=seed)
    if guide is not None:
        judge = PiecewiseGuide(in_formats(guide, formats), simulation.start.shape[1])
        sampler = sampler_of(policy, network.config, guide=judge)
    elif opens_blocks(policy, network.config):
        sampler = Opening(sampler)
    return generate(
        network,
        torch.from_numpy(simulation.start[:, :prompt_length]),
        policy,
        template=torch.from_numpy(simulation.start[:, prompt_length:]),
        attention_mask=None if simulation.visible is None else torch.from_numpy(simulation.visible[:, :prompt_length]),
        guide=judge,
        sampler=sampler,
        committer=machine_committer(policy, seed=seed),
        cache=cache_of(policy, smoothing_named(formats.smoothing, kv_scales)),
        on_step=on_step,
    )


@torch.no_grad()
def _agreements(simulation: Simulation, model: Network, guide: GuideNetwork | None, seed: int | None) -> Iterator[int]:
    """For every step, how many of its commits the float32 network shares."""
    policy, config = simulation.policy, model.config
    seed = policy.seed if seed is None else seed
    given = torch.from_numpy(simulation.start != config.mask_token_id)
    visible = None if simulation.visible is None else torch.from_numpy(simulation.visible)
    evaluate = Evaluator(model, given, simulation.prompt_length, policy.cfg_scale, visible, cache_of(policy))
    committer, draws = machine_committer(policy, seed=seed), CounterDraws(seed)
    block_step, block = 0, range(-1, -1)
    for step in simulation.steps:
        block_step = block_step + 1 if block.start == step.start else 0
        block = range(step.start, step.end)
        canvas = torch.from_numpy(step.before)
        logits = evaluate(canvas, block, block_step, block).logits
        eligible = canvas[:, block.start : block.stop] == config.mask_token_id
        sampling = Sampling(
            step.step,
            torch.arange(block.start, block.stop),
            policy.temperature,
            policy.remasking,
            policy.excluded(config.mask_token_id, config.eos_token_id),
            policy.deferred(config.eos_token_id),
            CounterNoise(seed),
            eligible,
            block,
            block_step,
            canvas,
        )
        # A guide's sampler remembers what it accepted; the machine may have accepted something else, so each step gets a new one.
        judge = None if guide is None else CachedGuide(guide)
        tokens, confidence = sampler_of(policy, config, draws=draws, guide=judge)(logits, sampling)
        counts = torch.tensor([len(step.positions(row)) for row in range(len(canvas))])
        whole = torch.full(canvas.shape, -torch.inf)
        whole[:, block.start : block.stop] = confidence.masked_fill(~eligible, -torch.inf)
        chosen = committer(whole, counts)
        for row in range(len(canvas)):
            places = chosen[row].nonzero()[:, 0]
            theirs = {(int(place), int(tokens[row, place - block.start])) for place in places}
            yield len(theirs & _pairs(step, row))


def _pairs(step: Step | StepRecord, row: int) -> set[tuple[int, int]]:
    return set(zip(step.positions(row), step.tokens(row), strict=True))

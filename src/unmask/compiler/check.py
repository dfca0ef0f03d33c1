"""Holds a generation on the machine against the PyTorch reference."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from unmask.compiler.host import Simulation, Step
from unmask.decoding.commit import TopK
from unmask.decoding.generate import StepRecord, generate
from unmask.decoding.policy import Policy
from unmask.decoding.sampler import FloatSampler, Sampling
from unmask.machine.config import Formats
from unmask.models.llada import Llada
from unmask.quant.arithmetic import MachineArithmetic
from unmask.quant.noise import CounterNoise
from unmask.quant.sampler import MachineSampler


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


def in_formats(model: Llada, formats: Formats) -> Llada:
    """The same network, sharing its weights, computed in a machine's number formats."""
    twin = copy.copy(model)
    twin.arithmetic = MachineArithmetic(formats.weights, formats.activations, formats.kv)
    return twin


def check(simulation: Simulation, model: Llada, *, seed: int | None = None, on_step: Callable[[StepRecord], None] | None = None) -> Check:
    """Run the reference over the same prompt, policy and seed, and compare step by step.

    Args:
        model: the float32 network that was compiled.
        seed: as given to `simulate`.
    """
    policy = simulation.policy
    seed = policy.seed if seed is None else seed
    prompt = simulation.ids[: simulation.prompt_length].tolist()
    reference = generate(in_formats(model, simulation.machine.formats), [prompt], policy, sampler=MachineSampler(seed), on_step=on_step)
    pairs = zip(simulation.steps, reference.steps, strict=True)
    different = [ours.step for ours, theirs in pairs if (ours.positions, ours.tokens) != (theirs.positions(), theirs.tokens())]
    agreed = sum(_agreements(simulation, model, policy, seed))
    committed = sum(len(step.positions) for step in simulation.steps)
    return Check(not different, different[0] if different else None, agreed / committed if committed else 1.0)


@torch.no_grad()
def _agreements(simulation: Simulation, model: Llada, policy: Policy, seed: int) -> Iterator[int]:
    """For every step, how many of its commits the float32 network shares."""
    config = model.config
    excluded = policy.excluded(config.mask_token_id, config.eos_token_id)
    for step in simulation.steps:
        canvas = torch.from_numpy(step.before)[None]
        block = slice(step.start, step.end)
        logits = model.logits(model.hidden(canvas)[:, block])
        positions = torch.arange(step.start, step.end)
        sampling = Sampling(step.step, positions, policy.temperature, policy.remasking, excluded, (), CounterNoise(seed))
        tokens, confidence = FloatSampler()(logits, sampling)
        masked = canvas[:, block] == config.mask_token_id
        chosen = TopK()(confidence.masked_fill(~masked, -torch.inf), torch.tensor([len(step.positions)]))[0]
        theirs = {(int(p), int(t)) for p, t in zip(positions[chosen], tokens[0][chosen], strict=True)}
        yield len(theirs & _pairs(step))


def _pairs(step: Step) -> set[tuple[int, int]]:
    return set(zip(step.positions, step.tokens, strict=True))

"""From a policy to the parts of a decoding: which schedule, sampler, committer, cache and stop it means on a network."""

from __future__ import annotations

import torch
from torch import Tensor

from unmask.decoding.cache.base import Cache
from unmask.decoding.cache.registry import caches
from unmask.decoding.cache.smoothing import Smoothing
from unmask.decoding.cache.whole import WholeCanvas
from unmask.decoding.commit import Certain, Committer, Factor, Threshold, TopK
from unmask.decoding.dream import Drawn, Draws, DreamSampler, OpenedTimesteps, Opening, SharedTimesteps, Timesteps, TorchDraws
from unmask.decoding.evaluate import ModelConfig
from unmask.decoding.guided import Acceptance, Exact, Guide, GuidedSampler, Relaxed
from unmask.decoding.policy import DREAM_SCORERS, Policy
from unmask.decoding.sampler import FloatSampler, Sampler
from unmask.decoding.schedule import Schedule, Uniform, UntilClean
from unmask.decoding.stop import EarlyStop
from unmask.errors import UnmaskError


def opens_blocks(policy: Policy, config: ModelConfig) -> bool:
    """Whether the first step of a block commits the block's first masked position alone (`unmask.decoding.dream.Opening`): on networks with
    shifted logits, with caches that do not feed the row before the block. A guide commits from the left anyway.

    Raises:
        UnmaskError: parts that do not go with such a first step.
    """
    if not config.shifted_logits or policy.cache == "none" or not caches()[policy.cache].opens_blocks or policy.commit == "guided":
        return False
    what = f"cache {policy.cache!r} opens every block with its first position on this network"
    if policy.commit == "schedule" and policy.schedule != "timesteps":
        raise UnmaskError(f"{what}: expected schedule 'timesteps', or commit 'threshold' or 'factor'; schedule is {policy.schedule!r}")
    if policy.remasking == "origin":
        raise UnmaskError(f"{what}, and remasking 'origin' commits positions at random; expected another remasking or cache")
    if policy.steps_per_block < 2 and policy.commit == "schedule":
        raise UnmaskError(f"{what}: expected at least 2 steps per block; steps {policy.steps} is one for each")
    return True


def schedule_of(policy: Policy, config: ModelConfig, masks: Tensor | None = None) -> Schedule:
    """How many candidates each step commits, and when a block ends; a new object for every generation.

    Args:
        policy: with a commit other than `schedule`, blocks end once they are clean.
        config: of the network.
        masks: int64 [batch, blocks], masked positions of every block when the generation starts; None: all positions are.

    Raises:
        UnmaskError: what `opens_blocks` raises.
    """
    steps, opening = policy.steps_per_block, opens_blocks(policy, config)
    if policy.commit != "schedule":
        return UntilClean(steps, least=2 if opening else 1)
    if policy.schedule == "timesteps":
        return OpenedTimesteps(steps, policy.eps) if opening else Timesteps(steps, policy.eps)
    if policy.schedule == "shared_timesteps":
        masks = torch.full((1, policy.blocks), policy.block_length) if masks is None else masks
        return SharedTimesteps(masks, steps, policy.eps)
    return Uniform(steps)


def committer_of(policy: Policy, draws: Draws | None = None) -> Committer:
    """Which candidates a step commits.

    Args:
        policy: the policy.
        draws: where the random choices of `alg_temp` come from; None: PyTorch's generator, seeded with the policy's seed.
    """
    if policy.commit == "threshold":
        return Threshold(policy.threshold)
    if policy.commit == "factor":
        return Factor(policy.factor)
    if policy.commit == "guided" or policy.remasking == "origin":
        return Certain()
    return Drawn(policy.alg_temp, draws or TorchDraws(policy.seed)) if policy.alg_temp else TopK()


def cache_of(policy: Policy, smoothing: Smoothing | None = None) -> Cache | None:
    """Which rows each step feeds, a new object for every generation; None feeds the whole canvas and keeps nothing.

    Args:
        policy: the policy.
        smoothing: what keys and values are divided by before the cache keeps them; None: by nothing.
    """
    if policy.cache == "none":
        return None if smoothing is None else WholeCanvas(smoothing)
    return caches()[policy.cache].build(smoothing)


def sampler_of(policy: Policy, config: ModelConfig, *, draws: Draws | None = None, guide: Guide | None = None) -> Sampler:
    """Candidates and confidences, in floating point; a new object for every generation.

    Args:
        policy: the policy.
        config: of the network.
        draws: where the random choices of Dream's scorers come from; None: PyTorch's generator, seeded with the policy's seed.
        guide: of the commit `guided`.

    Raises:
        UnmaskError: no guide, one that is not asked for, or one of another vocabulary; what `opens_blocks` raises.
    """
    if (policy.commit == "guided") != (guide is not None):
        raise UnmaskError(f"commit {policy.commit!r} {'takes no' if guide else 'needs a'} guide")
    if guide is not None:
        if guide.vocab_size != config.vocab_size:
            raise UnmaskError(f"the guide has a vocabulary of {guide.vocab_size}; the diffusion model has {config.vocab_size}")
        return GuidedSampler(guide, config.eos_token_id, acceptance_of(policy))
    sampler: Sampler = FloatSampler()
    if policy.remasking in DREAM_SCORERS:
        sampler = DreamSampler(
            policy.remasking,
            draws or TorchDraws(policy.seed),
            top_p=policy.top_p,
            top_k=policy.top_k,
            timesteps=Timesteps(policy.steps_per_block, policy.eps),
        )
    return Opening(sampler) if opens_blocks(policy, config) else sampler


def acceptance_of(policy: Policy) -> Acceptance:
    """What the guide lets pass."""
    return Exact() if policy.accept_top_k == 1 else Relaxed(policy.accept_top_k, policy.accept_ratio)


def stop_of(policy: Policy, config: ModelConfig) -> EarlyStop | None:
    """When a generation may end before its canvas is clean, a new object for every generation; None: never."""
    return EarlyStop(config.eos_token_id, config.mask_token_id, policy.early_stop) if policy.early_stop else None

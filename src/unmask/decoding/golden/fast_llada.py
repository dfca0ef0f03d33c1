"""Recordings of Fast-dLLM's generation with LLaDA (Wu et al., arXiv 2505.22618), replayed in faithful mode."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unmask.decoding.cache.base import Cache
from unmask.decoding.cache.block import DualCache, PrefixCache
from unmask.decoding.commit import Committer, Factor, Threshold, TopK
from unmask.decoding.generate import generate
from unmask.decoding.golden.case import Case, Events, Forward, MismatchError, NotReplayableError, Runner, rectangle
from unmask.decoding.golden.follow import FollowedCommitter, FollowedModel, FollowedNoise, FollowedSampler, recorded_logits, same_ids
from unmask.decoding.golden.replay import model_folder
from unmask.decoding.golden.tolerance import Tolerance
from unmask.decoding.policy import Policy
from unmask.decoding.sampler import Sampling
from unmask.decoding.schedule import UntilClean
from unmask.models.checkpoint import load_model

_SOURCE = re.compile(r"\bFast-dLLM@\w+ llada/generate\.py::generate(?:_with_(prefix|dual)_cache)?\b")


def _run(file: Path, values: dict[str, Any]) -> str:
    case = Case.parse(values)
    match = _SOURCE.search(str(values.get("source")))
    kind = match[1] if match else None
    model = load_model(model_folder(file), case.torch_dtype)
    kwargs = dict(case.kwargs)
    if kwargs.pop("mask_id", model.config.mask_token_id) != model.config.mask_token_id:
        raise MismatchError(f"mask_id is {case.kwargs['mask_id']}; that of the model's config.json is {model.config.mask_token_id}")
    threshold, factor = kwargs.pop("threshold", None), kwargs.pop("factor", values.get("factor"))
    if unknown := sorted(kwargs.keys() - {"steps", "gen_length", "block_length", "temperature", "remasking"}):
        raise NotReplayableError(f"argument {unknown[0]} is not implemented")
    arguments = {"steps": 128, "gen_length": 128, "block_length": 128, **kwargs}
    policy = Policy(**arguments, exclude_mask=False, honour_padding=False, seed=case.seed)

    events, tolerance = Events(case.events), Tolerance.here(case.torch_dtype, 0.0)
    recorded = FollowedModel(model, events, recorded_logits(file, case), tolerance)
    sampler = (_TwiceDrawn if kind == "prefix" else FollowedSampler)(case, tolerance, torch.float64)
    rule, cut = _rule(threshold, factor)
    committer = FollowedCommitter(rule, events, sampler, tolerance, cut)
    result = generate(
        recorded,
        rectangle(case.prompt_ids, "prompt_ids").long(),
        policy,
        noise=FollowedNoise(policy.seed, events),
        sampler=sampler,
        committer=committer,
        schedule=UntilClean(policy.steps_per_block, least=2 if _runs_twice(case) else 1),
        cache=_cache(kind),
    )
    events.finish()
    same_ids(result.ids, case.output_ids, "output_ids")
    if result.n_forward != case.n_forward:
        raise MismatchError(f"{result.n_forward} forwards; recorded {case.n_forward}")
    ties = sampler.ties + committer.ties + recorded.ties
    return f"{ties} ties broken as recorded" if ties else ""


def _rule(threshold: float | None, factor: float | None) -> tuple[Committer, float | None]:
    """The rule, and the threshold if the recording ranked all candidates before it dropped some."""
    if factor is not None:
        return Factor(factor, forgive_last=True), None
    return (TopK(), None) if threshold is None else (Threshold(threshold), threshold)


def _cache(kind: str | None) -> Cache | None:
    if kind is None:
        return None
    return PrefixCache() if kind == "prefix" else DualCache()


def _runs_twice(case: Case) -> bool:
    """Whether every block took a second step, even a clean one. Older versions of the dual cache look for masks after a cached step only,
    newer ones before; what was fed tells them apart.
    """
    windows = [event.replace_positions for event in case.events if isinstance(event, Forward)]
    pairs = zip(windows, [*windows[1:], None], strict=True)
    return any(windows) and all(after is not None for before, after in pairs if before is None)


class _TwiceDrawn(FollowedSampler):
    """The prefix cache's cached steps draw Gumbel noise twice and use the second draw."""

    def __call__(self, logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
        if sampling.temperature > 0 and sampling.block_step > 0 and isinstance(sampling.noise, FollowedNoise):
            batch, _, vocab_size = logits.shape
            sampling.noise.discard(sampling.positions, batch, vocab_size)
        return super().__call__(logits, sampling)


RUNNER = Runner(recognises=lambda source: _SOURCE.search(source) is not None, run=_run)

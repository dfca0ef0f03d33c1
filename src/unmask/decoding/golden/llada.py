"""Recordings of LLaDA's own `generate`, replayed in faithful mode."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from unmask.decoding.commit import TopK
from unmask.decoding.generate import generate
from unmask.decoding.golden.case import Case, Events, MismatchError, NotReplayableError, Runner, rectangle
from unmask.decoding.golden.follow import FollowedCommitter, FollowedModel, FollowedNoise, FollowedSampler, recorded_logits, same_ids
from unmask.decoding.golden.replay import model_folder
from unmask.decoding.golden.tolerance import Tolerance
from unmask.decoding.policy import Policy
from unmask.models.checkpoint import load_model
from unmask.models.llada import Llada

_EOT = 126348  # written into the reference's code, where smaller vocabularies cannot hold it


def _run(file: Path, values: dict[str, Any]) -> str:
    case = Case.parse(values)
    model = load_model(model_folder(file), case.torch_dtype)
    policy, mask = _policy(case, model)
    events = Events(case.events)
    tolerance = Tolerance.here(case.torch_dtype, policy.cfg_scale)
    recorded = FollowedModel(model, events, recorded_logits(file, case), tolerance)
    sampler = FollowedSampler(case, tolerance)
    committer = FollowedCommitter(TopK(), events, sampler, tolerance)
    noise = FollowedNoise(policy.seed, events)
    prompt = rectangle(case.prompt_ids, "prompt_ids").long()
    result = generate(recorded, prompt, policy, attention_mask=mask, noise=noise, sampler=sampler, committer=committer)
    events.finish()
    same_ids(result.ids, case.output_ids, "output_ids")
    if result.n_forward != case.n_forward:
        raise MismatchError(f"{result.n_forward} forwards; recorded {case.n_forward}")
    ties = sampler.ties + committer.ties + recorded.ties
    return f"{ties} ties broken as recorded" if ties else ""


def _policy(case: Case, model: Llada) -> tuple[Policy, Tensor | None]:
    """The policy that the call's arguments mean, with the reference's defaults, and the attention mask it was given."""
    kwargs = dict(case.kwargs)
    attention_mask = kwargs.pop("attention_mask", case.attention_mask)
    if kwargs.pop("mask_id", model.config.mask_token_id) != model.config.mask_token_id:
        raise MismatchError(f"mask_id is {case.kwargs['mask_id']}; that of the model's config.json is {model.config.mask_token_id}")
    renamed = {"logits_eos_inf": "suppress_eos", "confidence_eos_eot_inf": "defer_eos"}
    known = {"steps", "gen_length", "block_length", "temperature", "cfg_scale", "remasking", *renamed}
    if unknown := sorted(kwargs.keys() - known):
        raise NotReplayableError(f"argument {unknown[0]} is not implemented")
    arguments = {"steps": 128, "gen_length": 128, "block_length": 128, **{renamed.get(key, key): kwargs[key] for key in kwargs}}
    eot = _EOT if model.config.vocab_size > _EOT else None
    policy = Policy(**arguments, exclude_mask=False, honour_padding=False, eot_token_id=eot, seed=case.seed)
    return policy, None if attention_mask is None else rectangle(attention_mask, "attention_mask")


RUNNER = Runner(recognises=lambda source: re.search(r"\bLLaDA@\w+ generate\.py::generate$", source) is not None, run=_run)

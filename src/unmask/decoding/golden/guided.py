"""Recordings of FlashDLM's Guided Diffusion (Hu et al., arXiv 2505.21467) with an autoregressive model that follows a rule."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from unmask.decoding.cache.freecache import PromptCache
from unmask.decoding.commit import Certain
from unmask.decoding.generate import Generation, generate
from unmask.decoding.golden.case import Case, Events, Forward, MismatchError, NotReplayableError, Runner, rectangle
from unmask.decoding.golden.follow import FollowedModel, recorded_logits, same_ids
from unmask.decoding.golden.replay import model_folder
from unmask.decoding.golden.tolerance import Tolerance
from unmask.decoding.guided import Exact, GuidedSampler
from unmask.decoding.policy import Policy
from unmask.decoding.schedule import UntilClean
from unmask.models.checkpoint import load_network

_SOURCE = re.compile(r"\bflash-dlm-experimental@\w+ guided_diffusion/")
_RULE = re.compile(r"argmax for position p equals the fed draft if p % (\d+) != 0, else (\d+); last fed row answers (\d+)$")


class _Guidance(BaseModel):
    """What a case of this kind holds besides: the rule, what the guide was fed, and the canvas after every step."""

    ar_rule: str
    ar_calls: list[tuple[int, list[int]]]
    history: list[list[int]]
    stats: dict[str, Any]


def _run(file: Path, values: dict[str, Any]) -> str:
    case = Case.parse(values)
    try:
        guidance = _Guidance.model_validate(values)
    except ValidationError as error:
        raise MismatchError(f"corrupt case: {error.errors()[0]['loc']}: {error.errors()[0]['msg']}") from None
    model = load_network(model_folder(file), case.torch_dtype)
    kwargs = dict(case.kwargs)
    length, strategy = kwargs.pop("n", None), kwargs.pop("strategy", "deterministic")
    if strategy != "deterministic":
        raise NotReplayableError(f"strategy = {strategy} is not implemented for a guide that gives only its arg-max")
    if kwargs:
        raise NotReplayableError(f"argument {sorted(kwargs)[0]} is not implemented")
    if not isinstance(length, int):
        raise MismatchError("corrupt case: n is missing")
    # The recorded arguments do not name the cache; what was fed does.
    cached = any(len(event.ids[0]) < len(case.output_ids[0]) for event in case.events if isinstance(event, Forward))

    events, tolerance = Events(case.events), Tolerance.here(case.torch_dtype, 0.0)
    recorded = FollowedModel(model, events, recorded_logits(file, case), tolerance)
    guide = _RuledGuide(guidance, model.config.vocab_size)
    result = generate(
        recorded,
        rectangle(case.prompt_ids, "prompt_ids").long(),
        Policy(gen_length=length, block_length=length, steps=length, exclude_mask=False, seed=case.seed),
        sampler=GuidedSampler(guide, model.config.eos_token_id, Exact()),
        committer=Certain(),
        schedule=UntilClean(length),
        cache=PromptCache() if cached else None,
    )
    events.finish()
    guide.finish()
    same_ids(result.ids, case.output_ids, "output_ids")
    _compare_history(result, guidance)
    if not result.n_forward == case.n_forward == guidance.stats.get("diffusion_steps", case.n_forward):
        raise MismatchError(f"{result.n_forward} forwards; recorded {case.n_forward}")
    return f"{recorded.ties} ties broken as recorded" if recorded.ties else ""


def _compare_history(result: Generation, guidance: _Guidance) -> None:
    if len(guidance.history) != len(result.steps) + 1:
        raise MismatchError(f"{len(result.steps)} steps; recorded {len(guidance.history) - 1}")
    for step, canvas in zip(result.steps, guidance.history[1:], strict=True):
        same_ids(step.canvas, [canvas], f"canvas after step {step.step}")


class _RuledGuide:
    """Agrees with the draft but at every so many positions; what it is fed is compared with the recording."""

    def __init__(self, guidance: _Guidance, vocab_size: int) -> None:
        rule = _RULE.search(guidance.ar_rule)
        if rule is None:
            raise NotReplayableError(f"ar_rule {guidance.ar_rule!r} is not implemented")
        self._period, self._other, self._last = (int(number) for number in rule.groups())
        if self._period == 0 or max(self._other, self._last) >= vocab_size:
            raise MismatchError(f"corrupt case: ar_rule {guidance.ar_rule!r}")
        self._calls, self.vocab_size = list(guidance.ar_calls), vocab_size

    def read(self, kept: int, ids: Tensor) -> Tensor:
        if not self._calls:
            raise MismatchError("the guide is asked more often than recorded")
        if (call := self._calls.pop(0)) != (kept, ids.tolist()):
            raise MismatchError(f"the guide is fed {len(ids)} tokens after {kept}; recorded {len(call[1])} after {call[0]}, or others")
        positions = kept + 1 + torch.arange(len(ids))
        answers = torch.cat((ids[1:], torch.tensor([self._last])))
        answers[:-1][positions[:-1] % self._period == 0] = self._other
        return torch.nn.functional.one_hot(answers, self.vocab_size).float()

    def finish(self) -> None:
        """Every recorded call must have been made."""
        if self._calls:
            raise MismatchError(f"the guide is asked {len(self._calls)} times less often than recorded")


RUNNER = Runner(recognises=lambda source: _SOURCE.search(source) is not None, run=_run)

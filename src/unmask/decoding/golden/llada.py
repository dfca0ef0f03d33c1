"""Recordings of LLaDA's own `generate`, replayed in faithful mode.

The replay follows the recording through the seams of `generate`: a model, a noise source, a sampler and a committer that each compare
what passes with the next recorded event. Where values tie, they take the recorded choice, so that later steps stay comparable.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from unmask.decoding.commit import TopK as TopKCommitter
from unmask.decoding.evaluate import ModelConfig
from unmask.decoding.generate import generate
from unmask.decoding.golden.case import Case, Draw, Events, Forward, MismatchError, NotReplayableError, Runner, TopK, rectangle
from unmask.decoding.golden.replay import model_folder
from unmask.decoding.golden.tolerance import Tolerance
from unmask.decoding.noise import TorchNoise
from unmask.decoding.policy import Policy
from unmask.decoding.sampler import FloatSampler, Sampling
from unmask.models.checkpoint import load_model
from unmask.models.llada import Llada

_EOT = 126348  # written into the reference's code, where smaller vocabularies cannot hold it


def _run(file: Path, values: dict[str, Any]) -> str:
    case = Case.parse(values)
    model = load_model(model_folder(file), case.torch_dtype)
    policy, mask = _policy(case, model)
    events = Events(case.events)
    tolerance = Tolerance.here(case.torch_dtype, policy.cfg_scale)
    recorded = _FollowedModel(model, events, _recorded_logits(file, case), tolerance)
    sampler = _FollowedSampler(case, tolerance)
    committer = _FollowedCommitter(events, sampler, tolerance)
    noise = _FollowedNoise(policy.seed, events)
    prompt = rectangle(case.prompt_ids, "prompt_ids").long()
    result = generate(recorded, prompt, policy, attention_mask=mask, noise=noise, sampler=sampler, committer=committer)
    events.finish()
    _same_ids(result.ids, case.output_ids, "output_ids")
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


def _recorded_logits(file: Path, case: Case) -> dict[str, Tensor]:
    """The full logits beside the case file, by key; empty if the case refers to none."""
    keys = {event.logits_key for event in case.events if isinstance(event, Forward) and event.logits_key is not None}
    path = file.with_suffix(".safetensors")
    if not keys:
        return {}
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise MismatchError(f"{path.name} cannot be read: {error}") from None
    if missing := sorted(keys - tensors.keys()):
        raise MismatchError(f"{path.name} holds no {missing[0]}")
    return tensors


def _same_ids(found: Tensor, recorded: list[list[int]], what: str) -> None:
    expected = rectangle(recorded, what).long()
    if found.shape != expected.shape:
        raise MismatchError(f"{what} has shape {list(found.shape)}; recorded {list(expected.shape)}")
    if not torch.equal(found, expected):
        row, position = (found != expected).nonzero()[0].tolist()
        raise MismatchError(f"{what}: row {row}, position {position} is {found[row, position]}; recorded {expected[row, position]}")


def _close(found: Tensor, expected: Tensor, allowed: Tensor, what: str) -> None:
    if found.shape != expected.shape:
        raise MismatchError(f"{what} has shape {list(found.shape)}; recorded {list(expected.shape)}")
    excess = (found - expected).abs() - allowed
    if not bool((excess <= 0).all()):  # written so that NaN fails
        place = tuple(int(i) for i in (~(excess <= 0)).nonzero()[0])
        raise MismatchError(f"{what} at {list(place)} is {found[place]:.6g}; recorded {expected[place]:.6g}, allowed {allowed[place]:.1g}")


class _FollowedModel:
    """The network, its inputs and outputs compared with the `forward` events."""

    def __init__(self, model: Llada, events: Events, logits: dict[str, Tensor], tolerance: Tolerance) -> None:
        self._model, self._events, self._logits, self._tolerance = model, events, logits, tolerance
        self._forwards = 0
        self._event: Forward
        self.ties = 0

    @property
    def config(self) -> ModelConfig:
        return self._model.config

    def hidden(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        self._event = self._events.take(Forward)
        _same_ids(ids, self._event.ids, f"forward {self._forwards}: ids")
        return self._model.hidden(ids, attention_mask)

    def logits(self, hidden: Tensor) -> Tensor:
        logits = self._model.logits(hidden)
        event, what, wide = self._event, f"forward {self._forwards}", logits.double()
        largest = torch.softmax(wide, dim=-1).amax(dim=-1)
        allowed = self._tolerance.probability(largest, logits, guided=False)
        _close(largest, rectangle(event.max_prob_f64, "max_prob_f64"), allowed, f"{what}: max_prob_f64")
        self._compare_argmax(logits, rectangle(event.argmax, "argmax").long(), what)
        if event.logits_key is not None:
            allowed = self._tolerance.logits(logits)[..., None].expand_as(wide)
            _close(wide, self._logits[event.logits_key].double(), allowed, f"{what}: {event.logits_key}")
        self._forwards += 1
        return logits

    def _compare_argmax(self, logits: Tensor, recorded: Tensor, what: str) -> None:
        if recorded.shape != logits.shape[:-1] or not bool(((recorded >= 0) & (recorded < logits.shape[-1])).all()):
            raise MismatchError(f"corrupt case: {what}: argmax has shape {list(recorded.shape)} or tokens outside the vocabulary")
        gap = (logits.amax(dim=-1) - logits.gather(-1, recorded[..., None]).squeeze(-1)).double()
        if not bool((gap <= self._tolerance.logits(logits)).all()):
            row, position = (gap > self._tolerance.logits(logits)).nonzero()[0].tolist()
            found = logits[row, position].argmax()
            raise MismatchError(f"{what}: argmax of row {row}, position {position} is {found}; recorded {recorded[row, position]}")
        self.ties += int((logits.argmax(dim=-1) != recorded).sum())


class _FollowedNoise(TorchNoise):
    """PyTorch's draws, compared with the `rand_like` and `rand` events; the last ones are kept so that scores can be computed again."""

    def __init__(self, seed: int, events: Events) -> None:
        super().__init__(seed)
        self._events, self._step = events, -1
        self._uniforms = torch.empty(0)

    def token_uniforms(self, step: int, positions: Tensor, batch: int, vocab_size: int) -> Tensor:
        if step != self._step:
            self._step, self._uniforms = step, super().token_uniforms(step, positions, batch, vocab_size)
            self._events.take(Draw).check(self._uniforms)
        return self._uniforms

    def position_uniforms(self, step: int, positions: Tensor, batch: int) -> Tensor:
        drawn = super().position_uniforms(step, positions, batch)
        self._events.take(Draw).check(drawn)
        return drawn


class _FollowedSampler(FloatSampler):
    """LLaDA's sampler; a committed token that the recording chose otherwise is accepted if its score ties within the tolerance."""

    def __init__(self, case: Case, tolerance: Tolerance) -> None:
        forwards = [event.ids[: len(case.prompt_ids)] for event in case.events if isinstance(event, Forward)]
        self._canvases = [rectangle(ids, "ids").long() for ids in [*forwards, case.output_ids]]
        self._tolerance = tolerance
        self.logits = torch.empty(0)
        self.ties = 0

    def __call__(self, logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
        candidates, confidence = super().__call__(logits, sampling)
        self.logits = logits
        before, after = self._canvases[sampling.step : sampling.step + 2]
        if not before.shape == after.shape == candidates.shape or int(after.max()) >= logits.shape[-1]:
            raise MismatchError(f"corrupt case: the canvas after step {sampling.step} has another shape or unknown tokens")
        differs = (before != after) & (candidates != after)
        if not bool(differs.any()):
            return candidates, confidence
        scores = self.scores(logits, sampling)
        scores = scores.log() if sampling.temperature > 0 else scores.double()
        gap = scores.amax(dim=-1) - scores.gather(-1, after[..., None]).squeeze(-1)
        if bool((wrong := differs & ~(gap <= self._tolerance.logits(logits))).any()):
            row, position = wrong.nonzero()[0].tolist()
            token, recorded = candidates[row, position], after[row, position]
            raise MismatchError(f"step {sampling.step}: the token of row {row}, position {position} is {token}; recorded {recorded}")
        self.ties += int(differs.sum())
        return torch.where(differs, after, candidates), confidence


class _FollowedCommitter:
    """The scheduled top-k, compared with the `topk` events; where confidences tie at the cut, the recorded choice is taken."""

    def __init__(self, events: Events, sampler: _FollowedSampler, tolerance: Tolerance) -> None:
        self._events, self._sampler, self._tolerance = events, sampler, tolerance
        self._step = 0
        self.ties = 0

    def __call__(self, confidence: Tensor, counts: Tensor) -> Tensor:
        own = TopKCommitter()(confidence, counts)
        eligible = confidence != -torch.inf
        wide = confidence.double()
        p = wide.masked_fill(~eligible, 0.0)
        allowed = self._tolerance.probability(p, self._sampler.logits, guided=True)
        rows = [
            self._row(
                wide[row], eligible[row], own[row], allowed[row], int(counts[row]), str(confidence.dtype), f"step {self._step}, row {row}"
            )
            for row in range(len(own))
        ]
        self._step += 1
        return torch.stack(rows)

    def _row(self, confidence: Tensor, eligible: Tensor, own: Tensor, allowed: Tensor, k: int, dtype: str, what: str) -> Tensor:
        event = self._events.take(TopK)
        recorded = torch.tensor(event.conf, dtype=torch.float64)
        if (event.k, event.dtype) != (k, dtype):
            raise MismatchError(f"{what}: top {k} of {dtype}; recorded top {event.k} of {event.dtype}")
        if recorded.shape != confidence.shape or not torch.equal(recorded != -torch.inf, eligible):
            raise MismatchError(f"{what}: other positions are eligible than recorded")
        _close(confidence[eligible], recorded[eligible], allowed[eligible], f"{what}: confidence of the eligible positions")
        if len(set(event.indices)) != k or not all(0 <= index < len(own) for index in event.indices):
            raise MismatchError(f"corrupt case: {what}: {len(event.indices)} indices for k = {k}")
        chosen = torch.zeros_like(own)
        chosen[event.indices] = True
        chosen &= eligible
        if torch.equal(own, chosen):
            return own
        # Both are top-k choices if the positions on which they disagree tie with one another.
        disputed = confidence[own != chosen]
        if int(own.sum()) != int(chosen.sum()) or disputed.max() - disputed.min() > 2 * allowed[own != chosen].max():
            raise MismatchError(f"{what}: commits positions {own.nonzero()[:, 0].tolist()}; recorded {chosen.nonzero()[:, 0].tolist()}")
        self.ties += 1
        return chosen


RUNNER = Runner(recognises=lambda source: re.search(r"\bLLaDA@\w+ generate\.py::generate$", source) is not None, run=_run)

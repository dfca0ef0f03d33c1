"""Recordings of Dream's generation, replayed in faithful mode: its own `diffusion_generate` (Ye et al., arXiv 2508.15487), Fast-dLLM's
blocks (Wu et al., arXiv 2505.22618) and FlashDLM's FreeCache (Hu et al., arXiv 2505.21467).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from unmask.decoding.cache.base import Cache
from unmask.decoding.cache.block import DualCache, PrefixCache
from unmask.decoding.cache.freecache import FreeCache
from unmask.decoding.commit import Certain, Committer, Threshold, TopK
from unmask.decoding.dream import Algorithm, Drawn, DreamSampler, OpenedTimesteps, Opening, SharedTimesteps, Timesteps, TorchDraws
from unmask.decoding.generate import generate
from unmask.decoding.golden.case import Case, Draw, Event, Events, MismatchError, NotReplayableError, Runner, rectangle
from unmask.decoding.golden.case import TopK as TopKEvent
from unmask.decoding.golden.follow import FollowedModel, close, recorded_canvases, recorded_logits, same_ids
from unmask.decoding.golden.replay import model_folder
from unmask.decoding.golden.tolerance import Tolerance
from unmask.decoding.policy import Policy
from unmask.decoding.sampler import Sampler, Sampling
from unmask.decoding.schedule import Schedule, UntilClean
from unmask.decoding.stop import EarlyStop
from unmask.models.checkpoint import load_network
from unmask.models.family import Network

_PLAIN = re.compile(r"^Dream generation_utils\b")
_FAST = re.compile(r"\bFast-dLLM@\w+ dream/model generation_utils_block\.py$")
_FLASH = re.compile(r"\bflash-dlm-experimental@\w+ src/model/dream_flash \(_sample_block_diffusion\)$")

_TOKENS = {"pad_token_id", "bos_token_id"}
_REPORTING = {"return_dict_in_generate", "output_history"}


@dataclass(frozen=True)
class _Arguments:
    """The arguments of a call, with the reference's defaults. `attention_mask` is bool [batch, prompt], or None without padding; `block`
    is None where there are no blocks; `early_stop` says how many end tokens end the generation.
    """

    attention_mask: Tensor | None
    gen_length: int
    steps: int
    block: int | None
    alg: str
    alg_temp: float
    temperature: float
    top_p: float | None
    top_k: int | None
    eps: float
    threshold: float
    dual_cache: bool
    early_stop: int | None


def _run(file: Path, values: dict[str, Any]) -> str:
    case = Case.parse(values)
    source = str(values.get("source"))
    model = load_network(model_folder(file), case.torch_dtype)
    arguments = _arguments(case, model, source)
    policy = Policy(
        gen_length=arguments.gen_length,
        block_length=arguments.block or arguments.gen_length,
        steps=arguments.steps,
        temperature=arguments.temperature,
        exclude_mask=False,
        seed=case.seed,
    )
    events, tolerance = Events(_decoding_events(case, arguments.top_k)), Tolerance.here(case.torch_dtype, 0.0)
    recorded = FollowedModel(model, events, recorded_logits(file, case), tolerance)
    draws = _FollowedDraws(case.seed, events)
    sampler, rule, schedule, cache = _parts(source, arguments, policy, draws, model.config.mask_token_id)
    followed = _FollowedSampler(sampler, case, tolerance)
    committer = _FollowedCommitter(
        rule, events, followed, tolerance, opening=isinstance(sampler, Opening), flat=bool(_FLASH.search(source))
    )
    prompt = rectangle(case.prompt_ids, "prompt_ids").long()
    stop = None
    if arguments.early_stop is not None:
        stop = EarlyStop(model.config.eos_token_id, model.config.mask_token_id, arguments.early_stop)
        followed.filled_with = model.config.eos_token_id
    result = generate(
        recorded,
        prompt,
        policy,
        attention_mask=arguments.attention_mask,
        sampler=followed,
        committer=committer,
        schedule=schedule,
        cache=cache,
        stop=stop,
    )
    events.finish()
    same_ids(result.ids, case.output_ids, "output_ids")
    if result.n_forward != case.n_forward:
        raise MismatchError(f"{result.n_forward} forwards; recorded {case.n_forward}")
    ties = followed.ties + committer.ties + recorded.ties
    return f"{ties} ties broken as recorded" if ties else ""


def _arguments(case: Case, model: Network, source: str) -> _Arguments:
    kwargs = {key: value for key, value in case.kwargs.items() if key not in _TOKENS | _REPORTING}
    recorded_mask = kwargs.pop("attention_mask", case.attention_mask)
    attention_mask = None if recorded_mask is None else rectangle(recorded_mask, "attention_mask").bool()
    if attention_mask is not None and not bool(attention_mask.all()) and not _PLAIN.search(source):
        raise NotReplayableError("padding is replayed for Dream's own generation only")
    for name in ("mask_token_id", "eos_token_id"):
        own = getattr(model.config, name)
        if (given := kwargs.pop(name, own)) != own:
            raise MismatchError(f"{name} is {given}; that of the model's config.json is {own}")
    length, new = kwargs.pop("max_length", None), kwargs.pop("max_new_tokens", None)
    if length is None and new is None:
        raise MismatchError("corrupt case: neither max_new_tokens nor max_length")
    gen_length = new if new is not None else length - len(case.prompt_ids[0])
    block = early_stop = None
    if _FAST.search(source):
        block = kwargs.pop("block_length", 32) or gen_length
    if _FLASH.search(source):
        block = kwargs.pop("block_size", 32)
        for name, supported in (("use_block_diffusion", True), ("use_full_query_attn", False)):
            if kwargs.pop(name, supported) != supported:
                raise NotReplayableError(f"argument {name} = {not supported} is not implemented")
        if len(case.prompt_ids) > 1:
            raise NotReplayableError("FreeCache with a batch is not implemented")
        consecutive = kwargs.pop("early_stop_consecutive", 1)
        early_stop = consecutive if kwargs.pop("early_stop", True) else None
    alg = kwargs.pop("alg", "origin")
    if alg == "confidence_threshold" and len(case.prompt_ids) > 1:
        raise NotReplayableError("the published threshold decoding of a batch looks at its first row only")
    arguments = _Arguments(
        attention_mask=attention_mask,
        gen_length=gen_length,
        steps=kwargs.pop("steps", 512),
        block=block,
        alg=alg,
        alg_temp=kwargs.pop("alg_temp", None) or 0.0,
        temperature=kwargs.pop("temperature", 0.0),
        top_p=kwargs.pop("top_p", None),
        top_k=kwargs.pop("top_k", None),
        eps=kwargs.pop("eps", 1e-3),
        threshold=kwargs.pop("threshold", 0.9),
        dual_cache=kwargs.pop("dual_cache", False),
        early_stop=early_stop,
    )
    if kwargs:
        raise NotReplayableError(f"argument {sorted(kwargs)[0]} is not implemented")
    return arguments


def _parts(
    source: str, arguments: _Arguments, policy: Policy, draws: TorchDraws, mask: int
) -> tuple[Sampler, Committer, Schedule, Cache | None]:
    """Sampler, committer, schedule and cache of a call."""

    def sampler(algorithm: str, timesteps: Timesteps | None = None) -> DreamSampler:
        return DreamSampler(algorithm, draws, top_p=arguments.top_p, top_k=arguments.top_k, timesteps=timesteps)

    rule: Committer = Drawn(arguments.alg_temp, draws) if arguments.alg_temp else TopK()
    steps = policy.steps_per_block
    if _FAST.search(source):
        cache = DualCache() if arguments.dual_cache else PrefixCache()
        if arguments.alg == "confidence_threshold":
            return Opening(_everywhere(sampler("maskgit_plus"), mask)), Threshold(arguments.threshold), UntilClean(steps, least=2), cache
        # As published, every other algorithm ranks by entropy here.
        return Opening(_until(steps, sampler("entropy"))), rule, _pooled(OpenedTimesteps(steps, arguments.eps)), cache
    if arguments.alg not in get_args(Algorithm) or (_FLASH.search(source) and arguments.alg == "origin"):
        raise NotReplayableError(f"alg = {arguments.alg} is not implemented")
    if _FLASH.search(source):
        return (
            _within_block(sampler(arguments.alg)),
            rule,
            SharedTimesteps(torch.full((1, policy.blocks), policy.block_length), steps, arguments.eps),
            FreeCache(),
        )
    timesteps = Timesteps(steps, arguments.eps)
    return sampler(arguments.alg, timesteps), Certain() if arguments.alg == "origin" else rule, _pooled(timesteps), None


def _everywhere(sampler: Sampler, mask: int) -> Sampler:
    """As published, a candidate is drawn for every mask that is fed, those behind the block included."""

    def sample(logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
        if sampling.eligible is not None and sampling.canvas is not None:
            sampling = replace(sampling, eligible=sampling.canvas[:, sampling.positions] == mask)
        return sampler(logits, sampling)

    return sample


def _within_block(sampler: Sampler) -> Sampler:
    """As published, a mask that was committed in an earlier block stays, although its row may be fed."""

    def sample(logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
        assert sampling.eligible is not None
        assert sampling.block is not None
        inside = (sampling.positions >= sampling.block.start) & (sampling.positions < sampling.block.stop)
        tokens, confidence = sampler(logits, replace(sampling, eligible=sampling.eligible & inside))
        return tokens, confidence.masked_fill(~inside, -torch.inf)

    return sample


def _until(steps: int, sampler: Sampler) -> Sampler:
    """As published, nothing is drawn in the forward pass after a block's last step."""

    def sample(logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
        if sampling.block_step < steps:
            return sampler(logits, sampling)
        return torch.zeros(logits.shape[:-1], dtype=torch.int64), logits.new_zeros(logits.shape[:-1])

    return sample


def _pooled(schedule: Schedule) -> Schedule:
    """As published, all rows of a batch commit as many, by the mean of their masks; they differ once a row commits the mask token."""

    def plan(step: int, masks_at_start: Tensor, masks: Tensor) -> Tensor | None:
        counts = schedule(step, masks_at_start, (masks.sum() / len(masks)).expand(len(masks)))
        return None if counts is None else counts.long()

    return plan


def _decoding_events(case: Case, top_k: int | None) -> list[Event]:
    """The events without the calls of `torch.topk` that cut the vocabulary to `top_k` tokens."""
    if top_k is None:
        return case.events
    canvas = len(case.output_ids[0])
    return [event for event in case.events if not (isinstance(event, TopKEvent) and len(event.conf[0]) > canvas)]


class _FollowedDraws(TorchDraws):
    """PyTorch's draws, compared with the recorded ones."""

    def __init__(self, seed: int, events: Events) -> None:
        super().__init__(seed)
        self._events = events

    def categorical(self, step: int, positions: Tensor, probabilities: Tensor) -> Tensor:
        return self._checked(super().categorical(step, positions, probabilities))

    def uniforms(self, step: int, positions: Tensor) -> Tensor:
        return self._checked(super().uniforms(step, positions))

    def distinct(self, weights: Tensor, count: int) -> Tensor:
        return self._checked(super().distinct(weights, count))

    def _checked(self, values: Tensor) -> Tensor:
        self._events.take(Draw).check(values)
        return values


class _FollowedSampler:
    """A sampler; a committed token that the recording chose otherwise is accepted at temperature 0 if its logit ties with the largest."""

    def __init__(self, sampler: Sampler, case: Case, tolerance: Tolerance) -> None:
        self._sampler, self._canvases, self._tolerance = sampler, recorded_canvases(case), tolerance
        self.logits, self.window, self.block_step = torch.empty(0), range(0), 0
        self.filled_with: int | None = None  # after the last step, the masks that an early stop left
        self.ties = 0

    def __call__(self, logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
        candidates, confidence = self._sampler(logits, sampling)
        self.logits, self.block_step = logits, sampling.block_step
        self.window = range(int(sampling.positions[0]), int(sampling.positions[-1]) + 1)
        if sampling.step + 1 >= len(self._canvases):
            raise MismatchError(f"the replay goes on with step {sampling.step} where the recording ends")
        before, after = (canvas[:, self.window.start : self.window.stop] for canvas in self._canvases[sampling.step : sampling.step + 2])
        if before.shape != candidates.shape or int(after.max()) >= logits.shape[-1]:
            raise MismatchError(f"corrupt case: the canvas after step {sampling.step} has another shape or unknown tokens")
        differs = (before != after) & (candidates != after)
        if self.filled_with is not None and sampling.step + 2 == len(self._canvases):
            differs &= after != self.filled_with
        if not bool(differs.any()):
            return candidates, confidence
        gap = (logits.amax(dim=-1) - logits.gather(-1, after[..., None]).squeeze(-1)).double()
        if sampling.temperature > 0 or bool((wrong := differs & ~(gap <= self._tolerance.logits(logits))).any()):
            row, position = (differs if sampling.temperature > 0 else wrong).nonzero()[0].tolist()
            token, recorded = candidates[row, position], after[row, position]
            raise MismatchError(
                f"step {sampling.step}: the token of row {row}, position {self.window[position]} is {token}; recorded {recorded}"
            )
        self.ties += int(differs.sum())
        return torch.where(differs, after, candidates), confidence


class _FollowedCommitter:
    """A rule, compared with the `topk` events; where confidences tie, the recorded choice is taken.

    Dream ranks the whole batch in one call over the rows that were fed, FlashDLM (`flat`) the masked positions only. No call is recorded
    where nothing is to be committed, where the choice is drawn, and in the step that opens a block of Fast-dLLM.
    """

    def __init__(
        self, rule: Committer, events: Events, sampler: _FollowedSampler, tolerance: Tolerance, *, opening: bool, flat: bool
    ) -> None:
        self._rule, self._events, self._sampler, self._tolerance = rule, events, sampler, tolerance
        self._opening, self._flat = opening, flat
        self._step = 0
        self.ties = 0

    def __call__(self, confidence: Tensor, counts: Tensor) -> Tensor:
        what = f"step {self._step}"
        self._step += 1
        committed = torch.zeros_like(confidence, dtype=torch.bool)
        place = torch.tensor(list(self._sampler.window))
        if self._flat:
            place = place[confidence[0, place] != -torch.inf]
        ranked = confidence[:, place]
        if self._opening and self._sampler.block_step == 0:
            committed[:, place] = TopK()(ranked, counts)
        elif isinstance(self._rule, Certain | Drawn):
            committed[:, place] = self._rule(ranked, counts)
        elif isinstance(self._rule, Threshold) or int(counts.max()):
            committed[:, place] = self._compared(ranked, counts, place, what)
        return committed

    def _compared(self, confidence: Tensor, counts: Tensor, place: Tensor, what: str) -> Tensor:
        event, eligible = self._events.take(TopKEvent), confidence != -torch.inf
        recorded = rectangle(event.conf, "conf")
        k = int(eligible.sum()) if isinstance(self._rule, Threshold) else int(counts.max())
        if (event.k, event.dtype) != (k, str(confidence.dtype)):
            raise MismatchError(f"{what}: top {k} of {confidence.dtype}; recorded top {event.k} of {event.dtype}")
        if recorded.shape != confidence.shape or not torch.equal(recorded != -torch.inf, eligible):
            raise MismatchError(f"{what}: other positions are eligible than recorded")
        logits = self._sampler.logits[:, place - self._sampler.window.start]
        allowed = self._tolerance.probability(torch.ones_like(recorded), logits, guided=False) * (1 + recorded.nan_to_num(neginf=0.0).abs())
        close(confidence.double()[eligible], recorded[eligible], allowed[eligible], f"{what}: confidence of the eligible positions")
        indices = rectangle(event.indices, "indices").long()
        if indices.shape != (len(confidence), k) or not bool(((indices >= 0) & (indices < confidence.shape[1])).all()):
            raise MismatchError(f"corrupt case: {what}: indices of shape {list(indices.shape)} for k = {k}")
        chosen = torch.zeros_like(eligible).scatter(-1, indices, True)
        own, ruled = self._rule(confidence, counts), self._rule(recorded, counts)
        if isinstance(self._rule, Threshold):
            chosen = ruled
        if torch.equal(own, chosen):
            return own
        disputed = ruled != chosen
        spread = confidence.double()[disputed]
        if not torch.equal(ruled.sum(-1), chosen.sum(-1)) or (
            bool(disputed.any()) and spread.max() - spread.min() > 2 * allowed[disputed].max()
        ):
            raise MismatchError(f"{what}: commits {own.nonzero()[:, 1].tolist()}; recorded {chosen.nonzero()[:, 1].tolist()}")
        self.ties += 1
        return chosen


def _recognises(source: str) -> bool:
    return any(pattern.search(source) for pattern in (_PLAIN, _FAST, _FLASH))


RUNNER = Runner(recognises=_recognises, run=_run)

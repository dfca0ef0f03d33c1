"""Following a recording through the seams of `generate`: what the replays of every kind share.

A replay runs `generate` with a model, a noise source, a sampler and a committer that each compare what passes with the next recorded
event. Where values tie, they take the recorded choice, so that later steps stay comparable.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from unmask.decoding.commit import Committer
from unmask.decoding.commit import TopK as TopKCommitter
from unmask.decoding.evaluate import MaskPredictor, ModelConfig
from unmask.decoding.golden.case import Case, Draw, Events, Forward, MismatchError, TopK, rectangle
from unmask.decoding.golden.tolerance import Tolerance
from unmask.decoding.noise import TorchNoise
from unmask.decoding.sampler import FloatSampler, Sampling
from unmask.models.layers import LayerRunner, Rows


def recorded_logits(file: Path, case: Case) -> dict[str, Tensor]:
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


def same_ids(found: Tensor, recorded: list[list[int]], what: str) -> None:
    """Raise `MismatchError` unless the ids, named `what` in the message, are the recorded ones."""
    expected = rectangle(recorded, what).long()
    if found.shape != expected.shape:
        raise MismatchError(f"{what} has shape {list(found.shape)}; recorded {list(expected.shape)}")
    if not torch.equal(found, expected):
        row, position = (found != expected).nonzero()[0].tolist()
        raise MismatchError(f"{what}: row {row}, position {position} is {found[row, position]}; recorded {expected[row, position]}")


def close(found: Tensor, expected: Tensor, allowed: Tensor, what: str) -> None:
    """Raise `MismatchError` unless the numbers, named `what` in the message, differ by no more than `allowed`."""
    if found.shape != expected.shape:
        raise MismatchError(f"{what} has shape {list(found.shape)}; recorded {list(expected.shape)}")
    excess = (found - expected).abs() - allowed
    if not bool((excess <= 0).all()):  # written so that NaN fails
        place = tuple(int(i) for i in (~(excess <= 0)).nonzero()[0])
        raise MismatchError(f"{what} at {list(place)} is {found[place]:.6g}; recorded {expected[place]:.6g}, allowed {allowed[place]:.1g}")


def fed_positions(event: Forward, canvas_length: int) -> range:
    """The canvas positions of the ids of a forward pass: all, a window, or what is left behind the cached ones."""
    if event.replace_positions is not None:
        return range(event.replace_positions[0], event.replace_positions[-1] + 1)
    return range(canvas_length - len(event.ids[0]), canvas_length)


def recorded_canvases(case: Case) -> list[Tensor]:
    """The canvas before every forward pass and after the last one, int64 [batch, positions], from the ids that were fed.

    Raises:
        MismatchError: the ids fed do not fit the canvas.
    """
    canvas = rectangle(case.output_ids, "output_ids").long()
    canvases = [canvas]
    for event in reversed([event for event in case.events if isinstance(event, Forward)]):
        ids = rectangle(event.ids[: len(canvas)], "ids").long()
        place = fed_positions(event, canvas.shape[1])
        if place.start < 0 or ids.shape != (len(canvas), len(place)) or place.stop > canvas.shape[1]:
            raise MismatchError(f"corrupt case: {list(ids.shape)} ids at positions {place.start} to {place.stop}")
        canvas = torch.cat((canvas[:, : place.start], ids, canvas[:, place.stop :]), dim=1)
        canvases.append(canvas)
    return canvases[::-1]


class FollowedModel:
    """The network, its inputs and outputs compared with the `forward` events."""

    def __init__(self, model: MaskPredictor, events: Events, logits: dict[str, Tensor], tolerance: Tolerance) -> None:
        self._model, self._events, self._logits, self._tolerance = model, events, logits, tolerance
        self._forwards = self._length = 0
        self._event: Forward
        self.ties = 0

    @property
    def config(self) -> ModelConfig:
        return self._model.config

    def hidden(
        self, ids: Tensor, attention_mask: Tensor | None = None, *, positions: Rows | None = None, layers: LayerRunner | None = None
    ) -> Tensor:
        event = self._event = self._events.take(Forward)
        what = f"forward {self._forwards}"
        same_ids(ids, event.ids, f"{what}: ids")
        positions = range(ids.shape[1]) if positions is None else positions
        assert isinstance(positions, range), "no recorded cache feeds other rows"
        if event.replace_positions is not None and list(positions) != event.replace_positions:
            raise MismatchError(f"{what}: replaces positions {positions.start} to {positions.stop}; recorded {event.replace_positions}")
        if event.past_len is not None and event.past_len != (self._length if event.replace_positions else positions.start):
            raise MismatchError(f"{what}: feeds from position {positions.start}; recorded {event.past_len} cached positions")
        self._length = max(self._length, positions.stop)
        return self._model.hidden(ids, attention_mask, positions=positions, layers=layers)

    def guidance(self, conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        return self._model.guidance(conditional, unconditional, scale)

    def logits(self, hidden: Tensor) -> Tensor:
        logits = self._model.logits(hidden)
        event, what, wide = self._event, f"forward {self._forwards}", logits.double()
        largest = torch.softmax(wide, dim=-1).amax(dim=-1)
        allowed = self._tolerance.probability(largest, logits, guided=False)
        close(largest, rectangle(event.max_prob_f64, "max_prob_f64"), allowed, f"{what}: max_prob_f64")
        self._compare_argmax(logits, rectangle(event.argmax, "argmax").long(), what)
        if event.logits_key is not None:
            allowed = self._tolerance.logits(logits)[..., None].expand_as(wide)
            close(wide, self._logits[event.logits_key].double(), allowed, f"{what}: {event.logits_key}")
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


class FollowedNoise(TorchNoise):
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

    def discard(self, positions: Tensor, batch: int, vocab_size: int) -> None:
        """Draw what the recording drew and did not use."""
        self._events.take(Draw).check(super().token_uniforms(-1, positions, batch, vocab_size))

    def position_uniforms(self, step: int, positions: Tensor, batch: int) -> Tensor:
        drawn = super().position_uniforms(step, positions, batch)
        self._events.take(Draw).check(drawn)
        return drawn


class FollowedSampler(FloatSampler):
    """LLaDA's sampler; a committed token that the recording chose otherwise is accepted if its score ties within the tolerance."""

    def __init__(self, case: Case, tolerance: Tolerance, confidence: torch.dtype | None = None) -> None:
        super().__init__(confidence)
        self._canvases = recorded_canvases(case)
        self._tolerance = tolerance
        self.logits, self.window = torch.empty(0), range(0)
        self.ties = 0

    def __call__(self, logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
        candidates, confidence = super().__call__(logits, sampling)
        self.logits, self.window = logits, range(int(sampling.positions[0]), int(sampling.positions[-1]) + 1)
        if sampling.step + 1 >= len(self._canvases):
            raise MismatchError(f"the replay goes on with step {sampling.step} where the recording ends")
        before, after = self._canvases[sampling.step : sampling.step + 2]
        if int(after.max()) >= logits.shape[-1] or before.shape[1] < self.window.stop:
            raise MismatchError(f"corrupt case: the canvas after step {sampling.step} has another shape or unknown tokens")
        before, after = (canvas[:, self.window.start : self.window.stop] for canvas in (before, after))
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


class FollowedCommitter:
    """A rule of LLaDA or Fast-dLLM, compared with the `topk` events, one per row. Where confidences tie, the recorded choice is taken."""

    def __init__(
        self, rule: Committer, events: Events, sampler: FollowedSampler, tolerance: Tolerance, threshold: float | None = None
    ) -> None:
        """Follow a rule.

        Args:
            rule: what is replayed.
            threshold: if not None, the recording ranked all candidates, and then dropped those below it but for the first.
        """
        self._rule, self._events, self._sampler, self._tolerance, self._threshold = rule, events, sampler, tolerance, threshold
        self._step = 0
        self.ties = 0

    def __call__(self, confidence: Tensor, counts: Tensor) -> Tensor:
        own = self._rule(confidence, counts)
        window = slice(self._sampler.window.start, self._sampler.window.stop)
        sampled = confidence[:, window]
        wide = sampled.double()
        p = wide.masked_fill(sampled == -torch.inf, 0.0)
        allowed = self._tolerance.probability(p, self._sampler.logits, guided=True)
        for row in range(len(own)):
            what = f"step {self._step}, row {row}"
            own[row, window] = self._row(wide[row], own[row, window], allowed[row], counts[row], str(confidence.dtype), what)
        self._step += 1
        return own

    def _row(self, confidence: Tensor, own: Tensor, allowed: Tensor, count: Tensor, dtype: str, what: str) -> Tensor:
        event = self._events.take(TopK)
        recorded, eligible = torch.tensor(event.conf[0], dtype=torch.float64), confidence != -torch.inf
        indices = event.indices[0]
        if event.dtype != dtype:
            raise MismatchError(f"{what}: confidence is {dtype}; recorded {event.dtype}")
        if recorded.shape != confidence.shape or not torch.equal(recorded != -torch.inf, eligible):
            raise MismatchError(f"{what}: other positions are eligible than recorded")
        close(confidence[eligible], recorded[eligible], allowed[eligible], f"{what}: confidence of the eligible positions")
        # On the recorded numbers, so that a confidence within rounding of a bar falls on the recorded side of it.
        ruled = self._rule(recorded[None], count[None])[0]
        k = int(count) if isinstance(self._rule, TopKCommitter) else int((ruled if self._threshold is None else eligible).sum())
        if event.k != k:
            raise MismatchError(f"{what}: top {k}; recorded top {event.k}")
        if len(set(indices)) != k or not all(0 <= index < len(own) for index in indices):
            raise MismatchError(f"corrupt case: {what}: {len(indices)} indices for k = {k}")
        kept = [index for rank, index in enumerate(indices) if self._threshold is None or rank == 0 or recorded[index] >= self._threshold]
        chosen = torch.zeros_like(own)
        chosen[kept] = True
        chosen &= eligible
        if torch.equal(own, chosen):
            return own
        # Both are choices of the rule if the positions on which they disagree tie with one another.
        disputed = ruled != chosen
        if int(ruled.sum()) != int(chosen.sum()):
            raise MismatchError(f"{what}: commits {int(ruled.sum())} positions; recorded {int(chosen.sum())}")
        if bool(disputed.any()) and confidence[disputed].max() - confidence[disputed].min() > 2 * allowed[disputed].max():
            raise MismatchError(f"{what}: commits positions {own.nonzero()[:, 0].tolist()}; recorded {chosen.nonzero()[:, 0].tolist()}")
        self.ties += 1
        return chosen

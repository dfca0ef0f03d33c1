"""Denoising a canvas, block by block and step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unmask.decoding.cache.base import Cache
from unmask.decoding.commit import Committer
from unmask.decoding.compose import cache_of, committer_of, sampler_of, schedule_of, stop_of
from unmask.decoding.dream import TorchDraws
from unmask.decoding.evaluate import Evaluator, MaskPredictor
from unmask.decoding.guided import Guide
from unmask.decoding.noise import NoiseSource, TorchNoise
from unmask.decoding.policy import Policy
from unmask.decoding.sampler import Sampler, Sampling
from unmask.decoding.schedule import Schedule
from unmask.errors import UnmaskError
from unmask.models.layers import row_index


@dataclass(frozen=True)
class StepRecord:
    """What one denoising step did. Tensors are over the whole canvas, [batch, positions], and nobody modifies them later.

    Attributes:
        step: counted over the whole generation.
        block: counted from 0.
        start, end: canvas positions [start, end) of the block.
        fed: int64, the ids that went through the network (twice the batch under guidance).
        candidates: int64, the sampler's token where a position was eligible, the canvas elsewhere.
        confidence: floating point, -inf where a position was not eligible.
        committed: bool, the positions that took their candidate.
        canvas: int64, after the step.
    """

    step: int
    block: int
    start: int
    end: int
    fed: Tensor
    candidates: Tensor
    confidence: Tensor
    committed: Tensor
    canvas: Tensor

    def positions(self, row: int = 0) -> list[int]:
        """The canvas positions committed in one row of the batch, ascending."""
        return [int(position) for position in self.committed[row].nonzero()[:, 0]]

    def tokens(self, row: int = 0) -> list[int]:
        """The tokens committed at `positions(row)`."""
        return [int(token) for token in self.candidates[row][self.committed[row]]]


@dataclass(frozen=True)
class Generation:
    """The result of `generate`.

    Attributes:
        ids: int64 [batch, prompt + gen_length], the prompt and what followed, a template's given tokens included; nothing is cut.
        prompt_length: where the new tokens begin.
        n_forward: forward passes of the network.
        steps: one record per denoising step.
    """

    ids: Tensor
    prompt_length: int
    n_forward: int
    steps: tuple[StepRecord, ...]

    def new_tokens(self, row: int = 0, eos_token_id: int | None = None) -> list[int]:
        """The generated tokens of one row, cut before the first `eos_token_id` if one is given."""
        tokens = [int(token) for token in self.ids[row, self.prompt_length :]]
        return tokens[: tokens.index(eos_token_id)] if eos_token_id in tokens else tokens


@torch.no_grad()
def generate(
    model: MaskPredictor,
    prompt_ids: Tensor | Sequence[Sequence[int]],
    policy: Policy,
    *,
    template: Tensor | Sequence[Sequence[int]] | None = None,
    attention_mask: Tensor | Sequence[Sequence[int]] | None = None,
    guide: Guide | None = None,
    noise: NoiseSource | None = None,
    sampler: Sampler | None = None,
    committer: Committer | None = None,
    schedule: Schedule | None = None,
    cache: Cache | None = None,
    stop: Callable[[StepRecord], bool] | None = None,
    on_step: Callable[[StepRecord], None] | None = None,
) -> Generation:
    """Unmask block by block, by the parts that the policy names (`unmask.decoding.compose`). Ties go to the lowest index. Parts that are
    given replace the policy's, and compose freely but for one rule: with a schedule that waits for a clean block the committer must
    always commit something.

    Args:
        model: the network.
        prompt_ids: int64 [batch, prompt]; rows of different length are padded on the left. With a template, there may be no prompt.
        policy: what to generate and how. With `exclude_mask` only the active block is sampled; without it every position that
            is fed, as the references do, which matters to the order of random draws and to masks left behind.
        template: int64 [batch, gen_length], what the generated positions hold at first: mask tokens are gaps to be filled, all others
            stay. A block without gaps takes no step. None: all gaps.
        attention_mask: bool or 0/1 [batch, prompt], False at padding; None if there is none.
        guide: of the commit `guided`.
        noise: random numbers of LLaDA's sampler; None: PyTorch's generator seeded with `policy.seed`.
        sampler: candidate and confidence from logits.
        committer: which candidates to commit.
        schedule: how many candidates each step commits and when a block is done.
        cache: which rows each step feeds. A new one for every generation.
        stop: asked after every denoising step whether to end here; the masks that are left become end-of-text tokens.
        on_step: called after every denoising step.

    Raises:
        UnmaskError: an empty prompt, one with tokens outside the vocabulary or (under `exclude_mask`) with mask tokens, one that
            does not fit the model's context; a template of another shape, without a gap, or with tokens outside the vocabulary; an
            attention mask of another shape; a policy for one row and a batch of several; parts of the policy that do not go with this
            network, or a guide that does not; a block that will never be clean because the mask token was committed (without
            `exclude_mask`).
    """
    config = model.config
    prompt = _checked_prompt(prompt_ids, policy, model, may_be_empty=template is not None)
    batch, prompt_length = prompt.shape
    canvas = torch.cat((prompt, _checked_template(template, policy, model, prompt)), dim=1)
    visible = _visible(attention_mask, prompt, policy)
    blocks = (canvas[:, prompt_length:] == config.mask_token_id).view(batch, policy.blocks, -1).sum(dim=2)
    _check_batch(policy, batch)

    draws, noise = TorchDraws(policy.seed), noise or TorchNoise(policy.seed)
    sampler = sampler or sampler_of(policy, config, draws=draws, guide=guide)
    committer, schedule = committer or committer_of(policy, draws), schedule or schedule_of(policy, config, blocks)
    stop = stop or stop_of(policy, config)
    evaluate = Evaluator(model, canvas != config.mask_token_id, prompt_length, policy.cfg_scale, visible, cache or cache_of(policy))
    excluded, deferred = policy.excluded(config.mask_token_id, config.eos_token_id), policy.deferred(config.eos_token_id)
    everywhere = torch.arange(canvas.shape[1], device=canvas.device)

    records: list[StepRecord] = []
    for block in range(policy.blocks):
        active = range(prompt_length + block * policy.block_length, prompt_length + (block + 1) * policy.block_length)
        masks_at_start = masks = blocks[:, block]
        index = 0
        while bool(masks_at_start.any()) and (counts := schedule(index, masks_at_start, masks)) is not None:
            evaluation = evaluate(canvas, active, index, active if policy.exclude_mask else None)
            window = row_index(evaluation.window)
            eligible = _onto_canvas((canvas == config.mask_token_id)[:, window], window, torch.zeros_like(canvas, dtype=torch.bool))
            eligible[:, active.stop :] = False
            sampling = Sampling(
                len(records),
                everywhere[window],
                policy.temperature,
                policy.remasking,
                excluded,
                deferred,
                noise,
                eligible[:, window],
                active,
                index,
                canvas,
            )
            sampled, sampled_confidence = sampler(evaluation.logits, sampling)

            candidates = torch.where(eligible, _onto_canvas(sampled, window, canvas), canvas)
            nowhere = sampled_confidence.new_full(canvas.shape, -torch.inf)
            confidence = _onto_canvas(sampled_confidence, window, nowhere).masked_fill(~eligible, -torch.inf)
            committed = committer(confidence, counts)
            canvas = torch.where(committed, candidates, canvas)
            masks = (canvas[:, active.start : active.stop] == config.mask_token_id).sum(dim=1)
            index += 1

            record = StepRecord(len(records), block, active.start, active.stop, evaluation.fed, candidates, confidence, committed, canvas)
            records.append(record)
            if on_step is not None:
                on_step(record)
            if stop is not None and stop(record):
                canvas = canvas.masked_fill(canvas == config.mask_token_id, config.eos_token_id)
                return Generation(ids=canvas, prompt_length=prompt_length, n_forward=len(records), steps=tuple(records))
    return Generation(ids=canvas, prompt_length=prompt_length, n_forward=len(records), steps=tuple(records))


def _onto_canvas(values: Tensor, window: slice | Tensor, background: Tensor) -> Tensor:
    whole = background.clone()
    whole[:, window] = values
    return whole


def _check_batch(policy: Policy, batch: int) -> None:
    for what, asked in (("commit 'guided'", policy.commit == "guided"), ("early_stop", policy.early_stop > 0)):
        if asked and batch > 1:
            raise UnmaskError(f"{what} decodes one row; the batch has {batch}")


def _checked_prompt(prompt_ids: Tensor | Sequence[Sequence[int]], policy: Policy, model: MaskPredictor, *, may_be_empty: bool) -> Tensor:
    config = model.config
    try:
        prompt = torch.as_tensor(prompt_ids, dtype=torch.int64)
    except ValueError:
        raise UnmaskError("the rows of prompt_ids differ in length; pad them on the left") from None
    if prompt.ndim != 2:
        raise UnmaskError(f"prompt_ids has shape {list(prompt.shape)}; [batch, positions] is needed")
    if prompt.numel() == 0 and not (may_be_empty and len(prompt)):
        raise UnmaskError("the prompt is empty; at least one token is needed")
    if not bool(((prompt >= 0) & (prompt < config.vocab_size)).all()):
        raise UnmaskError(f"the prompt holds a token outside the vocabulary of {config.vocab_size}")
    if policy.exclude_mask and bool((prompt == config.mask_token_id).any()):
        raise UnmaskError(f"the prompt holds the mask token {config.mask_token_id}, which only generated positions may")
    if policy.eot_token_id is not None and not 0 <= policy.eot_token_id < config.vocab_size:
        raise UnmaskError(f"eot_token_id is {policy.eot_token_id}, outside the vocabulary of {config.vocab_size}")
    length = prompt.shape[1] + policy.gen_length
    if length > config.max_sequence_length:
        raise UnmaskError(
            f"a prompt of {prompt.shape[1]} tokens and gen_length {policy.gen_length} need {length} positions; "
            f"the model's context has {config.max_sequence_length}"
        )
    return prompt


def _checked_template(template: Tensor | Sequence[Sequence[int]] | None, policy: Policy, model: MaskPredictor, prompt: Tensor) -> Tensor:
    """What the generated positions hold at first, int64 [batch, gen_length]."""
    config, shape = model.config, (len(prompt), policy.gen_length)
    if template is None:
        return prompt.new_full(shape, config.mask_token_id)
    try:
        given = torch.as_tensor(template, dtype=torch.int64, device=prompt.device)
    except ValueError:
        raise UnmaskError("the rows of the template differ in length") from None
    if given.shape != shape:
        raise UnmaskError(f"the template has shape {list(given.shape)}; [batch, gen_length] is {list(shape)} here")
    if not bool(((given >= 0) & (given < config.vocab_size)).all()):
        raise UnmaskError(f"the template holds a token outside the vocabulary of {config.vocab_size}")
    gaps = given == config.mask_token_id
    if not bool(gaps.any(dim=1).all()):
        raise UnmaskError(f"the template has no gap: at least one position must hold the mask token {config.mask_token_id}")
    if policy.commit == "guided" and prompt.shape[1] == 0 and bool(gaps[:, 0].any()):
        raise UnmaskError("commit 'guided' needs a token before the first gap, for the guide to go on from")
    return given


def _visible(attention_mask: Tensor | Sequence[Sequence[int]] | None, prompt: Tensor, policy: Policy) -> Tensor | None:
    """The attention mask of the whole canvas, or None if every position may be seen."""
    if attention_mask is None:
        return None
    mask = torch.as_tensor(attention_mask, device=prompt.device).bool()
    if mask.shape != prompt.shape:
        raise UnmaskError(f"attention_mask has shape {list(mask.shape)}; that of the prompt is {list(prompt.shape)}")
    if not policy.honour_padding or bool(mask.all()):
        return None
    return torch.cat((mask, mask.new_ones((mask.shape[0], policy.gen_length))), dim=1)

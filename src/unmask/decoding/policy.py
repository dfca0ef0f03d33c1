"""What a user chooses about decoding, checked once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from unmask.errors import UnmaskError

Remasking = Literal["low_confidence", "random", "maskgit_plus", "topk_margin", "entropy", "origin"]
ScheduleName = Literal["uniform", "timesteps", "shared_timesteps"]
CommitName = Literal["schedule", "threshold", "factor", "guided"]

DREAM_SCORERS = ("maskgit_plus", "topk_margin", "entropy", "origin")
"""Dream's (arXiv 2508.15487): they see the distribution after temperature, `top_p` and `top_k`; LLaDA's see it before."""

_PROBABILITIES = ("low_confidence", "maskgit_plus", "topk_margin")
"""Scorers whose confidence lies in [0, 1] and means the same at every step, so that a bar can be put before it."""


@dataclass(frozen=True)
class Policy:
    """How a canvas is unmasked: which rows are fed, what scores a candidate, how many and which candidates commit.

    The parts compose. LLaDA's decoding (Nie et al., arXiv 2502.09992) is the default, Fast-dLLM's (Wu et al., arXiv 2505.22618) a `cache`
    with a `threshold` or `factor` commit, Dream's (Ye et al., arXiv 2508.15487) a scorer with the schedule `timesteps`, FlashDLM's (Hu
    et al., arXiv 2505.21467) the cache `freecache` or the commit `guided`.

    Attributes:
        gen_length: new tokens, appended to the prompt as masks; under a template, the positions from its first gap on.
        block_length: the canvas is unmasked block by block, left to right; equal to `gen_length` for plain decoding.
        steps: denoising steps in total, the same number for every block; where blocks end once they are clean, the steps that the counts
            are spread over.
        temperature: 0 takes the arg-max; above, Gumbel-max sampling.
        cfg_scale: classifier-free guidance: 0 is none, else `lu + (scale + 1) (lc - lu)` with `lu` from a masked prompt.
        remasking: what ranks the candidates of a step. LLaDA's: `low_confidence`, the probability, or `random`, a uniform draw. Dream's:
            see `unmask.decoding.dream.DreamSampler`.
        schedule: how many candidates commit in a step: `uniform` is LLaDA's, `timesteps` Dream's, `shared_timesteps` FlashDLM's.
        commit: which candidates do: the scheduled number of best ones; all above a `threshold`; those that clear the bars of a `factor`; or
            those that an autoregressive guide accepts.
        cache: which rows each step feeds: `none` feeds the whole canvas, all others are in `unmask.decoding.cache.registry.caches`.
        threshold: of the commit `threshold`, in (0, 1].
        factor: of the commit `factor`, positive.
        top_p, top_k: Dream's cuts of the distribution; None keeps all tokens.
        alg_temp: above 0, positions are drawn from the softmax of `confidence / alg_temp` instead of ranked (Dream's).
        eps: where the time of Dream's schedules ends.
        accept_top_k, accept_ratio: the guide lets a draft pass that is among its `accept_top_k` best tokens and at least `accept_ratio`
            times as probable as its best; 1 asks for its arg-max.
        early_stop: end once so many end-of-text tokens stand in a row with nothing masked before them; 0 never does.
        exclude_mask: the mask token is no candidate, its logit is -inf. False is the reference's behaviour, where a mask can be
            "committed" and stay in the output.
        honour_padding: positions whose attention mask is False are invisible to attention. False is the reference's behaviour,
            which accepts the mask and disregards it.
        suppress_eos: the end-of-text token is no candidate, its logit is -inf.
        defer_eos: end-of-text tokens may win but with the confidence of a token that has no probability, so they commit last; under
            `random`, as published, nothing changes.
        eot_token_id: a second end token (LLaDA-8B: 126348) that `defer_eos` covers.
        seed: of the default noise source.

    Raises:
        UnmaskError: a value out of range, a block length that does not divide, steps that do not spread over the blocks, or parts that
            do not go together.
    """

    gen_length: int
    block_length: int
    steps: int
    temperature: float = 0.0
    cfg_scale: float = 0.0
    remasking: Remasking = "low_confidence"
    schedule: ScheduleName = "uniform"
    commit: CommitName = "schedule"
    cache: str = "none"
    threshold: float = 0.9
    factor: float = 1.0
    top_p: float | None = None
    top_k: int | None = None
    alg_temp: float = 0.0
    eps: float = 1e-3
    accept_top_k: int = 1
    accept_ratio: float = 0.0
    early_stop: int = 0
    exclude_mask: bool = True
    honour_padding: bool = True
    suppress_eos: bool = False
    defer_eos: bool = False
    eot_token_id: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("gen_length", "block_length", "steps", "accept_top_k"):
            _at_least(name, getattr(self, name), 1)
        _at_least("early_stop", self.early_stop, 0)
        if self.top_k is not None:
            _at_least("top_k", self.top_k, 1)
        if self.gen_length % self.block_length:
            raise UnmaskError(f"block_length {self.block_length} does not divide gen_length {self.gen_length}")
        if self.steps % self.blocks:
            raise UnmaskError(f"steps {self.steps} is not a multiple of the {self.blocks} blocks (gen_length / block_length)")
        for name in ("temperature", "cfg_scale", "alg_temp"):
            value = getattr(self, name)
            if not (isinstance(value, (int, float)) and math.isfinite(value) and value >= 0):
                raise UnmaskError(f"{name} is {value!r}; it must be a finite number of at least 0")
        for name, choices in (("remasking", Remasking), ("schedule", ScheduleName), ("commit", CommitName)):
            _one_of(name, getattr(self, name), get_args(choices))
        if self.cache != "none":
            from unmask.decoding.cache.registry import caches  # which loads PyTorch, and most commands need none of it

            _one_of("cache", self.cache, ("none", *caches()))
        if not 0 < self.threshold <= 1:
            raise UnmaskError(f"threshold is {self.threshold!r}; it must lie in (0, 1]")
        if not 0 < self.factor < math.inf:
            raise UnmaskError(f"factor is {self.factor!r}; it must be a positive number")
        if not 0 < self.eps < 1:
            raise UnmaskError(f"eps is {self.eps!r}; it must lie in (0, 1)")
        if self.top_p is not None and not 0 <= self.top_p <= 1:
            raise UnmaskError(f"top_p is {self.top_p!r}; it must lie in [0, 1]")
        if not 0 <= self.accept_ratio <= 1:
            raise UnmaskError(f"accept_ratio is {self.accept_ratio!r}; it must lie in [0, 1]")
        self._check_combination()

    def _check_combination(self) -> None:
        dream = self.remasking in DREAM_SCORERS
        for name, off in (("top_p", None), ("top_k", None), ("alg_temp", 0)):
            if not dream and getattr(self, name) != off:
                raise UnmaskError(f"{name} belongs to Dream's scorers ({', '.join(DREAM_SCORERS)}); remasking is {self.remasking!r}")
        if dream and self.defer_eos:
            raise UnmaskError(f"defer_eos belongs to LLaDA's scorers (low_confidence, random); remasking is {self.remasking!r}")
        if self.remasking == "origin" and (self.schedule, self.commit, self.alg_temp) != ("timesteps", "schedule", 0):
            raise UnmaskError("remasking 'origin' needs schedule 'timesteps', commit 'schedule' and alg_temp 0")
        if self.alg_temp and self.commit != "schedule":
            raise UnmaskError(f"alg_temp draws the scheduled number of positions; commit is {self.commit!r}, expected 'schedule'")
        if self.commit in ("threshold", "factor") and self.remasking not in _PROBABILITIES:
            raise UnmaskError(
                f"commit {self.commit!r} compares probabilities (remasking {', '.join(_PROBABILITIES)}); remasking is {self.remasking!r}"
            )
        if self.commit == "guided":
            if self.temperature or self.remasking != "low_confidence" or self.defer_eos:
                raise UnmaskError("commit 'guided' drafts the arg-max: expected temperature 0, remasking 'low_confidence' and no defer_eos")
            if self.blocks != 1:
                raise UnmaskError(f"commit 'guided' decodes one block; block_length {self.block_length} makes {self.blocks} of them")

    def excluded(self, mask_token_id: int, eos_token_id: int) -> tuple[int, ...]:
        """Tokens that are no candidates."""
        return (mask_token_id,) * self.exclude_mask + (eos_token_id,) * self.suppress_eos

    def deferred(self, eos_token_id: int) -> tuple[int, ...]:
        """Tokens that can win, but with no confidence."""
        end = () if self.eot_token_id is None else (self.eot_token_id,)
        return (eos_token_id, *end) if self.defer_eos else ()

    @property
    def blocks(self) -> int:
        return self.gen_length // self.block_length

    @property
    def steps_per_block(self) -> int:
        return self.steps // self.blocks


def _one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UnmaskError(f"{name} is {value!r}; supported: {', '.join(choices)}")


def _at_least(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or value < least:
        raise UnmaskError(f"{name} is {value!r}; it must be an integer of at least {least}")

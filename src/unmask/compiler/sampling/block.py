"""Samples the active block of every sequence: candidates and confidences, which of them commit, the new ids.

Phases: `sampling-0-cut` finds Dream's bounds, `sampling-1-confidence` streams logits, `sampling-2-scalars` turns sums into confidences,
`sampling-3-topk` marks positions, `sampling-4-select` puts candidates there. Sequences, row tiles, trials and chunks of the vocabulary are
hardware loops.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from unmask.compiler.context import Context
from unmask.compiler.emitter import Address, Value, Var
from unmask.compiler.sampling import dream, llada
from unmask.compiler.sampling.commit import Committing
from unmask.compiler.sampling.four_phase import FourPhase
from unmask.compiler.sampling.logits import Logits, LogitStream, Rows
from unmask.compiler.sampling.parameters import Sampled, StepParameters
from unmask.compiler.sampling.streamed import Sampler, SamplingProgram, SinglePass
from unmask.decoding.policy import DREAM_SCORERS, Policy
from unmask.errors import UnmaskError
from unmask.numerics import bf16
from unmask.quant.sampler import check_temperature

__all__ = ["Logits", "Sampled", "Scoring", "StepParameters", "commit_block", "sample_block"]


def sample_block(
    c: Context,
    logits: Logits,
    unconditional: Logits | None,
    policy: Policy,
    mask_token: int,
    eos_token: int,
    batch: int,
    length: int,
    canvas: int,
    p: StepParameters,
    *,
    opening: bool = False,
    program: SamplingProgram = "general",
    chunk: int | None = None,
) -> Sampled:
    """Sample and commit; with commit `guided` only sample: nothing is chosen, and the canvas stays.

    Args:
        c: the vector engine is home; tokens and choices stay allocated in its integer SRAM.
        logits: of `batch * length` rows, in HBM.
        unconditional: under guidance, of the same layout.
        policy: how.
        mask_token, eos_token: their ids.
        batch: sequences; they draw the same random numbers.
        length: positions of the block.
        canvas: integer SRAM address of the block's ids, `batch * length` words; committed candidates replace masks there.
        p: the step.
        opening: only the first masked position of each block commits (`unmask.decoding.dream.Opening`).
        program: "general", "four-phase" or "single-pass"; "fused" samples in the LM head and then calls `commit_block`.
        chunk: logits of a buffer of the program "four-phase".

    Raises:
        SramOverflow: an on-chip memory cannot hold the buffers of one row.
        UnmaskError: a temperature or a guidance scale that BF16 cannot hold; a policy that the program does not serve.
    """
    check_temperature(policy.temperature, policy.remasking)
    tokens = c.integers.take(batch * length, f"candidates of {batch} blocks of {length} positions")

    def scoring() -> Scoring:
        if program == "general":
            return _Scoring(c, logits, unconditional, policy, mask_token, eos_token, length, p, tokens, opening)
        sampler = Sampler.of(policy, mask_token, eos_token, length, p, tokens)
        return FourPhase(c, logits, sampler, chunk) if program == "four-phase" else SinglePass(c, logits, sampler)

    return commit_block(c, scoring, tokens, policy, mask_token, batch, length, canvas, p, opening=opening)


class Scoring(Protocol):
    """Finds candidates and confidences, sequence after sequence."""

    def emit(self, first: Var, confidence: int) -> Value:
        """Sample the sequence whose rows start at register `first`.

        Args:
            first: counted over all sequences.
            confidence: float SRAM address with room for a sequence's confidences.

        Returns:
            Where the confidences are in the float SRAM.
        """

    def release(self) -> None:
        """Give the registers back."""


def commit_block(
    c: Context,
    scoring_of: Callable[[], Scoring],
    tokens: int,
    policy: Policy,
    mask_token: int,
    batch: int,
    length: int,
    canvas: int,
    p: StepParameters,
    *,
    opening: bool,
) -> Sampled:
    """Score and commit, sequence after sequence; arguments as of `sample_block`.

    Args:
        scoring_of: makes what finds candidates and confidences; it may take all that is left of the memories.
        tokens: integer SRAM address of the candidates, `batch * length` words.
    """
    chosen = c.integers.take(batch * length, f"the choice of {batch} blocks of {length} positions")
    with c.vector.scope(), c.floats.scope(), c.integers.scope():
        room = c.scalars(length, f"confidences of {length} positions")
        with c.e.phase("sampling-3-topk"):
            committing = Committing(c, policy, mask_token, length, p, opening)
        scoring = scoring_of()
        first, commits = c.e.var(0), c.e.var(p.commits)
        with c.e.loop(batch, {first: length, commits: 1}):
            confidence = scoring.emit(first, room)
            active, choice = Address(first, canvas), Address(first, chosen)
            with c.e.phase("sampling-3-topk"):
                if policy.commit == "guided":
                    c.e.emit("I_FILL", dst=choice, value=0, count=length)
                else:
                    committing.emit(commits, active, confidence, choice)
            with c.e.phase("sampling-4-select"):
                if policy.commit != "guided":
                    c.e.emit("V_SELECT_INT", dst=active, mask=choice, a=Address(first, tokens), b=active, count=length)
        c.e.release(first, commits)
        scoring.release()
    return Sampled(tokens, chosen)


def _guidance_factor(scale: float) -> float:
    factor = bf16.rounded(scale + 1)
    if not math.isfinite(factor):
        raise UnmaskError(f"cfg_scale {scale:g} is beyond BF16; expected less than 3.4e38")
    return factor


class _Scoring:
    """Candidates and confidences of one sequence, tile of rows after tile."""

    def __init__(
        self,
        c: Context,
        logits: Logits,
        unconditional: Logits | None,
        policy: Policy,
        mask_token: int,
        eos_token: int,
        length: int,
        p: StepParameters,
        tokens: int,
        opening: bool,
    ) -> None:
        self._c, self._policy, self._length, self._p, self._tokens, self._logits = c, policy, length, p, tokens, logits
        self._dream = policy.remasking in DREAM_SCORERS
        self._confident = not opening and policy.commit != "guided" and policy.remasking != "random"
        self._uniform = not opening and policy.commit != "guided" and policy.remasking == "random"
        excluded, deferred = policy.excluded(mask_token, eos_token), policy.deferred(eos_token) if self._confident else ()
        scratch = dream.needs_scratch(policy, logits.vocabulary) if self._dream else llada.needs_scratch(policy.temperature, bool(deferred))
        factor = 1.0 if unconditional is None else _guidance_factor(policy.cfg_scale)
        floats, integers = (dream.FLOATS, dream.INTEGERS) if self._dream else (llada.FLOATS, 0)
        words = integers + len(excluded) + len(deferred)
        with c.e.phase("sampling-1-confidence"):
            self._stream = LogitStream(c, logits, unconditional, factor, length, scratch, floats, words)
            self._stream.exclude([self._word(token) for token in excluded])
            self._deferred = [self._word(token) for token in deferred]

    def _word(self, token: int) -> int:
        """Integer SRAM address of a token's id, one word per row of a tile."""
        rows = self._stream.rows
        at = self._c.integers.take(rows, f"a token's id for {rows} rows")
        self._c.e.emit("I_FILL", dst=at, value=token, count=rows)
        return at

    def emit(self, first: Var, confidence: int) -> Value:
        """Sample the sequence whose rows start at register `first`; confidences go to the float SRAM at `confidence`."""
        e, p, count = self._c.e, self._p, self._stream.rows
        with e.phase("sampling-1-confidence"):
            row, position, score = e.var(first), e.var(p.block_start), e.var(confidence)
            e.tiles(self._length, count, {row: count, position: count, score: count}, lambda n: self._rows(Rows(row, position, score, n)))
            e.release(row, position, score)
        if self._uniform:
            with e.phase("sampling-2-scalars"):
                e.emit("F_UNIFORM", dst=confidence, seed=p.seed, step=p.step, position=p.block_start, count=self._length)
        return confidence

    def _rows(self, rows: Rows) -> None:
        c, policy = self._c, self._policy
        with c.floats.scope(), c.integers.scope():
            if self._dream:
                dream.DreamScore(c, self._stream, rows, policy, self._logits.vocabulary, self._confident, self._p, self._tokens).emit()
            else:
                llada.score(c, self._stream, rows, policy.temperature, self._confident, self._p, self._tokens, self._deferred)

    def release(self) -> None:
        """Give the registers back."""
        self._stream.release()

"""The sampling programs that never wait for a row's maximum: what they sample, and the two that stream logits from HBM.

Their confidence is the candidate's weight over the window sum of its row (`unmask.numerics.window`), the same bits in all of them, so they
commit the same tokens; `unmask.quant.streaming` is their reference and docs/decisions/0007-single-pass-sampling.md says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from unmask.compiler.context import Context, Tile
from unmask.compiler.emitter import Address, Value, Var
from unmask.compiler.sampling.logits import Logits, LogitStream, Rows
from unmask.compiler.sampling.parameters import StepParameters
from unmask.decoding.policy import DREAM_SCORERS, Policy
from unmask.errors import UnmaskError
from unmask.numerics import bf16

SamplingProgram = Literal["general", "four-phase", "single-pass", "fused"]
PROGRAMS: tuple[SamplingProgram, ...] = get_args(SamplingProgram)


def sampling_named(name: str) -> SamplingProgram:
    """A sampling program by its name.

    Raises:
        UnmaskError: there is none of that name.
    """
    for program in PROGRAMS:
        if program == name:
            return program
    raise UnmaskError(f"sampling program {name!r}: expected one of {', '.join(PROGRAMS)}")


@dataclass(frozen=True)
class Sampler:
    """What is sampled of every sequence.

    Attributes:
        temperature: BF16 bits; 0 for the arg-max.
        excluded: ids of tokens that are no candidates and have no probability.
        uniform: confidences are uniform draws, not probabilities (the scorer `random`).
        length: rows of a sequence.
        p: the step.
        tokens: integer SRAM address of the candidates of row 0.
    """

    temperature: int
    excluded: tuple[int, ...]
    uniform: bool
    length: int
    p: StepParameters
    tokens: int

    @classmethod
    def of(cls, policy: Policy, mask_token: int, eos_token: int, length: int, p: StepParameters, tokens: int) -> Sampler:
        """What a policy samples.

        Raises:
            UnmaskError: the policy is not served: see `check_served`.
        """
        check_served(policy, eos_token)
        heat = int(bf16.to_bits(np.array(bf16.rounded(policy.temperature), np.float32)))
        return cls(heat, tuple(policy.excluded(mask_token, eos_token)), policy.remasking == "random", length, p, tokens)

    def words(self, c: Context, rows: int) -> list[int]:
        """Fill integer SRAM words with the excluded ids, one per row each; their addresses."""
        words = [c.integers.take(rows, f"a token's id for {rows} rows") for _ in self.excluded]
        for word, token in zip(words, self.excluded, strict=True):
            c.e.emit("I_FILL", dst=word, value=token, count=rows)
        return words

    def draw(self, c: Context, confidence: Value) -> None:
        """Replace the confidences of a sequence by uniform draws, if they are to be."""
        if self.uniform:
            with c.e.phase("sampling-2-scalars"):
                c.e.emit("F_UNIFORM", dst=confidence, seed=self.p.seed, step=self.p.step, position=self.p.block_start, count=self.length)


def check_served(policy: Policy, eos_token: int) -> None:
    """Check that the streaming programs can sample under a policy.

    Raises:
        UnmaskError: names what only the general program does.
    """
    wants = {
        f"scorer {policy.remasking!r}": policy.remasking in DREAM_SCORERS,
        f"cfg_scale {policy.cfg_scale:g}": bool(policy.cfg_scale),
        "defer_eos": bool(policy.deferred(eos_token)),
    }
    for what, asked in wants.items():
        if asked:
            raise UnmaskError(f"sampling programs {', '.join(PROGRAMS[1:])} do not serve {what}: expected sampling 'general'")


def sample(c: Context, x: Tile, s: Sampler, first: int, token: Value, position: Value, running: bool) -> None:
    """One V_SAMPLE over a tile of logits whose rows keep their state from row accumulator `first` on."""
    c.e.emit(
        "V_SAMPLE",
        a=x.at,
        first=first,
        token=token,
        seed=s.p.seed,
        step=s.p.step,
        position=position,
        period=s.length,
        temperature=s.temperature,
        rows=x.rows,
        cols=x.cols,
        a_stride=x.stride,
        running=int(running),
    )


class SinglePass:
    """Every logit is read once: double-buffered tiles of rows, one V_SAMPLE each; rows of a tile are in flight together."""

    def __init__(self, c: Context, logits: Logits, s: Sampler) -> None:
        """Take the buffers, within the context's current scopes.

        Raises:
            SramOverflow: not even one row fits.
        """
        self._c, self._s = c, s
        with c.e.phase("sampling-1-confidence"):
            self._stream = LogitStream(c, logits, None, 1.0, s.length, False, 0, len(s.excluded))
            self._stream.exclude(s.words(c, self._stream.rows))

    def emit(self, first: Var, confidence: int) -> Value:
        """Sample the sequence whose rows start at register `first`; returns where its confidences are in the float SRAM."""
        e, count = self._c.e, self._stream.rows
        with e.phase("sampling-1-confidence"):
            row, position, score = e.var(first), e.var(self._s.p.block_start), e.var(confidence)
            e.tiles(self._s.length, count, {row: count, position: count, score: count}, lambda n: self._rows(Rows(row, position, score, n)))
            e.release(row, position, score)
        self._s.draw(self._c, confidence)
        return confidence

    def _rows(self, rows: Rows) -> None:
        c, s = self._c, self._s
        self._stream.each(rows, lambda chunk, token, running: sample(c, chunk, s, 0, token, rows.position, running))
        with c.e.phase("sampling-2-scalars"):
            c.e.emit("V_SAMPLE_END", dst=rows.confidence, index=Address(rows.row, s.tokens), first=0, count=rows.count)

    def release(self) -> None:
        """Give the registers back."""
        self._stream.release()

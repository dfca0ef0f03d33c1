"""Dream's scorers (Ye et al., arXiv 2508.15487): candidates and confidences of the distribution after temperature and cuts.

With d = (logit - maximum) / temperature, S the sum of exp(d) over the tokens that are kept: `maskgit_plus` is exp(d) / S of the candidate,
`topk_margin` (1 - exp(d2)) / S with the second-largest d2, `entropy` the negative entropy sum(d exp(d)) / S - ln S. The candidate is the
maximum of d and Gumbel noise. Logits stream once for the maximum, 16 times for each cut, once for candidate and sum, once more for the
entropy.
"""

from __future__ import annotations

from unmask.compiler.context import Context, Tile
from unmask.compiler.emitter import Address, Var
from unmask.compiler.sampling import cut
from unmask.compiler.sampling.llada import add_noise
from unmask.compiler.sampling.logits import LogitStream, Rows, choose, drop
from unmask.compiler.sampling.parameters import StepParameters
from unmask.decoding.policy import Policy
from unmask.quant.cut import cuts_count, cuts_mass

FLOATS = 6
INTEGERS = 3
"""Words of the float and the integer SRAM per row of a tile."""


def needs_scratch(policy: Policy, vocabulary: int) -> bool:
    """Whether `DreamScore` works in a further tile."""
    cuts = cuts_mass(policy.top_p) or cuts_count(policy.top_k, vocabulary)
    return policy.temperature > 0 or policy.remasking == "topk_margin" or cuts


class DreamScore:
    """Emits candidates and confidences of some rows."""

    def __init__(
        self, c: Context, stream: LogitStream, rows: Rows, policy: Policy, vocabulary: int, confident: bool, p: StepParameters, tokens: int
    ) -> None:
        """Set what to emit.

        Args:
            c: gives the buffers, within its scopes of the float and the integer SRAM.
            stream: of the logits.
            rows: a tile of them.
            policy: with one of Dream's scorers.
            vocabulary: columns.
            confident: whether the confidence is needed; `origin` has none either.
            p: the step.
            tokens: integer SRAM address of the candidates of row 0.
        """
        self._c, self._stream, self._rows, self._policy, self._vocabulary, self._p = c, stream, rows, policy, vocabulary, p
        self._confident = confident and policy.remasking != "origin"
        self._margin = self._confident and policy.remasking == "topk_margin"
        self._tokens, self._picked = Address(rows.row, tokens), Address(rows.confidence, 0)
        purpose = f"maxima and sums of {rows.count} rows"
        self._best, self._total, self._second, self._other = (c.scalars(rows.count, purpose) for _ in range(4))
        self._lead = c.integers.take(rows.count, f"the best tokens of {rows.count} rows")
        self._keys: list[int] = []

    def emit(self) -> None:
        """Leave the candidates at `tokens`, and the confidences where the rows say."""
        with self._c.e.phase("sampling-1-confidence"):
            self._stream.each(self._rows, self._maximum)
        with self._c.e.phase("sampling-0-cut"):
            self._find_cuts()
        with self._c.e.phase("sampling-1-confidence"):
            if self._policy.temperature or self._confident:
                self._stream.each(self._rows, self._candidate_and_sum)
            if self._confident and self._policy.remasking == "entropy":
                self._stream.each(self._rows, self._weighted_sum)
        with self._c.e.phase("sampling-2-scalars"):
            if self._confident:
                self._scalars()

    def _maximum(self, chunk: Tile, token: Var, running: bool) -> None:
        if not self._policy.temperature:
            choose(self._c, chunk, chunk, token, running, self._best, self._tokens, self._picked)
        elif self._margin:
            choose(self._c, chunk, chunk, token, running, self._best, self._lead, self._picked)
        else:
            self._c.reduce("V_RED_MAX", self._best, chunk, running)

    def _find_cuts(self) -> None:
        c, policy, rows = self._c, self._policy, self._rows
        if cuts_mass(policy.top_p):
            self._keys.append(c.integers.take(rows.count, f"the bounds of {rows.count} rows"))
            cut.find_mass(c, self._stream, rows, self._best, policy.temperature, policy.top_p or 0.0, self._keys[-1])
        if cuts_count(policy.top_k, self._vocabulary):
            self._keys.append(c.integers.take(rows.count, f"the bounds of {rows.count} rows"))
            cut.find_rank(c, self._stream, rows, policy.top_k or 0, self._keys[-1])

    def _exponents(self, chunk: Tile) -> None:
        cut.apply(self._c, chunk, self._keys)
        cut.exponents(self._c, chunk, chunk, self._best, self._policy.temperature)

    def _candidate_and_sum(self, chunk: Tile, token: Var, running: bool) -> None:
        c = self._c
        self._exponents(chunk)
        if self._policy.temperature:
            scores = self._stream.scratch(chunk)
            add_noise(c, scores, chunk, self._rows, token, 1.0, self._p)
            choose(c, scores, chunk, token, running, self._other, self._tokens, self._picked)
        if self._confident:
            weights = self._stream.scratch(chunk) if self._margin else chunk
            c.unary("V_EXP", weights, chunk)
            c.reduce("V_RED_SUM", self._total, weights, running)
        if self._margin:
            drop(c, chunk, self._lead if self._policy.temperature else self._tokens, token)
            c.reduce("V_RED_MAX", self._second, chunk, running)

    def _weighted_sum(self, chunk: Tile, token: Var, running: bool) -> None:
        self._exponents(chunk)
        self._c.unary("V_XEXP", chunk, chunk)
        self._c.reduce("V_RED_SUM", self._second, chunk, running)

    def _scalars(self) -> None:
        e, count, out = self._c.e, self._rows.count, self._picked
        e.emit("F_RECIP", dst=self._other, a=self._total, count=count)
        if self._policy.remasking == "entropy":
            e.emit("F_MUL", dst=self._second, a=self._second, b=self._other, count=count)
            e.emit("F_LOG", dst=self._total, a=self._total, count=count)
            e.emit("F_SUB", dst=out, a=self._second, b=self._total, count=count)
        elif self._margin:
            e.emit("F_EXP", dst=self._second, a=self._second, count=count)
            e.emit("F_MUL", dst=self._second, a=self._second, b=self._other, count=count)
            e.emit("F_SUB", dst=out, a=self._other, b=self._second, count=count)
        elif self._policy.temperature:
            e.emit("F_EXP", dst=out, a=out, count=count)
            e.emit("F_MUL", dst=out, a=out, b=self._other, count=count)
        else:
            e.emit("F_RECIP", dst=out, a=self._total, count=count)

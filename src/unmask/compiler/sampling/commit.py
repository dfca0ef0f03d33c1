"""Which candidates commit: a mask over the block of one sequence, from confidences and what is still masked."""

from __future__ import annotations

from typing import Any

from unmask.compiler.context import Context
from unmask.compiler.emitter import Value, Var
from unmask.compiler.sampling.parameters import StepParameters
from unmask.decoding.policy import Policy
from unmask.errors import UnmaskError
from unmask.quant.commit import DUE_UNIT, factor_bars, inverse_temperature


class Committing:
    """Emits the choice; what it needs for every sequence alike is set up once."""

    def __init__(self, c: Context, policy: Policy, mask_token: int, length: int, p: StepParameters, opening: bool) -> None:
        """Set the rule.

        Args:
            c: keeps the buffers until its current scopes of the float and the integer SRAM end.
            policy: says how candidates commit.
            mask_token: id of a position that may commit.
            length: positions of the block.
            p: the step.
            opening: only the first masked position commits, whatever the policy.

        Raises:
            UnmaskError: the machine's top-k unit has fewer entries than the block has positions.
        """
        ranks = opening or (policy.remasking != "origin" and policy.commit != "threshold")
        if ranks and length > c.machine.vector.sorter:
            where = f"machine {c.machine.name} (vector.sorter)"
            raise UnmaskError(f"a block of {length} positions exceeds the {c.machine.vector.sorter} scores of the top-k unit of {where}")
        self._c, self._policy, self._mask, self._length, self._p, self._opening = c, policy, mask_token, length, p, opening
        self._bars: int | None = None
        if policy.commit == "factor" and not opening:
            self._bars = c.scalars(length, f"the bars of {length} ranks")
            for rank, bar in enumerate(factor_bars(policy.factor, length)):
                c.e.emit("F_FILL", dst=self._bars + rank, count=1, value=bar)

    def emit(self, commits: Var, canvas: Value, confidence: Value, chosen: Value) -> None:
        """Mark the positions that commit.

        Args:
            commits: register: integer SRAM address of the sequence's word of `StepParameters.commits`.
            canvas: integer SRAM address of the block's ids.
            confidence: float SRAM address; overwritten.
            chosen: integer SRAM address of the result.
        """
        e, policy, count = self._c.e, self._policy, self._length
        e.emit("I_EQ_I", dst=chosen, a=canvas, count=count, value=self._mask)
        masks: dict[str, Any] = {"dst": chosen, "f": confidence, "eligible": chosen, "count": count}
        if self._opening:
            e.emit("F_FILL", dst=confidence, count=count, value=1.0)
            e.emit("V_TOPK_MASK", k=1, **masks)
        elif policy.remasking == "origin":
            self._due(commits, confidence, chosen)
        elif policy.commit == "threshold":
            e.emit("V_THRESHOLD_MASK", value=policy.threshold, **masks)
        elif self._bars is not None:
            e.emit("V_BARS_MASK", bars=self._bars, **masks)
        else:
            if policy.alg_temp:
                e.emit("F_MUL_I", dst=confidence, a=confidence, count=count, value=inverse_temperature(policy.alg_temp))
                noise: dict[str, Any] = {"seed": self._p.seed, "step": self._p.step, "position": self._p.block_start}
                e.emit("F_GUMBEL", dst=confidence, a=confidence, count=count, **noise)
            k = self._word(commits)
            e.emit("V_TOPK_MASK", k=k, **masks)
            e.release(k)

    def _word(self, commits: Var) -> Var:
        word = self._c.e.var()
        self._c.e.emit("S_LD", rd=word, a=commits)
        return word

    def _due(self, commits: Var, draws: Value, chosen: Value) -> None:
        """The masked positions whose uniform draw is below the step's fraction."""
        c, count = self._c, self._length
        with c.floats.scope(), c.integers.scope():
            limit = c.scalars(count, f"the fraction for {count} positions")
            due = c.integers.take(count, f"the due ones of {count} positions")
            word = self._word(commits)
            c.e.emit("F_UNIFORM", dst=draws, seed=self._p.seed, step=self._p.step, position=self._p.block_start, count=count)
            c.e.emit("I_FILL", dst=due, value=word, count=count)
            c.e.emit("F_FROM_INT", dst=limit, a=due, count=count)
            c.e.emit("F_MUL_I", dst=limit, a=limit, count=count, value=DUE_UNIT)
            c.e.emit("F_LT", dst=due, a=draws, b=limit, count=count)
            c.e.emit("V_SELECT_INT", dst=chosen, mask=chosen, a=due, b=chosen, count=count)
            c.e.release(word)

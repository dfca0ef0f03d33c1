"""LLaDA's scorers (Nie et al., arXiv 2502.09992): Gumbel-max candidates, and their softmax probability or a uniform draw.

Since exp(max - max) = 1, the confidence of the arg-max is 1 / sum(exp(logit - max)) and no probability vector is needed (the published
program of arXiv 2601.20706). Logits stream from HBM twice, once for the maximum and once for the sum.
"""

from __future__ import annotations

import numpy as np

from unmask.compiler.context import Context, Tile
from unmask.compiler.emitter import Address, Var
from unmask.compiler.sampling.logits import LogitStream, Rows, choose, drop
from unmask.compiler.sampling.parameters import StepParameters
from unmask.numerics import bf16

FLOATS = 3
"""Words of the float SRAM per row of a tile."""


def needs_scratch(temperature: float, deferred: bool) -> bool:
    """Whether `score` works in a further tile."""
    return bf16.rounded(temperature) != 0 or deferred


def score(
    c: Context, stream: LogitStream, rows: Rows, temperature: float, confident: bool, p: StepParameters, tokens: int, deferred: list[int]
) -> None:
    """The candidate and the confidence of each of some rows.

    Args:
        stream: of the logits.
        temperature: 0 for the arg-max.
        confident: whether the confidence is the candidate's probability; it is not computed otherwise.
        tokens: integer SRAM address of the candidates of row 0.
        deferred: integer SRAM addresses of the tokens that have no probability, one word per row each.
    """
    heat = bf16.rounded(temperature)
    picked = Address(rows.confidence, 0)
    with c.floats.scope():
        best, top, total = (c.scalars(rows.count, f"maxima and sums of {rows.count} rows") for _ in range(3))
        apart = needs_scratch(temperature, bool(deferred))
        maximum = top if apart else best

        def find(chunk: Tile, token: Var, running: bool) -> None:
            scores = chunk
            if apart:
                scores = stream.scratch(chunk)
                if heat:
                    add_noise(c, scores, chunk, rows, token, heat, p)
                else:
                    c.unary("V_MUL_I", scores, chunk, value=1.0)
                for index in deferred:
                    drop(c, chunk, index, token)
                c.reduce("V_RED_MAX", top, chunk, running)
            choose(c, scores, chunk, token, running, best, Address(rows.row, tokens), picked)

        def add_up(chunk: Tile, token: Var, running: bool) -> None:
            for index in deferred:
                drop(c, chunk, index, token)
            c.unary("V_SUB_F", chunk, chunk, f=maximum)
            c.unary("V_EXP", chunk, chunk)
            c.reduce("V_RED_SUM", total, chunk, running)

        with c.e.phase("sampling-1-confidence"):
            stream.each(rows, find)
            if confident:
                stream.each(rows, add_up)
        with c.e.phase("sampling-2-scalars"):
            if confident:
                c.e.emit("F_SUB", dst=picked, a=picked, b=maximum, count=rows.count)
                c.e.emit("F_EXP", dst=picked, a=picked, count=rows.count)
                c.e.emit("F_RECIP", dst=total, a=total, count=rows.count)
                c.e.emit("F_MUL", dst=picked, a=picked, b=total, count=rows.count)


def add_noise(c: Context, dst: Tile, a: Tile, rows: Rows, token: Var, temperature: float, p: StepParameters) -> None:
    """dst = a + temperature * Gumbel noise of the rows' positions."""
    bits = int(bf16.to_bits(np.array(temperature, np.float32)))
    c.unary("V_GUMBEL", dst, a, seed=p.seed, step=p.step, position=rows.position, token=token, temperature=bits)

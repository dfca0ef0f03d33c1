"""Four-phase sampling: stable-max confidence with arg-max, scalars, top-k mask, integer select.

The published program of arXiv 2601.20706: since exp(max - max) = 1, the confidence of the arg-max is 1 / sum(exp(logit - max)) and no
probability vector is needed. Logits stream from HBM twice, once for the maximum and once for the sum. With temperature the candidate
maximises logit + temperature * Gumbel noise, while its confidence is the noise-free softmax: exp(logit - max) / sum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from unmask.compiler.context import Context, Tile
from unmask.compiler.emitter import Address, Ring, Value, Var
from unmask.isa.table import BF16_BYTES, STRIDE_UNIT, Engine
from unmask.numerics import bf16

Semaphores = tuple[int, ...]
Body = Callable[[Tile, Var, bool, Semaphores, Semaphores], None]


@dataclass(frozen=True)
class StepParameters:
    """Registers with what the host sets for each step."""

    block_start: Var
    commits: Var
    seed: Var
    step: Var


@dataclass(frozen=True)
class Logits:
    """Logits of the active block in HBM: rows of `vocabulary` BF16 values, `row_bytes` apart."""

    at: int
    row_bytes: int
    vocabulary: int


def _stream(c: Context, logits: Logits, first_row: int, rows: int, buffers: int, body: Body) -> None:
    """Run `body` on chunk after chunk of the vocabulary, loads one chunk ahead; `buffers` counts tiles of a chunk's size."""
    with c.vector.scope():
        fit = c.vector.free // (buffers * rows) // STRIDE_UNIT * STRIDE_UNIT
        width = min(logits.vocabulary, max(fit, STRIDE_UNIT))
        stride = -(-width // STRIDE_UNIT)
        size = rows * stride * STRIDE_UNIT
        ring = Ring(c.e, Engine.LOAD, Engine.VECTOR, c.vector.take(2 * size, f"two chunks of logits of {rows} rows"), size)
        source, token = c.e.var(logits.at + first_row * logits.row_bytes), c.e.var(0)
        c.e.order(Engine.VECTOR, Engine.LOAD)

        def chunk(count: int, running: bool) -> None:
            with ring.produce() as (slot, wait, signal):
                c.e.emit(
                    "L_VEC",
                    dst=slot,
                    src=source,
                    rows=rows,
                    cols=count,
                    dst_stride=stride,
                    src_stride=logits.row_bytes,
                    wait=wait,
                    signal=signal,
                )
            with ring.consume() as (slot, wait, signal):
                body(Tile(Address(slot, 0), rows, count, stride), token, running, wait, signal)

        strides = {source: width * BF16_BYTES, token: width}
        chunk(width, False)
        for var, step in strides.items():
            c.e.advance(var, step)
        c.e.tiles(logits.vocabulary - width, width, strides, lambda count: chunk(count, True))
        c.e.release(source, token)
        ring.release()


def candidates(
    c: Context,
    logits: Logits,
    first_row: int,
    rows: int,
    temperature: float,
    p: StepParameters,
    tokens: int,
    confidence: int,
    total: int,
) -> None:
    """Phase 1 for some rows of the block: the candidate of each row, and the two factors of its confidence.

    Leaves the candidate's index in the integer SRAM at `tokens`, its logit less the maximum in the float SRAM at `confidence`, and the sum
    of the exponentials at `total`.
    """
    with c.floats.scope():
        best, top = c.scalars(rows, "maxima"), c.scalars(rows, "maxima")

        def choose(scores: Tile, companion: Tile, token: Var, running: bool, wait: Semaphores, signal: Semaphores) -> None:
            c.e.emit(
                "V_RED_MAX_IDX",
                dst=best,
                index=tokens,
                picked=confidence,
                a=scores.at,
                b=companion.at,
                base=token,
                rows=scores.rows,
                cols=scores.cols,
                a_stride=scores.stride,
                b_stride=companion.stride,
                running=int(running),
                wait=wait,
                signal=signal,
            )

        def greedy(chunk: Tile, token: Var, running: bool, wait: Semaphores, signal: Semaphores) -> None:
            choose(chunk, chunk, token, running, wait, signal)

        def noisy(chunk: Tile, token: Var, running: bool, wait: Semaphores, signal: Semaphores) -> None:
            with c.vector.scope():
                scores = Tile(
                    Address(None, c.vector.take(rows * chunk.stride * STRIDE_UNIT, "noisy logits")), rows, chunk.cols, chunk.stride
                )
                bits = int(bf16.to_bits(np.array(temperature, np.float32)))
                c.reduce("V_RED_MAX", top, chunk, running, wait=wait)
                c.unary(
                    "V_GUMBEL",
                    scores,
                    chunk,
                    seed=p.seed,
                    step=p.step,
                    position=Address(p.block_start, first_row),
                    token=token,
                    temperature=bits,
                )
                choose(scores, chunk, token, running, (), signal)

        def add_up(chunk: Tile, token: Var, running: bool, wait: Semaphores, signal: Semaphores) -> None:
            c.unary("V_SUB_F", chunk, chunk, f=maximum, wait=wait)
            c.unary("V_EXP", chunk, chunk)
            c.reduce("V_RED_SUM", total, chunk, running, signal=signal)

        maximum = top if temperature else best
        _stream(c, logits, first_row, rows, 3 if temperature else 2, noisy if temperature else greedy)
        _stream(c, logits, first_row, rows, 2, add_up)
        c.e.emit("F_SUB", dst=confidence, a=confidence, b=maximum, count=rows)


def confidences(c: Context, count: int, confidence: int, total: int) -> None:
    """Phase 2: exp(logit - maximum) / sum, in the float SRAM."""
    c.e.emit("F_EXP", dst=confidence, a=confidence, count=count)
    c.e.emit("F_RECIP", dst=total, a=total, count=count)
    c.e.emit("F_MUL", dst=confidence, a=confidence, b=total, count=count)


def choose_positions(c: Context, canvas: Value, count: int, mask_token: int, scores: int, p: StepParameters, chosen: int) -> None:
    """Phase 3: mark the best-scored positions of the block that are still masked."""
    c.e.emit("I_EQ_I", dst=chosen, a=canvas, count=count, value=mask_token)
    c.e.emit("V_TOPK_MASK", dst=chosen, f=scores, eligible=chosen, k=p.commits, count=count)

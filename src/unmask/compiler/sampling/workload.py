"""Sampling alone as a program, on logits or hidden states that are in HBM already, and where its time goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from unmask.compiler.context import Context, Tile
from unmask.compiler.emitter import Var
from unmask.compiler.kernels.head import project_logits
from unmask.compiler.lower import reserve_logits
from unmask.compiler.memory import Hbm, MxMatrix, ceil_to
from unmask.compiler.sampling.block import sample_block
from unmask.compiler.sampling.fused import Fused, Segment
from unmask.compiler.sampling.parameters import Sampled, StepParameters
from unmask.compiler.sampling.streamed import PROGRAMS, Sampler, SamplingProgram
from unmask.decoding.policy import Policy
from unmask.errors import UnmaskError
from unmask.isa.encoding import Op, encode
from unmask.isa.program import Program
from unmask.isa.table import BF16_BYTES, INT32_BYTES, STRIDE_UNIT, Cost, Engine
from unmask.machine.config import BF16, Machine
from unmask.machine.cycle import Timing, check_depth, check_length
from unmask.machine.state import check_hbm
from unmask.numerics import mx

SCALAR_COSTS = frozenset({Cost.SCALAR, Cost.SCALAR_FUNCTION, Cost.INTEGER, Cost.TOPK})
PARTS = ("vector", "memory", "scalar", "control", "matrix")
_MASK = -1
"""No token: nothing is excluded, as in the published program, and every position may commit."""


@dataclass(frozen=True)
class Workload:
    """What is sampled.

    Attributes:
        batch, block: sequences, and positions of each.
        vocabulary: columns.
        temperature: of Gumbel noise; 0 for the arg-max.
        width: of the hidden states that the LM head multiplies; LLaDA-8B's 4096 by default.
    """

    batch: int
    block: int
    vocabulary: int
    temperature: float = 0.0
    width: int = 4096

    def __post_init__(self) -> None:
        for name in ("batch", "block", "vocabulary", "width"):
            if getattr(self, name) < 1:
                raise UnmaskError(f"{name} is {getattr(self, name)}: expected at least 1")

    @property
    def rows(self) -> int:
        return self.batch * self.block

    def logit_bytes(self, form: str) -> int:
        """Bytes of the logits in HBM, each once, in a format of the machine's configuration."""
        if form == BF16:
            return self.rows * self.vocabulary * BF16_BYTES
        size = MxMatrix(0, 0, self.rows, self.vocabulary, mx.format_named(form))
        return self.rows * (size.row_bytes + size.blocks)

    def head_bytes(self, form: str) -> int:
        """Bytes of the LM head's weights in an MX format."""
        size = MxMatrix(0, 0, self.vocabulary, self.width, mx.format_named(form))
        return self.vocabulary * (size.row_bytes + size.blocks)


def sampling_program(w: Workload, machine: Machine, program: SamplingProgram, chunk: int | None = None) -> Program:
    """The sampling of one denoising step; of the program "fused" with the LM head before it.

    HBM regions: `canvas` INT32 [rows]; `parameters`, the INT32 words canvas position, seed, step, and commits of every sequence; `logits`,
    or for "fused" `x`, BF16 [rows, width], and the `head` in the format of the machine's weights. The tokens are left in `tokens`.

    Args:
        chunk: logits of a buffer of "four-phase".

    Raises:
        UnmaskError: the machine cannot hold a tile, or has less HBM.
    """
    if program not in PROGRAMS:
        raise UnmaskError(f"sampling program {program!r}: expected one of {', '.join(PROGRAMS)}")
    if chunk is not None and program != "four-phase":
        raise UnmaskError(f"a chunk belongs to the program 'four-phase', not {program!r}")
    hbm = Hbm()
    c = Context(machine, hbm)
    policy = Policy(
        gen_length=w.block,
        block_length=w.block,
        steps=1,
        temperature=w.temperature,
        remasking="low_confidence",
        exclude_mask=False,
    )
    count = w.rows
    canvas_at, tokens_at = (hbm.reserve(name, count * INT32_BYTES) for name in ("canvas", "tokens"))
    words_at = hbm.reserve("parameters", (3 + w.batch) * INT32_BYTES)
    canvas, words = c.integers.take(count, "ids"), c.integers.take(3 + w.batch, "parameters")
    with c.e.phase("sampling-1-confidence"):
        c.e.emit("L_INT", dst=canvas, src=canvas_at, count=count)
        c.e.emit("L_INT", dst=words, src=words_at, count=3 + w.batch)
        c.e.order(Engine.LOAD, Engine.VECTOR)
        c.e.order(Engine.LOAD, Engine.SEQUENCER)
        start, seed, step = (_register(c, words + number) for number in range(3))
        p = StepParameters(start, seed, step, words + 3)
    if program == "fused":
        sampled = _fused(c, w, policy, canvas, p)
    else:
        logits = reserve_logits(hbm, "logits", count, w.vocabulary, machine.formats.logits)
        sampled = sample_block(c, logits, None, policy, _MASK, _MASK, w.batch, w.block, canvas, p, program=program, chunk=chunk)
    with c.e.phase("sampling-4-select"):
        c.e.order(Engine.VECTOR, Engine.STORE)
        c.e.emit("ST_INT", src=canvas, dst=canvas_at, count=count)
        c.e.emit("ST_INT", src=sampled.tokens, dst=tokens_at, count=count)
    return _finish(c, w, program)


def head_program(w: Workload, machine: Machine) -> Program:
    """The LM head alone, logits to HBM: what the program "fused" is compared with.

    Raises:
        UnmaskError: the machine cannot hold a tile, or has less HBM.
    """
    c = Context(machine, Hbm())
    logits = reserve_logits(c.hbm, "logits", w.rows, w.vocabulary, machine.formats.logits)
    _head(c, w, lambda x, head, first: project_logits(c, x, head, logits, first))
    return _finish(c, w, "lm-head")


def _register(c: Context, address: int) -> Var:
    register = c.e.var()
    c.e.emit("S_LD", rd=register, a=address)
    return register


def _fused(c: Context, w: Workload, policy: Policy, canvas: int, p: StepParameters) -> Sampled:
    tokens = c.integers.take(w.rows, f"candidates of {w.batch} blocks of {w.block} positions")
    with c.floats.scope():
        fused = Fused(c, Sampler.of(policy, _MASK, _MASK, w.block, p, tokens), w.batch)

        def project(x: Tile, head: MxMatrix, first: int) -> None:
            sequences = range(first // w.block, (first + x.rows) // w.block)
            fused.project(x, head, [Segment(sequence, 0, w.block) for sequence in sequences])

        _head(c, w, project)
        return fused.commit(policy, _MASK, canvas, opening=False)


def _head(c: Context, w: Workload, project: Callable[[Tile, MxMatrix, int], None]) -> None:
    """`project` for tile after tile of whole sequences' rows, as many as leave half of the vector SRAM for logits."""
    size = MxMatrix(0, 0, w.vocabulary, w.width, c.weights)
    parts = [c.hbm.reserve(f"head.{name}", w.vocabulary * each) for name, each in (("elements", size.row_bytes), ("scales", size.blocks))]
    head = MxMatrix(parts[0], parts[1], w.vocabulary, w.width, c.weights)
    row_bytes = w.width * BF16_BYTES
    x_at = c.hbm.reserve("x", w.rows * row_bytes)
    fit = min(c.vector.free // 2 // ceil_to(w.width, STRIDE_UNIT), c.machine.vector.accumulators)
    sequences = -(-w.batch // -(-w.batch // max(fit // w.block, 1)))
    with c.e.phase("lm-head"):
        for first in range(0, w.batch, sequences):
            with c.vector.scope():
                rows = min(sequences, w.batch - first) * w.block
                x = c.tile(rows, w.width, f"hidden states of {rows} rows")
                c.load(x, x_at + first * w.block * row_bytes, row_bytes)
                project(x, head, first * w.block)


def _finish(c: Context, w: Workload, program: str) -> Program:
    c.e.halt()
    check_depth(c.e.ops, c.machine)
    check_length(c.e.ops, c.machine)
    check_hbm(c.hbm.size, c.machine)
    about = {"sampling": program, "workload": asdict(w), "sram_high_water": c.high_water}
    return Program(encode(c.e.ops), c.e.phases, c.hbm.size, c.hbm.regions, c.hbm.data, c.machine.model_dump(), about)


def breakdown(program: Program, timing: Timing) -> dict[str, int]:
    """Cycles by part of the machine; they sum to the total.

    A cycle counts for the first of these that is at work in it: `matrix`, `vector` (lanes), `scalar` (the vector engine's scalar and
    integer unit and its sorter), `memory` (load and store). Cycles in which none is are `control`.

    Args:
        timing: of the program, with its trace.
    """
    trace = timing.trace
    assert trace is not None
    part = np.array([_part(op) for op in program.ops])[trace.pc]
    found, covered, chosen = {}, 0, np.zeros(len(part), bool)
    for name in ("matrix", "vector", "scalar", "memory"):
        chosen |= part == name
        together = _covered(trace.start[chosen], trace.end[chosen])
        found[name], covered = together - covered, together
    return {name: found.get(name, timing.cycles - covered) for name in PARTS}


def _covered(start: NDArray[np.int64], end: NDArray[np.int64]) -> int:
    """Cycles that lie in at least one of some intervals."""
    order = np.argsort(start, kind="stable")
    start, end = start[order], np.maximum.accumulate(end[order])
    before = np.concatenate(([0], end[:-1]))
    return int(np.maximum(end - np.maximum(start, before), 0).sum())


def _part(op: Op) -> str:
    if op.row.cost in SCALAR_COSTS:
        return "scalar"
    by_engine = {Engine.VECTOR: "vector", Engine.MATRIX: "matrix", Engine.LOAD: "memory", Engine.STORE: "memory"}
    return by_engine.get(op.row.engine, "control")

"""One kind of denoising step as an entry of a program: transformer, LM head, sampling."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from unmask.compiler.context import Context, Tile, Tiling
from unmask.compiler.emitter import Address, Var
from unmask.compiler.kernels.head import project_logits
from unmask.compiler.kernels.norm import rms_norm
from unmask.compiler.network import NetworkImage
from unmask.compiler.sampling.block import sample_block
from unmask.compiler.sampling.fused import Fused, Segment
from unmask.compiler.sampling.logits import Logits
from unmask.compiler.sampling.parameters import Sampled, StepParameters
from unmask.compiler.sampling.streamed import Sampler, SamplingProgram
from unmask.compiler.stream import Feed, StreamBuffers
from unmask.compiler.transformer import Transformer
from unmask.decoding.policy import Policy
from unmask.isa.table import BF16_BYTES, INT32_BYTES, STRIDE_UNIT, Engine

PARAMETERS = ("first", "block_start", "head_row", "seed", "step")
"""INT32 words at the start of the region `parameters`, which the host writes before each step: the canvas position of the first row fed and
of the active block, which of the fed rows is the first whose logits are sampled, and what the noise depends on. One word per sequence
follows them: how many of its candidates commit.
"""

PARAMETERS_AT = 0
"""Where in the integer SRAM a step keeps them."""


@dataclass(frozen=True)
class StepKind:
    """What distinguishes the steps of one generation, and so the entries of its program.

    Attributes:
        rows: fed, consecutive, of every sequence.
        own_first: the logits of the block's first position are those of its own row, although those of all others are of the row
            before: a network with shifted logits is not fed the row before the block.
        opening: only the block's first mask commits (`unmask.decoding.dream.Opening`).
    """

    rows: int
    own_first: bool = False
    opening: bool = False

    @property
    def name(self) -> str:
        return f"rows-{self.rows}" + "-own" * self.own_first + "-opening" * self.opening


@dataclass(frozen=True)
class StepBuffers:
    """HBM addresses that all steps of a generation share.

    Attributes:
        parameters: `PARAMETERS` and the commits, INT32.
        stream: what the transformer works on; under guidance, the second half of its sequences are those whose prompt is masked.
        logits: of the active block.
        unconditional: under guidance, those of the masked prompt.
        candidates: INT32 [batch, block], where a step that commits nothing by itself leaves its candidates; None for other policies.
    """

    parameters: int
    stream: StreamBuffers
    logits: Logits
    unconditional: Logits | None
    candidates: int | None


class StepEmitter:
    """Emits one kind of step."""

    def __init__(
        self,
        c: Context,
        network: NetworkImage,
        policy: Policy,
        kind: StepKind,
        batch: int,
        positions: int,
        tiling: Tiling,
        at: StepBuffers,
        sampling: SamplingProgram = "general",
    ) -> None:
        """Set what to emit; under guidance, twice `batch` sequences are fed."""
        self.c, self.network, self.policy, self.kind, self.at = c, network, policy, kind, at
        self.batch, self.positions, self.tiling, self.sampling = batch, positions, tiling, sampling
        self.sequences = batch * (1 if at.unconditional is None else 2)
        self.row_bytes = network.architecture.width * BF16_BYTES

    def build(self) -> None:
        """Emit everything up to HALT."""
        c = self.c
        count = len(PARAMETERS) + self.batch
        words = c.integers.take(count, "the step's parameters")
        assert words == PARAMETERS_AT
        c.e.emit("L_INT", dst=words, src=self.at.parameters, count=count)
        c.e.order(Engine.LOAD, Engine.SEQUENCER)
        first = self._parameter("first")
        feed = Feed(self.sequences, self.kind.rows, self.positions)
        Transformer(c, self.network, feed, self.tiling, self.at.stream, first).build()
        c.e.release(first)
        fused = self._fused() if self.sampling == "fused" else None
        with c.e.phase("lm-head"):
            self._head(fused)
        self._sample(fused)
        c.e.halt()

    def _fused(self) -> Fused:
        """What samples behind the LM head."""
        shape, length = self.network.architecture, self.policy.block_length
        tokens = self.c.integers.take(self.batch * length, f"candidates of {self.batch} blocks of {length} positions")
        sampler = Sampler.of(self.policy, shape.mask_token_id, shape.eos_token_id, length, self._step_parameters(), tokens)
        return Fused(self.c, sampler, self.batch)

    def _step_parameters(self) -> StepParameters:
        start, seed, step = (self._parameter(name) for name in ("block_start", "seed", "step"))
        return StepParameters(start, seed, step, PARAMETERS_AT + len(PARAMETERS))

    def _parameter(self, name: str) -> Var:
        """A register with one of the step's parameters."""
        register = self.c.e.var()
        self.c.e.emit("S_LD", rd=register, a=PARAMETERS_AT + PARAMETERS.index(name))
        return register

    def _tiles(self) -> Iterator[list[Segment]]:
        """The rows of the active blocks, sequence after sequence, in tiles of at most the transformer's height."""
        length, height = self.policy.block_length, self.tiling.height
        for start in range(0, self.sequences * length, height):
            end, tile = min(start + height, self.sequences * length), []
            while start < end:
                sequence, first = divmod(start, length)
                count = min(length - first, end - start)
                tile.append(Segment(sequence, first, count))
                start += count
            yield tile

    def _head(self, fused: Fused | None) -> None:
        c, length, shape = self.c, self.policy.block_length, self.network.architecture
        head_row = self._parameter("head_row")
        row = c.e.multiply_add(head_row, self.row_bytes, self.at.stream.x)
        c.e.release(head_row)
        with c.vector.scope():
            weight = c.tile(1, shape.width, "a norm's weight")
            c.load(weight, self.network.final_norm, self.row_bytes)
            for tile in self._tiles():
                with c.vector.scope():
                    height = sum(segment.rows for segment in tile)
                    rows, normed = (c.tile(height, shape.width, "a tile of the active block") for _ in range(2))
                    c.e.order(Engine.STORE, Engine.LOAD)
                    self._gather(rows, row, tile)
                    rms_norm(c, normed, rows, weight, shape.norm_eps)
                    if fused is None:
                        self._project(normed, tile[0].sequence * length + tile[0].first)
                    else:
                        fused.project(normed, self.network.head, tile)
        c.e.release(row)

    def _gather(self, rows: Tile, row: Var, tile: list[Segment]) -> None:
        """Rows of the stream whose logits predict the positions of a tile."""
        done = 0
        for sequence, first, count in tile:
            source = sequence * self.kind.rows * self.row_bytes
            parts = [(first, count)]
            if self.kind.own_first:
                # Row 0 predicts position 0 and, as every row does, the position after its own.
                parts = [(0, 1)] * (first == 0) + [(max(first, 1) - 1, count - (first == 0))]
            for start, number in parts:
                if number:
                    at = rows.at + done * rows.stride * STRIDE_UNIT
                    self.c.load(Tile(at, number, rows.cols, rows.stride), Address(row, source + start * self.row_bytes), self.row_bytes)
                done += number

    def _project(self, x: Tile, first_row: int) -> None:
        """LM head of a tile; its rows lie in the conditional logits, the unconditional ones, or across both."""
        conditional = self.batch * self.policy.block_length
        here = max(min(x.rows, conditional - first_row), 0)
        if here:
            project_logits(self.c, Tile(x.at, here, x.cols, x.stride), self.network.head, self.at.logits, first_row)
        if here < x.rows and self.at.unconditional is not None:
            rest = Tile(x.at + here * x.stride * STRIDE_UNIT, x.rows - here, x.cols, x.stride)
            project_logits(self.c, rest, self.network.head, self.at.unconditional, first_row + here - conditional)

    def _sample(self, fused: Fused | None) -> None:
        c, length, shape = self.c, self.policy.block_length, self.network.architecture
        p = self._step_parameters() if fused is None else fused.sampler.p
        block = f"the blocks of {self.batch} sequences of {length} positions"
        canvas = c.integers.take(self.batch * length, f"the ids of {block}")
        place = c.e.multiply_add(p.block_start, INT32_BYTES, self.at.stream.canvas)
        with c.e.phase("sampling-1-confidence"):
            self._blocks("L_INT", canvas, place, 0)
            c.e.order(Engine.LOAD, Engine.VECTOR)
        if fused is None:
            sampled = sample_block(
                c,
                self.at.logits,
                self.at.unconditional,
                self.policy,
                shape.mask_token_id,
                shape.eos_token_id,
                self.batch,
                length,
                canvas,
                p,
                opening=self.kind.opening,
                program=self.sampling,
            )
        else:
            sampled = fused.commit(self.policy, shape.mask_token_id, canvas, opening=self.kind.opening)
        with c.e.phase("sampling-4-select"):
            c.e.order(Engine.VECTOR, Engine.STORE)
            if self.at.candidates is not None:
                c.e.emit("ST_INT", src=sampled.tokens, dst=self.at.candidates, count=self.batch * length)
                return
            self._blocks("ST_INT", canvas, place, 0)
            if self.at.unconditional is not None:
                self._commit_to_guidance(sampled, canvas, place)

    def _blocks(self, name: str, words: int, place: Var, first_sequence: int) -> None:
        """The ids of the active blocks of `batch` sequences, from or to the canvas in HBM."""
        c, length = self.c, self.policy.block_length
        word, source = c.e.var(words), c.e.var(Address(place, first_sequence * self.positions * INT32_BYTES))
        with c.e.loop(self.batch, {word: length, source: self.positions * INT32_BYTES}):
            if name == "L_INT":
                c.e.emit(name, dst=word, src=source, count=length)
            else:
                c.e.emit(name, src=word, dst=source, count=length)
        c.e.release(word, source)

    def _commit_to_guidance(self, sampled: Sampled, canvas: int, place: Var) -> None:
        """The committed tokens also enter the canvases whose prompt is masked."""
        c, count = self.c, self.batch * self.policy.block_length
        c.e.order(Engine.STORE, Engine.LOAD)
        c.e.order(Engine.VECTOR, Engine.LOAD)
        self._blocks("L_INT", canvas, place, self.batch)
        c.e.order(Engine.LOAD, Engine.VECTOR)
        c.e.emit("V_SELECT_INT", dst=canvas, mask=sampled.chosen, a=sampled.tokens, b=canvas, count=count)
        c.e.order(Engine.VECTOR, Engine.STORE)
        self._blocks("ST_INT", canvas, place, self.batch)

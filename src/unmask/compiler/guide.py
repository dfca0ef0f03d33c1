"""A guide network on the machine: the autoregressive half of Guided Diffusion (FlashDLM, Hu et al., arXiv 2505.21467)."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask.compiler.assembly import Plan, assemble
from unmask.compiler.context import Context, Tiling
from unmask.compiler.kernels.head import project_logits
from unmask.compiler.kernels.norm import rms_norm
from unmask.compiler.lower import reserve_cache, reserve_logits
from unmask.compiler.memory import Hbm, bf16_bytes
from unmask.compiler.network import NetworkImage, place_network
from unmask.compiler.sampling.logits import Logits
from unmask.compiler.stream import Feed, StreamBuffers, Unseen
from unmask.compiler.transformer import Transformer
from unmask.decoding.piecewise import PIECE, guide_room
from unmask.errors import UnmaskError
from unmask.isa.program import Program
from unmask.isa.table import BF16_BYTES, INT32_BYTES, Engine
from unmask.machine.config import BF16, Machine
from unmask.machine.cycle import Timing, time_program
from unmask.machine.executor import Executing
from unmask.machine.functional import FunctionalMachine
from unmask.machine.state import F32, read_bf16
from unmask.models.guide import GuideNetwork
from unmask.models.layers import Architecture
from unmask.numerics import mx

ENTRY = "guide"


def compile_guide(network: GuideNetwork, machine: Machine, positions: int) -> Program:
    """A program that reads one piece of text with a guide: `PIECE` tokens from the region `canvas`, the first of them at the position in
    the region `parameters`; their logits are left in the region `logits`.

    Args:
        positions: the longest text to be read.

    Raises:
        UnmaskError: the text exceeds the guide's context, or the machine cannot hold a tile.
    """
    shape: Architecture = network.config.architecture
    room = guide_room(positions)
    if room > shape.max_sequence_length:
        raise UnmaskError(f"{positions} positions need a guide's context of {room}; it has {shape.max_sequence_length}")
    hbm = Hbm()
    image = place_network(hbm, network, room, mx.format_named(machine.formats.weights))
    row_bytes = shape.width * BF16_BYTES
    rows, columns = np.arange(PIECE)[:, None], np.arange(2 * room) - room
    unseen = bf16_bytes(np.where(columns > rows, np.float32(-np.inf), np.float32(0)))
    stream = StreamBuffers(
        canvas=hbm.reserve("canvas", room * INT32_BYTES),
        x=hbm.reserve("x", PIECE * row_bytes),
        queries=hbm.reserve("queries", PIECE * row_bytes),
        cache=reserve_cache(hbm, shape, machine.formats, 1, room, kept=True),
        unseen=Unseen(hbm.place("unseen", unseen), 2 * room * BF16_BYTES, causal=True),
    )
    parameters = hbm.reserve("parameters", INT32_BYTES)
    logits = reserve_logits(hbm, "logits", PIECE, shape.vocab_size, BF16)

    def emit(c: Context, tiling: Tiling) -> None:
        word = c.integers.take(1, "the position of the first token")
        c.e.emit("L_INT", dst=word, src=parameters, count=1)
        c.e.order(Engine.LOAD, Engine.SEQUENCER)
        first = c.e.var()
        c.e.emit("S_LD", rd=first, a=word)
        Transformer(c, image, Feed(1, PIECE, room), tiling, stream, first).build()
        c.e.release(first)
        with c.e.phase("lm-head"):
            _head(c, image, tiling, stream.x, logits)
        c.e.halt()

    about = {"guide": asdict(shape), "positions": positions}
    return assemble(Plan({ENTRY: emit}, {ENTRY: PIECE}, 1, hbm, about), machine)


def _head(c: Context, image: NetworkImage, tiling: Tiling, x: int, logits: Logits) -> None:
    """Logits of all rows."""
    shape = image.architecture
    row_bytes = shape.width * BF16_BYTES
    with c.vector.scope():
        weight = c.tile(1, shape.width, "a norm's weight")
        c.load(weight, image.final_norm, row_bytes)
        for first in range(0, PIECE, tiling.height):
            with c.vector.scope():
                rows, normed = (c.tile(min(tiling.height, PIECE - first), shape.width, "a tile of rows") for _ in range(2))
                c.e.order(Engine.STORE, Engine.LOAD)
                c.load(rows, x + first * row_bytes, row_bytes)
                rms_norm(c, normed, rows, weight, shape.norm_eps)
                project_logits(c, normed, image.head, logits, first)


class NpuGuide:
    """A guide on the simulated machine, an `unmask.decoding.guided.Guide`.

    The program of `compile_guide` runs once per piece of `unmask.decoding.piecewise.PIECE` tokens; the host reads its logits and decides
    what is accepted.

    Attributes:
        runs: how often the program has run, by entry.
        gathered: the rows that L_GATHERs chose in each run, int64, in the order of execution.
    """

    def __init__(self, program: Program, executing: Executing = FunctionalMachine) -> None:
        """Take a guide's program.

        Args:
            executing: what runs it.

        Raises:
            UnmaskError: the program is not one of `compile_guide`.
        """
        try:
            self._machine = Machine.model_validate(program.machine)
            self._vocabulary = int(program.about["guide"]["vocab_size"])
        except (KeyError, TypeError, ValueError):
            raise UnmaskError("the program is not a guide's") from None
        self._program, self._npu = program, executing(program, self._machine)
        self._canvas = np.zeros(program.regions["canvas"].size // INT32_BYTES, "<i4")
        self.runs = {ENTRY: 0}
        self.gathered: list[NDArray[np.int64]] = []

    @property
    def vocab_size(self) -> int:
        return self._vocabulary

    def timings(self) -> dict[str, Timing]:
        """The cycle reading of one piece."""
        return {ENTRY: time_program(self._program, self._machine)}

    def cycles_of_runs(self) -> list[int]:
        """The cycle reading of every piece that was read, each with the rows that it gathered."""
        return [time_program(self._program, self._machine, gathered=rows).cycles for rows in self.gathered]

    def read(self, kept: int, ids: Tensor) -> Tensor:
        """See `Guide`; the logits are float32 [n, vocabulary]."""
        logits = [torch.empty(0, self._vocabulary)]
        for start in range(0, len(ids), PIECE):
            piece = ids[start : start + PIECE].numpy()
            first = kept + start
            self._canvas[first : first + PIECE] = 0
            self._canvas[first : first + len(piece)] = piece
            self._npu.write("canvas", self._canvas)
            self._npu.write("parameters", np.array([first], "<u4"))
            self._npu.run(ENTRY)
            self.runs[ENTRY] += 1
            self.gathered.append(self._npu.gathered)
            logits.append(torch.from_numpy(self._logits()[: len(piece)]))
        return torch.cat(logits)

    def _logits(self) -> F32:
        raw = self._npu.read("logits", "u1").astype(np.uint8).reshape(PIECE, -1)
        return read_bf16(raw[:, : self._vocabulary * BF16_BYTES])

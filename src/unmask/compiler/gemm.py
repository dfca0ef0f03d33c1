"""A matrix product alone as a program: BF16 rows times an MX matrix, from HBM to HBM."""

from __future__ import annotations

from dataclasses import dataclass

from unmask.compiler.assembly import Plan, assemble
from unmask.compiler.context import Context, Tiling
from unmask.compiler.kernels.head import project_logits
from unmask.compiler.memory import Hbm, MxMatrix
from unmask.compiler.sampling.logits import Logits
from unmask.errors import UnmaskError
from unmask.isa.program import Program
from unmask.isa.table import BF16_BYTES
from unmask.machine.config import Machine
from unmask.numerics import mx

ENTRY = "gemm"


def compile_gemm(m: int, k: int, n: int, machine: Machine) -> Program:
    """A program that leaves a b^T in the region `c`, BF16 [m, n], of `a`, BF16 [m, k], and `b.elements` and `b.scales`, MX [n, k] in the
    format of the machine's weights.

    Raises:
        UnmaskError: a size below 1, or a machine that cannot hold a tile.
    """
    for name, length in (("m", m), ("k", k), ("n", n)):
        if length < 1:
            raise UnmaskError(f"{name} is {length}: expected at least 1")
    hbm, form = Hbm(), mx.format_named(machine.formats.weights)
    size = MxMatrix(0, 0, n, k, form)
    b = MxMatrix(hbm.reserve("b.elements", n * size.row_bytes), hbm.reserve("b.scales", n * size.blocks), n, k, form)
    a = hbm.reserve("a", m * k * BF16_BYTES)
    c = Logits(hbm.reserve("c", m * n * BF16_BYTES), 0, n * BF16_BYTES, n, None)

    def emit(context: Context, tiling: Tiling) -> None:
        with context.e.phase("gemm"):
            for first in range(0, m, tiling.rows):
                with context.vector.scope():
                    tile = context.tile(min(tiling.rows, m - first), k, "rows of a")
                    context.load(tile, a + first * k * BF16_BYTES, k * BF16_BYTES)
                    project_logits(context, tile, b, c, first)
        context.e.halt()

    return assemble(Plan({ENTRY: emit}, {ENTRY: m}, 1, hbm, {"gemm": [m, k, n]}, "this product"), machine)


@dataclass(frozen=True)
class Ideal:
    """Cycles that a product takes at least, however it is scheduled.

    Attributes:
        compute: all multipliers of the array busy in every cycle.
        memory: every operand moved once at the memory's peak.
    """

    compute: int
    memory: int

    @property
    def cycles(self) -> int:
        return max(self.compute, self.memory)


def ideal_gemm(m: int, k: int, n: int, machine: Machine) -> Ideal:
    """The bounds of `compile_gemm`'s product; loads and stores share the memory's bandwidth, unless it is ideal and has a port for each."""
    size = MxMatrix(0, 0, n, k, mx.format_named(machine.formats.weights))
    loaded, stored = n * (size.row_bytes + size.blocks) + m * k * BF16_BYTES, m * n * BF16_BYTES
    moved = max(loaded, stored) if machine.hbm.device == "ideal" else loaded + stored
    bytes_per_cycle = machine.memory_gbps / machine.clock_ghz
    return Ideal(compute=-(-m * k * n // machine.peak_multiplies), memory=-int(-moved // bytes_per_cycle))

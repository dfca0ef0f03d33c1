"""Values for the operands of random instructions that are no addresses."""

from __future__ import annotations

from random import Random

import numpy as np

from unmask.isa.encoding import Operand
from unmask.isa.table import BY_NAME, STRIDE_UNIT, Kind
from unmask.machine.config import MATRIX_FORMATS, Machine
from unmask.machine.sequencer import REGISTER_BITS
from unmask.numerics import mx
from unmask.rtl.lockstep import values

MATRIX_INSTRUCTIONS = frozenset({"L_MAT", "M_MM"})
"""Those that know the formats of the matrix SRAM only."""


class Sizes:
    """Chooses sizes, constants and scalars for a machine."""

    def __init__(self, rng: Random, numbers: np.random.Generator, machine: Machine) -> None:
        self.rng, self.numbers, self.machine = rng, numbers, machine

    def columns(self) -> int:
        v, g = self.machine.vector.vlen, self.machine.vector.granule
        rng = self.rng
        return rng.choice((1, g, v - 1, v, v + 1, 2 * v, 2 * v + g, STRIDE_UNIT, 2 * STRIDE_UNIT, rng.randint(1, 5 * v))) or 1

    def rows(self) -> int:
        most = min(24, self.machine.vector.accumulators)
        return min(most, self.rng.choice((1, 1, 2, 3, 4, 5, self.rng.randint(1, 9), self.rng.randint(1, 24))))

    def count(self) -> int:
        """Entries of an instruction that has no tile."""
        most = min(48, self.machine.vector.sorter)
        return min(most, self.rng.choice((1, 2, 7, 8, 9, self.rng.randint(1, 20), self.rng.randint(1, 48))))

    def products(self) -> dict[str, int]:
        """Sizes of a matrix product."""
        array, rng = self.machine.matrix, self.rng
        width = array.blen * array.rows
        return {
            "m": rng.choice((1, array.blen - 1, array.blen, array.blen + 1, 2 * array.blen, rng.randint(1, 20))) or 1,
            "n": rng.choice((1, width, width + 1, mx.BLOCK, mx.BLOCK + 1, rng.randint(1, 48))),
            "k": rng.choice((1, mx.BLOCK - 1, mx.BLOCK, array.mlen, array.mlen + 1, 2 * array.mlen, rng.randint(1, 3 * array.mlen))),
            "transposed": rng.randrange(2),
        }

    def constants(self, name: str, given: dict[str, Operand]) -> dict[str, Operand]:
        """Values for the operands that are no registers; strides are filled in with the places."""
        found: dict[str, Operand] = {"boolean": given["boolean"]} if "boolean" in given else {}
        rows = int(given.get("rows", self.rows()))
        formats = MATRIX_FORMATS if name in MATRIX_INSTRUCTIONS else len(self.machine.formats.stored)
        products = self.products() if name == "M_MM" else {}
        for spec in BY_NAME[name].fields:
            if spec.kind is Kind.REGISTER:
                continue
            if spec.name in given:
                found[spec.name] = given[spec.name]
            elif spec.kind is Kind.FP32:
                found[spec.name] = values.fp32(self.numbers)
            elif spec.kind is Kind.BF16:
                found[spec.name] = values.bf16(self.numbers)
            elif spec.kind is Kind.SIGNED:
                found[spec.name] = int(values.words(self.numbers, 1, False)[0])
            elif spec.name.endswith("_stride"):
                found[spec.name] = 0
            else:
                known = {
                    "rows": rows,
                    "cols": self.columns(),
                    "count": self.count(),
                    "running": self.rng.randrange(2),
                    "period": self.rng.randint(1, rows + 1),
                    "format": self.rng.randrange(formats),
                    **products,
                }
                found[spec.name] = known.get(spec.name, self.rng.randrange(1 << spec.bits))
        return found

    def scalar(self, name: str, constants: dict[str, Operand]) -> int:
        """A value for a register operand that addresses nothing."""
        rng = self.rng
        count, cols = int(constants.get("count", 1)), int(constants.get("cols", 1))
        any_value = rng.randrange(-(1 << (REGISTER_BITS - 1)), 1 << (REGISTER_BITS - 1))
        choices: dict[str, tuple[int, ...]] = {
            "seed": (0, 1, rng.getrandbits(32), any_value),
            "step": (0, 1, rng.getrandbits(10), any_value),
            "position": (0, rng.getrandbits(12), 2**32 - 2, rng.getrandbits(32)),
            "token": (0, 1, cols, rng.getrandbits(17), rng.getrandbits(17)),
            "temperature": (0, 0, 0x3F80, 0x3E80, rng.randrange(0x3C00, 0x4200), int(values.bf16_bits(self.numbers, 1)[0])),
            "base": (0, 0, -1, 5, rng.randrange(-cols, cols + 1), rng.getrandbits(17)),
            "k": (0, 1, count, count + 3, -1, rng.randint(0, count), rng.randint(0, count)),
            "bit": (0, 30, rng.randrange(16), rng.randrange(16), rng.randrange(32), any_value),
            "value": (0, 1, 0, 1, -1, any_value),
        }
        return rng.choice(choices.get(name, (any_value,)))

"""How the matrix engine spends its latency (`unmask.machine.costs.matrix_cycles`), and what array it can be built of."""

from __future__ import annotations

from dataclasses import dataclass

from unmask.errors import UnmaskError
from unmask.machine.config import Machine
from unmask.machine.costs import adder_levels
from unmask.numerics.mx import BLOCK
from unmask.rtl.matrix import dot, rounding

FILL = 5
"""Cycles between the address of a right operand and its first product: the read, two to decode, one to store, one to exchange."""
LEFT = 5
"""Cycles between the address of a left row and its products: the read, and four to quantize. The first row is read in the last cycle of
the first beat of the right operand."""
READ = 1
"""Cycles from where the walk of the results is to the sums: the accumulators are read."""


def sum_places(lanes: int) -> int:
    """Places for registers from the products of a left row of so many blocks to the accumulators: a block's, and the levels of the tree."""
    return dot.PLACES + (lanes - 1).bit_length()


def slack(machine: Machine) -> int:
    """Cycles of the latency that the data path may use, from the first product to the write strobe.

    Raises:
        UnmaskError: an array that this design cannot build; names the field.
    """
    array = machine.matrix
    if array.mlen % BLOCK:
        raise UnmaskError(f"machine {machine.name}: matrix.mlen {array.mlen}: expected a multiple of {BLOCK} for hardware")
    if array.blen < 2 or array.blen & (array.blen - 1):
        raise UnmaskError(f"machine {machine.name}: matrix.blen {array.blen}: expected a power of two, 2 or more, for hardware")
    if array.blen * array.rows % machine.vector.granule:
        raise UnmaskError(
            f"machine {machine.name}: matrix.blen x matrix.rows {array.blen * array.rows}: expected a multiple of vector.granule, "
            f"{machine.vector.granule}, for hardware"
        )
    result = array.blen + adder_levels(machine) + array.latency - FILL
    if result < 0:
        raise UnmaskError(
            f"machine {machine.name}: matrix.latency {array.latency}: expected at least {array.latency - result} for hardware"
        )
    return result


@dataclass(frozen=True)
class Timing:
    """What the engine does with its latency.

    Attributes:
        sums, rounds: registers from the products to the accumulator, and from there to the result.
        spare: cycles between the last result and the end.
        depth: instructions that have started and are not done, at most.
    """

    sums: int
    rounds: int
    spare: int
    depth: int

    @classmethod
    def of(cls, machine: Machine) -> Timing:
        """Of a machine's engine.

        Raises:
            UnmaskError: as `slack`.
        """
        left = slack(machine)
        places = sum_places(machine.matrix.mlen // BLOCK) + rounding.PLACES
        used = min(left, places)
        rounds = used * rounding.PLACES // places
        blen = machine.matrix.blen
        # From the last of the right operand to the last result; transposed ones start as far apart as they take longer.
        after = blen + LEFT + used
        return cls(used - rounds, rounds, left - used, 2 + -(-after // blen))


def most_under_way(machine: Machine) -> int:
    """Products and SYNCs that have started and not ended, at most: those of every cycle in which an older product drains."""
    drain = 2 * machine.matrix.blen + adder_levels(machine) + machine.matrix.latency
    return drain + drain // BLOCK + 4

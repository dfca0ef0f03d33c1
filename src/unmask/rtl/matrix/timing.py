"""How the matrix engine spends its latency (`unmask.machine.costs.matrix_cycles`), and what array it can be built of."""

from __future__ import annotations

from unmask.errors import UnmaskError
from unmask.machine.config import Machine
from unmask.machine.costs import adder_levels
from unmask.numerics.mx import BLOCK

FILL = 5
"""Cycles between the address of a right operand and its first product: the read, two to decode, one to store, one to exchange."""
LEFT = 4
"""Cycles between the address of a left row and its products: the read, and three to quantize."""
SUM_PLACES, ROUND_PLACES = 5, 3
"""Places for registers from the products to the accumulator, and from there to the result."""


def slack(machine: Machine) -> int:
    """Cycles of the latency that the data path may use, from the first product to the write strobe.

    Raises:
        UnmaskError: an array that this design cannot build; names the field.
    """
    array = machine.matrix
    if array.mlen % BLOCK:
        raise UnmaskError(f"machine {machine.name}: matrix.mlen {array.mlen}: expected a multiple of {BLOCK} for hardware")
    if array.blen & (array.blen - 1):
        raise UnmaskError(f"machine {machine.name}: matrix.blen {array.blen}: expected a power of two for hardware")
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

"""What each engine instruction does to the state, tile-wise: one function per row of the instruction table, one module per unit."""

from unmask.machine.semantics import integers, lanes, matrix, memory, reductions, routing, sampler, scalars
from unmask.machine.semantics.registry import SEMANTICS, Semantics

__all__ = ["SEMANTICS", "Semantics", "integers", "lanes", "matrix", "memory", "reductions", "routing", "sampler", "scalars"]

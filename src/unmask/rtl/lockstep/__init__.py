"""The RTL in lockstep with the functional and the cycle reading, on random programs.

`fuzz` runs the programs of a seed, `run` programs of one's own, `simulate` one program on the RTL alone.
"""

from unmask.rtl.lockstep.campaign import Result, fuzz, replay, run
from unmask.rtl.lockstep.generator import Case, generate
from unmask.rtl.lockstep.runner import Simulation, simulate

__all__ = ["Case", "Result", "Simulation", "fuzz", "generate", "replay", "run", "simulate"]

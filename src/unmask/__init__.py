"""unmask: an open NPU stack for diffusion language models.

    from unmask import Machine, Policy, compile, load_model, load_tokenizer, simulate

A network and a decoding policy are compiled to a program for a machine; the program is simulated, bit-exact and with its cycles.
"""

from unmask.compiler.check import Check, check
from unmask.compiler.host import Simulation, Step, simulate
from unmask.compiler.lower import compile_step as compile
from unmask.decoding.generate import Generation, generate
from unmask.decoding.policy import Policy
from unmask.errors import UnmaskError
from unmask.isa.program import Program
from unmask.machine.config import Machine
from unmask.models.checkpoint import load_model, save_model
from unmask.models.tokenizer import load_tokenizer

__version__ = "0.1.0"

__all__ = [
    "Check",
    "Generation",
    "Machine",
    "Policy",
    "Program",
    "Simulation",
    "Step",
    "UnmaskError",
    "check",
    "compile",
    "generate",
    "load_model",
    "load_tokenizer",
    "save_model",
    "simulate",
]

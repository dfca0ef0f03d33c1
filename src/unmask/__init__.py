"""unmask: an open NPU stack for diffusion language models.

    from unmask import Machine, Policy, compile, load_model, load_tokenizer, simulate

A network and a decoding policy are compiled to a program for a machine; the program is simulated, bit-exact and with its cycles.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from unmask.models import packed

if TYPE_CHECKING:
    from unmask.compiler.check import Check, check
    from unmask.compiler.host import Simulation, Step, simulate
    from unmask.compiler.lower import compile_step as compile
    from unmask.decoding.generate import Generation, generate
    from unmask.decoding.policy import Policy
    from unmask.errors import UnmaskError
    from unmask.isa.program import Program
    from unmask.machine.config import Machine
    from unmask.models.checkpoint import load_model, save_model
    from unmask.models.packed import TensorReader
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

# Imported on first use, so that commands which need no network start without loading PyTorch.
_HOMES = {
    "Check": "unmask.compiler.check:Check",
    "Generation": "unmask.decoding.generate:Generation",
    "Machine": "unmask.machine.config:Machine",
    "Policy": "unmask.decoding.policy:Policy",
    "Program": "unmask.isa.program:Program",
    "Simulation": "unmask.compiler.host:Simulation",
    "Step": "unmask.compiler.host:Step",
    "UnmaskError": "unmask.errors:UnmaskError",
    "check": "unmask.compiler.check:check",
    "compile": "unmask.compiler.lower:compile_step",
    "generate": "unmask.decoding.generate:generate",
    "load_model": "unmask.models.checkpoint:load_model",
    "load_tokenizer": "unmask.models.tokenizer:load_tokenizer",
    "save_model": "unmask.models.checkpoint:save_model",
    "simulate": "unmask.compiler.host:simulate",
}


def __getattr__(name: str) -> object:
    """A public name, from the module that defines it (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    value: object = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _packed_reader() -> "TensorReader":
    from unmask.quant.checkpoint import read_tensors

    return read_tensors


packed.register(_packed_reader)

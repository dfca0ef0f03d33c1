"""Programs for the analytic reading: what the compiler emits for a step, once for all machines for which it emits the same.

The instructions of a step depend on the machine's formats, on the sizes of its memories on the chip, of its array and of its lanes, but not
on how long anything takes. So they are emitted for a machine of which the rest
is left out, and kept; what is left out, the compiler cannot depend on.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.compiler.assembly import Chosen, choose, parts_of
from unmask.compiler.context import Context, Tiling
from unmask.compiler.lower import plan_step
from unmask.compiler.memory import SramOverflow
from unmask.compiler.sampling.streamed import SamplingProgram
from unmask.decoding.policy import Policy
from unmask.errors import UnmaskError
from unmask.isa.encoding import Op, encode
from unmask.isa.program import Program
from unmask.machine.analytic_listing import Skeleton, skeleton_of
from unmask.machine.config import Machine, VectorEngine
from unmask.machine.memory import Ideal
from unmask.models.layers import Architecture

_SOME_MEMORY = Ideal(gib=1, bytes_per_cycle=1, latency=1, beat_bytes=1)
_TIMES = {name: 1 for name in VectorEngine.model_fields if name.endswith(("latency", "interval")) or name == "integer_lanes"}
_KEPT = 8
"""Plans: of some models, policies and machines."""


def as_compiled_for(machine: Machine, shape: Architecture) -> Machine:
    """The machine without what the instructions of a step do not depend on; how experts are tiled depends on its memory."""
    left_out: dict[str, Any] = {
        "description": "",
        "gpu": None,
        "vector": machine.vector.model_copy(update=_TIMES),
        "sequencer": machine.sequencer.model_copy(update={"queue_depth": 1, "dispatch_latency": 1}),
        "matrix": machine.matrix.model_copy(update={"latency": 1}),
    }
    if not shape.experts:
        left_out |= {"clock_ghz": 1.0, "hbm": _SOME_MEMORY}
    return machine.model_copy(update=left_out)


class Listed(Program):
    """A program that keeps its instructions as objects and encodes them when their words are asked for."""

    def __init__(self, parts: dict[str, Any]) -> None:
        """Take what `unmask.compiler.assembly.parts_of` gives."""
        self._parts = parts
        self.phases, self.entries, self.machine, self.about = parts["phases"], parts["entries"], parts["machine"], parts["about"]
        self.hbm_bytes, self.regions, self.data = parts["hbm_bytes"], parts["regions"], parts["data"]

    @cached_property
    def words(self) -> NDArray[np.uint64]:  # type: ignore[override]
        """uint64 [instructions, 2]."""
        return encode(self.ops)

    @property
    def ops(self) -> list[Op]:
        """Instructions."""
        ops: list[Op] = self._parts["ops"]
        return ops

    def entry(self, name: str) -> Program:
        """One entry as a program of its own, sharing everything else.

        Raises:
            UnmaskError: there is no such entry.
        """
        if name not in self.entries:
            raise UnmaskError(f"the program has no entry {name!r}; there are {', '.join(self.entries)}")
        first, end = self.entries[name]
        part = {"ops": self.ops[first:end], "phases": self.phases[first:end], "entries": {name: (0, end - first)}}
        return Listed(self._parts | part)


class Step:
    """The kinds of step of a generation, for all machines that are compiled for alike."""

    def __init__(self, shape: Architecture, policy: Policy, machine: Machine, prompt_length: int, batch: int, sampling: SamplingProgram):
        """Plan the step; arguments and errors as of `unmask.compiler.lower.compile_step`."""
        self._plan, self._machine = plan_step(shape, policy, machine, prompt_length, batch, False, None, sampling), machine
        self._emitted: dict[tuple[str, Tiling], Context | SramOverflow] = {}
        self._skeletons: dict[tuple[str, Tiling], Skeleton] = {}

    def _emit(self, name: str, tiling: Tiling) -> Context:
        found = self._emitted.get((name, tiling))
        if found is None:
            try:
                found = self._plan.emitted(name, tiling, self._machine)
            except SramOverflow as error:
                found = error
            self._emitted[name, tiling] = found
        if isinstance(found, SramOverflow):
            raise found
        return found

    def chosen(self, machine: Machine) -> Chosen:
        """Each kind of step with the row tile that suits a machine.

        Raises:
            UnmaskError: as of `unmask.compiler.assembly.choose`.
        """
        return choose(self._plan, machine, self._emit)

    def program(self, chosen: Chosen, machine: Machine) -> Listed:
        """The program of `compile_step`.

        Raises:
            UnmaskError: the machine has less HBM.
        """
        return Listed(parts_of(self._plan, chosen, machine))

    def skeleton(self, name: str, chosen: Chosen) -> Skeleton:
        """A kind of step in numbers."""
        c, tiling = chosen[name]
        found = self._skeletons.get((name, tiling))
        if found is None:
            found = self._skeletons[name, tiling] = skeleton_of(c.e.ops, c.e.phases, self._machine)
        return found


@lru_cache(maxsize=_KEPT)
def _step(shape: Architecture, policy: Policy, machine: str, prompt_length: int, batch: int, sampling: SamplingProgram) -> Step:
    """By the machine's JSON, since a machine may hold what cannot be hashed."""
    return Step(shape, policy, Machine.model_validate_json(machine), prompt_length, batch, sampling)


def step_of(shape: Architecture, policy: Policy, machine: Machine, prompt_length: int, batch: int, sampling: SamplingProgram) -> Step:
    """The kinds of step of a generation; arguments and errors as of `unmask.compiler.lower.compile_step`."""
    return _step(shape, policy, as_compiled_for(machine, shape).model_dump_json(), prompt_length, batch, sampling)


def forget_steps() -> None:
    """Drop what is kept of steps."""
    _step.cache_clear()

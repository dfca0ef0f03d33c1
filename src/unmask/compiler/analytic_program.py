"""A program for the analytic reading: the instructions of `compile_step`, never encoded unless someone asks for their words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.compiler import assembly, lower
from unmask.compiler.context import Context, Tiling
from unmask.compiler.emitter import Emitter, Ring, Value, Var
from unmask.compiler.memory import Hbm, SramOverflow
from unmask.compiler.network import place_network
from unmask.compiler.sampling.streamed import SamplingProgram, check_served
from unmask.compiler.step import StepEmitter, StepKind
from unmask.decoding.policy import Policy
from unmask.errors import UnmaskError
from unmask.isa.encoding import Op, encode
from unmask.isa.program import Program
from unmask.isa.table import Engine
from unmask.machine.config import Machine
from unmask.machine.cycle import check_depth, check_length
from unmask.machine.state import check_hbm
from unmask.models.layers import Architecture
from unmask.numerics import mx


class Listed(Program):
    """A program that keeps its instructions as objects and encodes them when their words are asked for."""

    def __init__(
        self,
        ops: list[Op],
        phases: list[str],
        entries: dict[str, tuple[int, int]],
        hbm: Hbm,
        machine: dict[str, Any],
        about: dict[str, Any],
    ) -> None:
        """Set what it is made of; `hbm` has the regions, without data."""
        self._ops, self._hbm = ops, hbm
        self.phases, self.entries, self.machine, self.about = phases, entries, machine, about
        self.hbm_bytes, self.regions, self.data = hbm.size, hbm.regions, hbm.data

    @cached_property
    def words(self) -> NDArray[np.uint64]:  # type: ignore[override]
        """uint64 [instructions, 2]."""
        return encode(self._ops)

    @property
    def ops(self) -> list[Op]:
        return self._ops

    def entry(self, name: str) -> Program:
        """One entry as a program of its own, sharing everything else.

        Raises:
            UnmaskError: there is no such entry.
        """
        if name not in self.entries:
            raise UnmaskError(f"the program has no entry {name!r}; there are {', '.join(self.entries)}")
        first, end = self.entries[name]
        return Listed(self._ops[first:end], self.phases[first:end], {name: (0, end - first)}, self._hbm, self.machine, self.about)


class _Silent(Emitter):
    """Emits nothing: what is left of a kernel is what it asks of the memories."""

    _nowhere = Var(0)

    def emit(self, name: str, *, wait: tuple[int, ...] = (), signal: tuple[int, ...] = (), **operands: Value | float) -> None:
        """Nothing."""

    def sync(self, engine: Engine, *, wait: tuple[int, ...] = (), signal: tuple[int, ...] = ()) -> None:
        """Nothing."""

    def order(self, before: Engine, after: Engine) -> None:
        """Nothing."""

    def halt(self) -> None:
        """Nothing."""

    def var(self, value: Value = 0) -> Var:
        """Always the same register."""
        return self._nowhere

    def release(self, *variables: Var) -> None:
        """Nothing."""

    def _sequence(self, name: str, **operands: int) -> None:
        pass

    @contextmanager
    def loop(self, count: int, strides: Mapping[Var, int]) -> Iterator[None]:
        """Once."""
        yield


class _Prompt(Emitter):
    """The emitter, but an instruction that nothing waits for is placed as it is."""

    def _append(self, op: Op, engine: Engine) -> None:
        if self._pending[engine]:
            super()._append(op, engine)
        else:
            self._place(op, engine)


def _context(machine: Machine, hbm: Hbm, emitter: type[Emitter]) -> Context:
    """A context that emits to a new emitter of some kind."""
    c = Context(machine, hbm)
    size = c.ring.size
    c.e = emitter()
    c.ring = Ring(c.e, Engine.LOAD, Engine.MATRIX, 0, size)
    return c


def _fitting(emit: Callable[[Context, Tiling], None], rows: int, sequences: int, hbm: Hbm, machine: Machine) -> tuple[Context, Tiling]:
    """As of `unmask.compiler.assembly`; once one has not fitted, whether tiles fit is found out without emitting anything."""
    overflow: SramOverflow | None = None
    for tiling in assembly._tilings(rows, sequences, machine.vector.accumulators):
        c = _context(machine, hbm, _Prompt if overflow is None else _Silent)
        try:
            emit(c, tiling)
        except SramOverflow as error:
            overflow = error
            continue
        whole = assembly._whole_tiles(tiling, machine)
        better = assembly._cost(whole, rows, sequences, machine) < assembly._cost(tiling, rows, sequences, machine)
        if better or overflow is not None:
            c, tiling = _context(machine, hbm, _Prompt), whole if better else tiling
            emit(c, tiling)
        return c, tiling
    raise UnmaskError(f"machine {machine.name} cannot run this model and policy: {overflow}")


def list_step(shape: Architecture, policy: Policy, machine: Machine, prompt_length: int, batch: int, sampling: SamplingProgram) -> Program:
    """`compile_step` of an architecture, arguments and errors as there."""
    positions = prompt_length + policy.gen_length
    lower._check(shape, policy, prompt_length, batch, False)
    if sampling != "general":
        check_served(policy, shape.eos_token_id)
    hbm = Hbm()
    weights, kv = (mx.format_named(name) for name in (machine.formats.weights, machine.formats.kv))
    network = place_network(hbm, shape, positions, weights, kv)
    at = lower._reserve(hbm, shape, policy, machine, positions, batch, False, None, filled=False)
    ops: list[Op] = []
    phases: list[str] = []
    entries: dict[str, tuple[int, int]] = {}
    tiles: dict[str, Any] = {}
    lists: dict[str, Any] = {}
    high_water: Counter[str] = Counter()
    for kind in lower._kinds(policy, shape, prompt_length):

        def emit(c: Context, tiling: Tiling, kind: StepKind = kind) -> None:
            StepEmitter(c, network, policy, kind, batch, positions, tiling, at, sampling).build()

        c, tiling = _fitting(emit, kind.rows, lower._sequences(policy, batch), hbm, machine)
        check_depth(c.e.ops, machine)
        check_length(c.e.ops, machine)
        entries[kind.name] = len(ops), len(ops) + len(c.e.ops)
        ops += c.e.ops
        phases += c.e.phases
        tiles[kind.name] = asdict(tiling)
        if c.lists:
            lists[kind.name] = c.lists
        high_water |= Counter(c.high_water)
    check_hbm(hbm.size, machine)
    about = {
        "model": asdict(shape),
        "weights": False,
        "policy": asdict(policy),
        "positions": positions,
        "batch": batch,
        "padded": False,
        "sampling": sampling,
        "row_tiles": tiles,
        "sram_high_water": dict(high_water),
    }
    return Listed(ops, phases, entries, hbm, machine.model_dump(), about | ({"expert_lists": lists} if lists else {}))

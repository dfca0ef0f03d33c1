"""The units of the hardware that can be synthesized by themselves, by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from amaranth.hdl import UnusedElaboratable
from amaranth.lib import wiring

from unmask.errors import UnmaskError
from unmask.machine.config import Machine

if TYPE_CHECKING:
    from unmask.rtl.npu import Npu


@dataclass(frozen=True)
class Unit:
    """A unit.

    Attributes:
        build: the component for a machine.
        lanes: how many lanes of the vector engine it serves; area and power per lane are by these.
        flat: it is one block to the mapper.
        opened: instances that are shown by what is in them; "" is the unit itself.
    """

    build: Callable[[Machine], wiring.Component]
    lanes: Callable[[Machine], int]
    flat: bool = True
    opened: frozenset[str] = frozenset({""})


def unit_named(name: str) -> Unit:
    """The unit of that name.

    Raises:
        UnmaskError: there is none.
    """
    if name not in UNITS:
        raise UnmaskError(f"unknown unit {name!r}: expected one of {', '.join(UNITS)}")
    return UNITS[name]


def _lane(machine: Machine) -> wiring.Component:
    from unmask.rtl.engine import SAMPLER_INSTRUCTIONS
    from unmask.rtl.lane import OPERATIONS, SHORT_PLACES, Lane
    from unmask.rtl.road import Road

    operations = [name for name in OPERATIONS if name in SAMPLER_INSTRUCTIONS]
    return Lane(SHORT_PLACES, Road.places(operations), operations)


def _max_tree(machine: Machine) -> wiring.Component:
    from unmask.rtl.reduce import MaxTree

    return MaxTree(machine.vector.vlen, MaxTree.places(machine.vector.vlen))


def _window_tree(machine: Machine) -> wiring.Component:
    from unmask.rtl.window import WindowTree

    return WindowTree(machine.vector.vlen, WindowTree.places(machine.vector.vlen))


def _integer(machine: Machine) -> wiring.Component:
    from unmask.rtl.integer import IntegerUnit

    return IntegerUnit(machine.vector.integer_lanes, machine.vector.latency - 2)


def _noise(machine: Machine) -> wiring.Component:
    from unmask.rtl.scaled_noise import ScaledNoise

    return ScaledNoise(machine.vector.vlen, ScaledNoise.PLACES)


def _words(machine: Machine) -> wiring.Component:
    from unmask.rtl.noise import WORDS_PLACES, NoiseWords

    return NoiseWords(machine.vector.vlen, WORDS_PLACES)


def _gumbel(machine: Machine) -> wiring.Component:
    from unmask.rtl.noise import GUMBEL_PLACES, Gumbel

    return Gumbel(GUMBEL_PLACES)


def _scalar(machine: Machine) -> wiring.Component:
    from unmask.rtl.engine import SAMPLER_INSTRUCTIONS
    from unmask.rtl.scalar import FUNCTION_PLACES, LONG, SHORT, SHORT_PLACES, ScalarUnit

    return ScalarUnit(SHORT_PLACES, FUNCTION_PLACES, [name for name in (*SHORT, *LONG) if name in SAMPLER_INSTRUCTIONS])


def _scale(machine: Machine) -> wiring.Component:
    from unmask.rtl import bf16
    from unmask.rtl.scaled_noise import Scale

    return Scale(bf16.PLACES)


def _alone(part: wiring.Component) -> wiring.Component:
    """A part of a design of which nothing else is used, which Amaranth would warn of."""
    warnings.simplefilter("ignore", UnusedElaboratable)
    return part


def _part(name: str) -> Callable[[Machine], wiring.Component]:
    def build(machine: Machine) -> wiring.Component:
        from unmask.rtl.engine import SamplingEngine

        return _alone(getattr(SamplingEngine(machine, black_box=True), name))

    return build


def _sampler(machine: Machine) -> wiring.Component:
    from unmask.rtl.engine import SamplingEngine

    return SamplingEngine(machine, black_box=True)


def _matrix(machine: Machine) -> wiring.Component:
    return _alone(npu(machine).array)


def npu(machine: Machine) -> Npu:
    """The whole NPU, its SRAMs being macros."""
    from unmask.rtl.npu import Npu

    return Npu(machine, black_box=True)


def _vlen(machine: Machine) -> int:
    return machine.vector.vlen


def _one(machine: Machine) -> int:
    return 1


UNITS = {
    "lane": Unit(_lane, _one),
    "max_tree": Unit(_max_tree, _vlen),
    "window_tree": Unit(_window_tree, _vlen),
    "words": Unit(_words, _vlen),
    "gumbel": Unit(_gumbel, _one),
    "scale": Unit(_scale, _one),
    "noise": Unit(_noise, _vlen, flat=False),
    "scalar": Unit(_scalar, _one),
    "integer_unit": Unit(_integer, _vlen),
    "sequencer": Unit(_part("sequencer"), _vlen),
    "vector": Unit(_part("vector"), _vlen, flat=False),
    "sampler": Unit(_sampler, _vlen, flat=False),
    "matrix": Unit(_matrix, _one, flat=False, opened=frozenset({"", "array_row0"})),
    "npu": Unit(npu, _vlen, flat=False, opened=frozenset({"", "engine", "engine.vector", "array", "array.array_row0"})),
}

"""The table of prices: energies per event, areas, leakage and where each figure comes from.

`costs.toml` beside this file has the values; a user's file replaces some of them. Energies and areas of logic are of cells before layout,
at 7 nm and 1 GHz; `Layout` has what is known to be missing.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from unmask.errors import UnmaskError
from unmask.machine.memory import Part, devices
from unmask.numerics import mx

Figure = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Factor = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


class VectorEnergy(Part):
    """Femtojoules of the vector engine, each of one element or word."""

    lane: Figure = Field(description="add, multiply, fill, compare: the lane's short road")
    function: Figure = Field(description="exp, SiLU, reciprocal, powers of two: the lane's long road")
    noise: Figure = Field(description="Gumbel noise of an element")
    max: Figure = Field(description="an element's way through the tree of the maximum")
    window: Figure = Field(description="an element's way through the tree of the window sum")
    sum: Figure = Field(description="an element's way through the tree of the exact sum")
    sorter: Figure = Field(description="a comparison of the top-k unit: one score with one entry")
    scalar: Figure = Field(description="FP32 add, multiply, compare")
    scalar_function: Figure = Field(description="FP32 reciprocal, root, exp, logarithm")
    integer: Figure = Field(description="INT32 operation")
    accumulator: Figure = Field(description="a row accumulator read or written")


class VectorArea(Part):
    """Square micrometres of the vector engine's parts."""

    lane: Figure = Field(description="both roads of a lane")
    noise: Figure = Field(description="per lane")
    max: Figure = Field(description="per lane")
    window: Figure = Field(description="per lane, of the tree of both sums")
    sorter: Figure = Field(description="per entry of the top-k unit")
    scalar: Figure = Field(description="the scalar unit")
    control: Figure = Field(description="steps, operands and results under way, and the state of the rows, one per engine")
    integer: Figure = Field(description="per INT32 word and cycle")
    accumulator: Figure = Field(description="per row accumulator")


class VectorClock(Part):
    """Femtojoules of a cycle of what no clock gate stops, whatever it does; what it does comes on top."""

    scalar: Figure = Field(description="the unit of FP32 words, one per engine")
    integer: Figure = Field(description="per INT32 word and cycle")
    sorter: Figure = Field(description="per entry of the top-k unit")
    control: Figure = Field(description="steps, operands and results under way, and the state of the rows, one per engine")


class Vector(Part):
    """The vector engine; `idle_fj` is a lane's clock in a cycle in which it does nothing, trees and noise included."""

    energy_fj: VectorEnergy
    clock_fj: VectorClock
    area_um2: VectorArea
    idle_fj: Figure


class Multiplier(Part):
    """One multiplier with its block sum, by the formats of its operands."""

    formats: tuple[str, str]
    energy_fj: Figure = Field(description="a product")
    idle_fj: Figure = Field(description="clock of a cycle without one")
    area_um2: Figure


class Matrix(Part):
    """The matrix engine besides its multipliers.

    `tail` shifts a block's sum to the accumulator's grid and adds it; `quantize` makes an MX element of a BF16 one; `round` is the last
    rounding of a result.
    """

    tail_fj: Figure
    tail_um2: Figure
    quantize_fj: Figure
    quantize_um2: Figure
    round_fj: Figure
    multipliers: dict[str, Multiplier] = Field(description="by a name that is free")


class Dma(Part):
    """Load and store engines: of a byte on its way, and of an MX element that is unpacked to BF16 or packed from it."""

    byte_fj: Figure
    element_fj: Figure
    load_fj: Figure = Field(description="clock of a cycle of the load engine's walk and queue, whatever it does")
    load_byte_fj: Figure = Field(description="clock of a cycle of what takes beats and unpacks them, per byte and cycle of its ports")
    store_fj: Figure = Field(description="clock of a cycle of the store engine's walk and queue, whatever it does")
    store_byte_fj: Figure = Field(description="clock of a cycle of what packs beats, per byte and cycle of its ports")
    area_um2: Figure = Field(description="per byte and cycle of the ports of both engines")


class Sequencer(Part):
    """The sequencer without its instruction memory: of an instruction, and its area; `idle_fj` with the semaphores and the queues."""

    instruction_fj: Figure
    idle_fj: Figure = Field(description="clock of a cycle")
    area_um2: Figure


class Scaling(Part):
    """Factors from CACTI's 22 nm to the node of everything else."""

    energy: Factor
    area: Factor
    leakage: Factor


class Wires(Part):
    """Wires between the memories and the engines: of a bit over a millimetre."""

    bit_mm_fj: Figure


class Interface(Part):
    """A memory technology, per bit moved, and per device (stack, chip or package) on the die.

    `device_pj` is the DRAM's, `phy_pj` the die's side; `area_mm2` of PHY and controller.
    """

    device_pj: Figure
    phy_pj: Figure
    area_mm2: Figure


class Layout(Part):
    """What separates cells from a die.

    Attributes:
        utilization: share of the area of a floorplan that cells take.
        energy: factor on the energy of logic, for wires and the clock tree; 1 is before layout.
        ungated: share of the idle clock energy of multipliers and control that clock gates would leave; that of lanes is as they leave it.
        leakage_nw_um2: of logic, nanowatts per square micrometre of cells.
    """

    utilization: Share
    energy: Factor
    ungated: Share
    leakage_nw_um2: Figure


class Costs(Part):
    """The whole table.

    Attributes:
        node_nm: of logic and SRAM.
        sources: where figures come from, by the name of a table or of a figure in one.
    """

    node_nm: Factor
    vector: Vector
    matrix: Matrix
    dma: Dma
    sequencer: Sequencer
    sram: Scaling
    wires: Wires
    memory: dict[str, Interface]
    layout: Layout
    sources: dict[str, str]

    @model_validator(mode="after")
    def _covers_memories(self) -> Costs:
        if missing := sorted(set(devices()) - self.memory.keys()):
            raise ValueError(f"memory: no figures of {missing[0]}")
        return self

    def multiplier(self, first: str, second: str) -> Multiplier:
        """The multiplier of two MX formats, in either order.

        A pair that the table does not have is taken as the smallest one that has at least as many bits on both sides.

        Raises:
            UnmaskError: none has.
        """
        for known in self.matrix.multipliers.values():
            if sorted(known.formats) == sorted((first, second)):
                return known
        wanted = sorted(_width(name) for name in (first, second))
        larger = [
            known
            for known in self.matrix.multipliers.values()
            if all(bits >= least for bits, least in zip(sorted(map(_width, known.formats)), wanted, strict=True))
        ]
        if not larger:
            raise UnmaskError(f"costs: no multiplier of {first} and {second}, nor a larger one (matrix.multipliers)")
        return min(larger, key=lambda known: known.area_um2)


def _width(name: str) -> int:
    return mx.format_named(name).element.significand_bits


def _merged(table: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The table with the leaves of `changes` in place of its own."""
    return table | {
        key: _merged(table[key], value) if isinstance(value, dict) and isinstance(table.get(key), dict) else value
        for key, value in changes.items()
    }


@cache
def _shipped() -> dict[str, Any]:
    return tomllib.loads((resources.files("unmask.silicon.cost") / "costs.toml").read_text("utf-8"))


def load_costs(path: str | Path | None = None) -> Costs:
    """The table that ships with unmask, some of its figures replaced by those of a file.

    Args:
        path: a TOML file that has only what it changes.

    Raises:
        UnmaskError: the file cannot be read, has a figure that the table does not have, or one that is not allowed; the message names it.
    """
    changes: dict[str, Any] = {}
    if path is not None:
        try:
            changes = tomllib.loads(Path(path).read_text("utf-8"))
        except OSError as error:
            raise UnmaskError(f"{path}: cannot read the cost file: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UnmaskError(f"{path}: not TOML: {error}") from None
        changes = changes | {"sources": {**dict.fromkeys(_names(changes), str(path)), **changes.get("sources", {})}}
    try:
        return Costs.model_validate(_merged(_shipped(), changes))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or "the table"
        said = "unknown figure" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
        raise UnmaskError(f"{path or 'costs.toml'}: {name}: {said}") from None


def _names(changes: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the figures of a file."""
    found: list[str] = []
    for key, value in changes.items():
        if prefix or key != "sources":
            found += _names(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]
    return found

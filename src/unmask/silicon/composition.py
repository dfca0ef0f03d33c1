"""The vector engine at widths that are too large to synthesize, composed of what was synthesized at smaller ones.

A block that stands there once per lane, or per pair of lanes, is counted. One that stands there once and grows, a tree or the logic between
the lanes, follows its own recurrence: of twice the width it is two of the width before and what joins them, A(2n) = 2 A(n) + d(n); the
joint d, a node of the tree that is one level higher and a bit wider, is carried on linearly in log2 n. The same recurrence holds for
power. How far it can be trusted is measured: the largest synthesized width is also composed of the smaller ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from unmask.errors import UnmaskError
from unmask.rtl.speed import machine_of
from unmask.silicon.liberty import Library
from unmask.silicon.measure import Measurement, measure

SYNTHESIZED = (8, 16, 32, 64, 128)
COMPOSED = (256, 512, 1024, 2048)
# The table of arXiv 2601.20706 v1: vector datapath in ASAP7 after synthesis at 1 GHz, mm2 and mW by VLEN.
PUBLISHED = {512: (0.731, 381.72), 1024: (1.464, 762.65), 2048: (2.931, 1524.53)}


@dataclass(frozen=True)
class Row:
    """A width: `how` is synthesized or composed; the worst slack of a composed one is that of the largest synthesized.

    Attributes:
        published_mm2, published_mw: of the published design, where it has that width.
    """

    vlen: int
    how: str
    area_mm2: float
    area_um2_per_lane: float
    power_mw: float
    power_mw_per_lane: float
    wns_ps: float | None
    published_mm2: float | None
    published_mw: float | None


@dataclass(frozen=True)
class Composition:
    """The table.

    Attributes:
        library, unit, clock_ps, activity: what all rows are of.
        checked_vlen: a width that was both synthesized and composed of smaller ones.
        area_error, power_error: of the composed figures there, as fractions.
    """

    unit: str
    library: str
    clock_ps: float
    activity: str
    checked_vlen: int
    area_error: float
    power_error: float
    rows: list[Row]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def continued(values: Sequence[float]) -> float:
    """The next of values at doubling widths, of which there are at least two.

    Values that do not change stay; those that double go on to; the rest follow A(2n) = 2 A(n) + d(n) with d linear in log2 n.
    """
    joints = [later - 2 * earlier for earlier, later in pairwise(values)]
    if values[-1] == values[-2]:
        return values[-1]
    step = joints[-1] - joints[-2] if len(joints) > 1 else 0.0
    return 2 * values[-1] + joints[-1] + step


def composed_area(points: Sequence[Measurement]) -> float:
    """Area at twice the width of the last point, of points at doubling widths.

    Raises:
        UnmaskError: the points have different blocks.
    """
    names = {block.name for block in points[-1].blocks if not block.macro_bits}
    total = 0.0
    for name in sorted(names):
        found = [[block for block in point.blocks if block.name == name] for point in points[-3:]]
        if any(len(blocks) != 1 for blocks in found):
            raise UnmaskError(f"{points[-1].unit}: block {name} is not there at each of the widths {[point.vlen for point in points[-3:]]}")
        instances = continued([float(blocks[0].instances) for blocks in found])
        areas = [blocks[0].area_um2 for blocks in found]
        scales = found[-1][0].instances != found[-2][0].instances
        total += instances * (areas[-1] if scales else continued(areas))
    return total


def _of_part(point: Measurement, part: str) -> tuple[float, float]:
    """(area, power) of a part, or of the whole if it has no name.

    Raises:
        UnmaskError: there is no such part.
    """
    if not part:
        return point.area_um2, point.power_mw
    for found in point.parts:
        if found.name == part:
            return found.area_um2, found.power_mw
    raise UnmaskError(f"{point.unit} has no part {part!r}: expected one of {', '.join(found.name for found in point.parts)}")


def table(
    library: Library,
    clock_ps: float,
    cache: Path,
    *,
    unit: str = "sampler",
    part: str = "",
    machine: str = "sampler",
    synthesized: Sequence[int] = SYNTHESIZED,
    composed: Sequence[int] = COMPOSED,
    measured: Callable[[int], Measurement] | None = None,
) -> Composition:
    """Area, power and slack of a unit by width.

    Args:
        unit: of the registry; part: an instance in it that the table is of, all of it by default.
        synthesized: at least four widths, each twice the one before; composed: those after them.
        measured: how a width is measured; by default with random inputs.

    Raises:
        UnmaskError: as `measure`.
    """
    at = measured or (lambda vlen: measure(unit, machine_of(machine, vlen), library, clock_ps, cache))
    points = [at(vlen) for vlen in synthesized]
    last = points[-1]
    areas, powers = ([_of_part(point, part)[index] for point in points] for index in (0, 1))

    def area_after(points: Sequence[Measurement], areas: Sequence[float]) -> float:
        return continued(areas[-3:]) if part else composed_area(points)

    area_error = area_after(points[:-1], areas[:-1]) / areas[-1] - 1
    power_error = continued(powers[-4:-1]) / powers[-1] - 1
    measured_rows = zip(points, areas, powers, strict=True)
    rows = [_row(point.vlen, "synthesized", area, power, point.wns_ps) for point, area, power in measured_rows]
    for index, vlen in enumerate(composed):
        areas.append(continued(areas[-3:]) if index else area_after(points, areas))
        powers.append(continued(powers[-3:]))
        rows.append(_row(vlen, "composed", areas[-1], powers[-1], last.wns_ps))
    name = f"{unit}, part {part}" if part else unit
    return Composition(name, library.name, clock_ps, last.activity, last.vlen, area_error, power_error, rows)


def _row(vlen: int, how: str, area: float, power: float, slack: float | None) -> Row:
    published = PUBLISHED.get(vlen, (None, None))
    return Row(vlen, how, area / 1e6, area / vlen, power, power / vlen, slack, *published)

"""The vector datapath at any width, added up of its parts, each of which is synthesized and timed by itself.

Parts that stand there once per lane count that often. The trees and the generators of random words grow with the width: beyond the largest
one that is synthesized they follow `composition.continued`. Flip-flops lie between all parts, so the worst slack is that of the worst part.
Not in it: the rows' accumulators, the units of single words, control, memories, and the operand switches between the parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unmask.rtl.speed import machine_of
from unmask.silicon.composition import COMPOSED, PUBLISHED, SYNTHESIZED, continued
from unmask.silicon.liberty import Library
from unmask.silicon.measure import Measurement, measure
from unmask.silicon.stimulus import idle_inputs, sampling_inputs

PER_LANE = ("lane", "gumbel", "scale")
BY_WIDTH = ("max_tree", "window_tree", "words")
LINEAR_FROM = {"words": 16}
"""Parts that are linear in the width but for what all their equal generators share: synthesized up to that width."""
NOISE = frozenset({"gumbel", "scale", "words"})
"""Parts that only sampling at a temperature above 0 needs."""


@dataclass(frozen=True)
class PartRow:
    """A part at a width, all its instances together; its slack is that of the largest width that was synthesized.

    Attributes:
        power_mw_per_lane: at a vector in every cycle; idle_mw_per_lane: while nothing runs.
    """

    part: str
    vlen: int
    area_um2_per_lane: float
    power_mw_per_lane: float
    idle_mw_per_lane: float
    wns_ps: float | None


@dataclass(frozen=True)
class DatapathRow:
    """The datapath at a width, with the noise of sampling or without.

    Attributes:
        how: synthesized, part by part; or composed, some parts being carried on from smaller widths.
        power_mw: at a vector in every cycle. idle_mw: while nothing runs. A run is busy for a share of its cycles, and takes that share of
            the one and the rest of the other.
        published_mm2, published_mw: of the published design, where it has that width.
    """

    vlen: int
    noise: bool
    how: str
    area_mm2: float
    area_um2_per_lane: float
    power_mw: float
    power_mw_per_lane: float
    idle_mw: float
    wns_ps: float | None
    published_mm2: float | None
    published_mw: float | None


@dataclass(frozen=True)
class Datapath:
    """The table.

    Attributes:
        checked_vlen: the largest synthesized width, which was also composed of the smaller ones.
        area_error, power_error: of the composed figures there, as fractions.
        parts: at the largest synthesized and at the largest composed width.
    """

    library: str
    clock_ps: float
    activity: str
    checked_vlen: int
    area_error: float
    power_error: float
    rows: list[DatapathRow]
    parts: list[PartRow]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def datapath(
    library: Library,
    clock_ps: float,
    cache: Path,
    *,
    machine: str = "sampler",
    synthesized: Sequence[int] = SYNTHESIZED,
    composed: Sequence[int] = COMPOSED,
    measured: Callable[[str, int, bool], Measurement] | None = None,
) -> Datapath:
    """Area, power and slack of the datapath by width.

    Args:
        machine: a preset or file; its latencies become those of the width.
        synthesized: at least three widths, each twice the one before; composed: those after them.
        measured: how a unit is measured at a width, idle or not; by default at the activity of `idle_inputs` or `sampling_inputs`.

    Raises:
        UnmaskError: as `measure`.
    """

    def own(unit: str, vlen: int, idle: bool) -> Measurement:
        return measure(unit, machine_of(machine, vlen), library, clock_ps, cache, idle_inputs if idle else sampling_inputs)

    at, largest = measured or own, synthesized[-1]
    widths = {part: [vlen for vlen in synthesized if vlen <= LINEAR_FROM.get(part, vlen)] for part in BY_WIDTH}
    widths |= {part: [synthesized[0]] for part in PER_LANE}
    found = {part: [at(part, vlen, False) for vlen in of_part] for part, of_part in widths.items()}
    still = {part: [at(part, vlen, True) for vlen in of_part] for part, of_part in widths.items()}

    def series(part: str, known: int, figure: Callable[[Measurement], float], points: dict[str, list[Measurement]]) -> dict[int, float]:
        """A figure by width, all instances together, what follows the first `known` synthesized widths being carried on."""
        if part in PER_LANE:
            return {vlen: vlen * figure(points[part][0]) for vlen in (*synthesized, *composed)}
        values = {vlen: figure(point) for vlen, point in zip(synthesized[:known], points[part], strict=False)}
        for vlen in (*synthesized, *composed):
            if vlen not in values:
                values[vlen] = continued(list(values.values())[-3:])
        return values

    parts = (*PER_LANE, *BY_WIDTH)
    figures = (lambda point: point.area_um2, lambda point: point.power_mw)
    areas, powers = ({part: series(part, len(synthesized), figure, found) for part in parts} for figure in figures)
    idles = {part: series(part, len(synthesized), figures[1], still) for part in parts}
    checks = [
        sum(series(part, len(synthesized) - 1, figure, found)[largest] for part in parts) / sum(exact[part][largest] for part in parts) - 1
        for figure, exact in zip(figures, (areas, powers), strict=True)
    ]
    slacks = {part: found[part][-1].wns_ps for part in parts}
    rows = []
    for noise in (True, False):
        used = [part for part in parts if noise or part not in NOISE]
        worst = min((slack for part in used if (slack := slacks[part]) is not None), default=None)
        for vlen in (*synthesized, *composed):
            area, power, idle = (sum(values[part][vlen] for part in used) for values in (areas, powers, idles))
            how = "synthesized" if vlen <= largest else "composed"
            published = PUBLISHED.get(vlen, (None, None))
            rows.append(DatapathRow(vlen, noise, how, area / 1e6, area / vlen, power, power / vlen, idle, worst, *published))
    by_part = [
        PartRow(part, vlen, areas[part][vlen] / vlen, powers[part][vlen] / vlen, idles[part][vlen] / vlen, slacks[part])
        for vlen in (largest, *composed[-1:])
        for part in parts
    ]
    activity = found["lane"][0].activity
    return Datapath(library.name, clock_ps, activity, largest, checks[0], checks[1], rows, by_part)

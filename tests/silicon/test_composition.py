"""Wide engines composed of narrow ones."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from unmask.errors import UnmaskError
from unmask.silicon.composition import composed_area, continued, table
from unmask.silicon.datapath import datapath
from unmask.silicon.liberty import Library
from unmask.silicon.measure import BlockFigures, Measurement, Part


def node(level: int) -> float:
    """Area of a tree's node: a bit wider at each level."""
    return 20 + 3 * level


# Of a measurement: internal, switching, leakage, flip-flops, clock, clock gates, and the share of clock pulses that are not stopped.
IDLE = (0.0, 0.0, 0.0, 0.0, 0.0, 0, 1.0)


def tree(lanes: int) -> float:
    levels = lanes.bit_length() - 1
    return sum(node(level) * (lanes >> level) for level in range(1, levels + 1))


def point(vlen: int, lane_area: float = 300.0) -> Measurement:
    """A machine of lanes, a tree and a control that does not grow."""
    areas = {"lane": (vlen, lane_area), "tree": (1, tree(vlen)), "control": (1, 900.0)}
    blocks = [BlockFigures(name, number, 1, area, 0, None, 0.0) for name, (number, area) in areas.items()]
    blocks.append(BlockFigures("memory", 4, 0, 0.0, 1024, None, 0.0))
    area = sum(block.instances * block.area_um2 for block in blocks)
    parts = [Part("vector", area - 900, vlen * 0.5)]
    return Measurement(
        "sampler", vlen, vlen, 1000, "kit", 1, 1, area, area / vlen, 10, "", vlen * 0.5 + 3, 0, *IDLE, "a run", 1, 0, 0, parts, blocks
    )


def test_lanes_trees_and_control_compose_exactly() -> None:
    points = [point(vlen) for vlen in (8, 16, 32, 64)]
    assert composed_area(points) == pytest.approx(point(128).area_um2)


def test_a_table_says_how_far_off_its_composition_is() -> None:
    library = cast(Library, type("Kit", (), {"name": "kit"}))
    found = table(library, 1000, Path(), measured=lambda vlen: point(vlen, 300.0 if vlen < 128 else 330.0))
    assert found.checked_vlen == 128
    assert found.area_error == pytest.approx(point(128).area_um2 / point(128, 330.0).area_um2 - 1)
    assert found.power_error == pytest.approx(0, abs=1e-9)
    assert [row.how for row in found.rows].count("composed") == 4
    assert found.rows[-1].published_mm2 == 2.931


def test_a_part_is_composed_by_itself() -> None:
    library = cast(Library, type("Kit", (), {"name": "kit"}))
    found = table(library, 1000, Path(), part="vector", measured=point)
    assert found.rows[-1].area_mm2 * 1e6 == pytest.approx(2048 * 300 + tree(2048))
    assert found.rows[-1].power_mw == pytest.approx(1024)
    with pytest.raises(UnmaskError, match="no part"):
        table(library, 1000, Path(), part="matrix", measured=point)


def test_what_does_not_change_stays_and_what_doubles_doubles() -> None:
    assert continued([7, 7, 7]) == 7
    assert continued([1, 2, 4]) == 8


def test_a_datapath_is_the_sum_of_its_parts_with_and_without_noise() -> None:
    library = cast(Library, type("Kit", (), {"name": "kit"}))

    def part(unit: str, vlen: int, idle: bool) -> Measurement:
        areas = {"lane": 400, "gumbel": 900, "scale": 150, "words": 100 + 50 * (vlen // 2 + 1)}
        area = areas.get(unit, tree(vlen))
        power = area / (1000 if idle else 100)
        return Measurement(unit, vlen, vlen, 1000, "kit", 1, 1, area, area / vlen, -5, "", power, 0, *IDLE, "a run", 1, 0, 0, [], [])

    found = datapath(library, 1000, Path(), synthesized=(8, 16, 32), composed=(64, 2048), measured=part)
    area = {(row.vlen, row.noise): row.area_mm2 * 1e6 for row in found.rows}
    for vlen in (8, 32, 64):
        assert area[vlen, False] == pytest.approx(400 * vlen + 2 * tree(vlen))
        assert area[vlen, True] - area[vlen, False] == pytest.approx(1050 * vlen + 100 + 50 * (vlen // 2 + 1))
    assert abs(found.area_error) < 0.01
    assert all(row.idle_mw == pytest.approx(row.power_mw / 10) for row in found.rows)
    assert {row.wns_ps for row in found.rows} == {-5}

"""Gates in other sizes: the same logic, in less time, and counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from unmask.silicon.gates import Gates
from unmask.silicon.liberty import Library
from unmask.silicon.logic import truth_table
from unmask.silicon.measure import random_inputs
from unmask.silicon.sizing import near_sizes, sized
from unmask.silicon.synthesis import synthesize
from unmask.silicon.timing import analyse

from .designs import Twins

CLOCK_PS = 5000.0


@pytest.mark.usefixtures("sta")
def test_a_netlist_that_misses_the_clock_gets_faster_and_stays_the_same(osu018: Library, cache: Path) -> None:
    before = synthesize(Twins(), "twins", osu018, CLOCK_PS, cache)
    gates = Gates(before)
    slow = analyse(before, gates, CLOCK_PS, before.folder / "slow").critical
    assert slow is not None
    clock_ps = CLOCK_PS - slow.slack_ps - 30.0
    after = sized(before, clock_ps)
    assert after.sizes
    resized = Gates(after)
    fast = analyse(after, resized, clock_ps, after.folder / "fast").critical
    assert fast is not None
    assert fast.slack_ps > -30.0 + 1.0

    stimulus = random_inputs(gates, 200)
    np.testing.assert_array_equal(resized.run(stimulus)[0], gates.run(stimulus)[0])
    assert after.cells == before.cells == len(after.flat["cells"])
    assert after.area == pytest.approx(sum(osu018.cells[cell["type"]].area for cell in after.flat["cells"].values()))
    assert sized(before, clock_ps) == replace(before, sizes=after.sizes)


@pytest.mark.usefixtures("sta")
def test_a_netlist_that_meets_the_clock_is_left_alone(osu018: Library, cache: Path) -> None:
    netlist = synthesize(Twins(), "twins", osu018, CLOCK_PS, cache)
    assert not sized(netlist, 100_000.0).sizes


def test_sizes_are_of_the_same_logic(osu018: Library) -> None:
    near = near_sizes(osu018)
    assert near["INVX1"][0] == "INVX2"
    assert not [name for name in near if name.startswith(("DFF", "LATCH", "TBUF"))]
    for name, sizes in near.items():
        inputs = sorted(pin.name for pin in osu018.cells[name].pins if pin.direction == "input")
        tables = [{pin.name: pin.function for pin in osu018.cells[each].pins} for each in (name, *sizes)]
        assert name not in sizes
        for pin, function in tables[0].items():
            for other in tables[1:]:
                assert set(other) == set(tables[0])
                if function is not None:
                    np.testing.assert_array_equal(truth_table(str(other[pin]), inputs), truth_table(function, inputs))


@pytest.mark.usefixtures("sta")
def test_a_size_is_counted_once(osu018: Library, cache: Path) -> None:
    netlist = synthesize(Twins(), "twins", osu018, CLOCK_PS, cache)
    name, cell = next((name, cell) for name, cell in netlist.flat["cells"].items() if cell["type"] in near_sizes(osu018))
    other = near_sizes(osu018)[cell["type"]][0]
    for size in (cell["type"], other):
        changed = replace(netlist, sizes={name: size})
        assert changed.cells == netlist.cells
        assert changed.area - netlist.area == pytest.approx(osu018.cells[size].area - osu018.cells[cell["type"]].area)

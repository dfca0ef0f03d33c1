"""Units that stand in a design many times: one module for those of the same sizes, another one for any other."""

import re
from typing import Any

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from unmask.numerics.formats import E2M1, INT8
from unmask.rtl.matrix.dot import BlockDot
from unmask.rtl.noise import Gumbel
from unmask.rtl.verilog import rtlil_of


class Several(wiring.Component):
    """Units beside each other, their ports left alone."""

    def __init__(self, *units: wiring.Component) -> None:
        self._units = units
        super().__init__({"a": In(1), "b": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        for number, unit in enumerate(self._units):
            m.submodules[f"unit_{number}"] = unit
        m.d.comb += self.b.eq(self.a)
        return m


def instances(*units: wiring.Component) -> list[str]:
    """The modules that the units are instances of, in order."""
    return re.findall(r"^  cell (\S+) \\unit_", rtlil_of(Several(*units), "top"), re.MULTILINE)


def test_units_of_the_same_sizes_are_instances_of_one_module() -> None:
    one, other = instances(BlockDot(INT8, [E2M1], 2), BlockDot(INT8, [E2M1], 2))
    assert one == other


@pytest.mark.parametrize("other", [BlockDot(INT8, [E2M1], 1), BlockDot(E2M1, [E2M1], 2), BlockDot(INT8, [E2M1, INT8], 2)])
def test_units_of_other_sizes_are_not(other: BlockDot) -> None:
    one, two = instances(BlockDot(INT8, [E2M1], 2), other)
    assert one != two


def test_a_module_is_written_once_with_its_clock_and_the_units_are_as_they_were_after_it() -> None:
    before = Gumbel.elaborate
    text = rtlil_of(Several(Gumbel(4), Gumbel(4), Gumbel(5)), "top")
    assert Gumbel.elaborate is before
    assert len(re.findall(r"^module \\top\.gumbel", text, re.MULTILINE)) == 2
    assert len(re.findall(r"^    connect \\clk \\clk", text, re.MULTILINE)) == 3


def test_a_unit_by_itself_is_written_as_it_is() -> None:
    text = rtlil_of(Gumbel(4), "top")
    assert re.findall(r"^module (\S+)", text, re.MULTILINE)[-1] == "\\top"
    assert "gumbel" not in text


def test_an_attribute_whose_meaning_is_unknown_is_refused() -> None:
    unit = BlockDot(INT8, [E2M1], 2)
    unit.table = {1: 2}
    with pytest.raises(TypeError, match="a repeated unit is made of"):
        rtlil_of(Several(unit), "top")

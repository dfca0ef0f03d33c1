"""Integrated clock gates of a library: a latch that is open while the clock is low, and an AND that passes the clock while it holds 1."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unmask.silicon import logic

if TYPE_CHECKING:
    from unmask.silicon.liberty import Group

_KIND = re.compile(r"latch_posedge(_precontrol|_postcontrol)?$")
_NUMBER = re.compile(r"-?\d[\d.eE+-]*")


@dataclass(frozen=True)
class ClockGate:
    """A clock gate for rising edges.

    Attributes:
        cell: its name. area: in the library's unit.
        clock, enable, output: pins. low: pins that are tied low, which are for test.
        running, stopped: energy inside the cell in a cycle whose clock pulse it passes, and in one whose pulse it stops, in the library's
            unit of energy, at the sharpest clock edge of the tables.
    """

    cell: str
    area: float
    clock: str
    enable: str
    output: str
    low: tuple[str, ...]
    running: float
    stopped: float

    @property
    def verilog(self) -> str:
        """A model."""
        pins = ", ".join((self.clock, self.enable, *self.low, self.output))
        inputs = ", ".join((self.clock, self.enable, *self.low))
        return f"""module {self.cell} ({pins});
  input {inputs};
  output {self.output};
  reg held;
  always @* if (!{self.clock}) held = {" | ".join((self.enable, *self.low))};
  assign {self.output} = {self.clock} & held;
endmodule
"""


def clock_gate(cell: Group) -> ClockGate | None:
    """The clock gate that a Liberty cell is, or nothing. Without the tables of its internal power it seems to need no energy."""
    if not _KIND.match(cell.attributes.get("clock_gating_integrated_cell", "")):
        return None
    roles = {role: [pin.name for pin in cell.all("pin") if pin.attributes.get(f"clock_gate_{role}_pin") == "true"] for role in _ROLES}
    inputs = [pin.name for pin in cell.all("pin") if pin.attributes.get("direction") == "input"]
    if any(len(roles[role]) != 1 for role in ("clock", "enable", "out")):
        return None
    (clock,), (enable,), (output,) = (roles[role] for role in ("clock", "enable", "out"))
    low = tuple(pin for pin in inputs if pin not in (clock, enable))
    if set(low) != set(roles["test"]):
        return None
    pins = {pin.name: pin for pin in cell.all("pin")}
    still = dict.fromkeys(low, False)
    passes = [power for power in pins[output].all("internal_power") if power.attributes.get("related_pin", clock) == clock]
    running = _energy(passes, {**still, enable: True})
    stopped = _energy(list(pins[clock].all("internal_power")), {**still, enable: False, output: False})
    return ClockGate(cell.name, float(cell.attributes.get("area", 0)), clock, enable, output, low, running, stopped)


_ROLES = ("clock", "enable", "out", "test")


def _energy(powers: list[Group], values: Mapping[str, bool]) -> float:
    """Of a rise and a fall, where pins have these values: the most at any load."""
    total = 0.0
    for power in powers:
        when = power.attributes.get("when", "1")
        names = logic.names(when)
        if not set(names) <= values.keys():
            continue
        if logic.truth_table(when, names)[sum(values[name] << index for index, name in enumerate(names))]:
            for edge in ("rise_power", "fall_power"):
                total += sum(_most(table) for table in power.all(edge))
    return total


def _most(table: Group) -> float:
    """The largest of a table's first row, or of a table by the clock's edge alone the first."""
    text = table.attributes.get("values", "")
    rows = [[float(number) for number in _NUMBER.findall(row)] for row in text.split('"')]
    rows = [row for row in rows if row]
    return (max(rows[0]) if len(rows) > 1 else rows[0][0]) if rows else 0.0

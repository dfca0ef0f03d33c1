"""Static timing and power of a netlist, by OpenSTA: no wires, an ideal clock."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unmask.errors import UnmaskError
from unmask.silicon.calibration import internal_power_scale
from unmask.silicon.gates import Gates
from unmask.silicon.synthesis import CLOCK, OUTPUT_LOAD, Netlist
from unmask.silicon.tools import run
from unmask.silicon.verilog import TIES, Names, names_of, verilog

RESET = "rst"
# OpenSTA gives up at a cell whose power is no number to it, as happens to one in 180,000 whose pins do not toggle: then it is asked for
# each cell by itself, and that one is left out.
_POWER_OF_ALL = """proc power_of_all {file} {
  if {[catch {report_power -instances [get_cells *] -digits 9 > $file}]} {
    foreach cell [get_cells *] { catch {report_power -instances $cell -digits 9 >> $file} }
  }
}"""


@dataclass(frozen=True)
class TimingPath:
    """A path: from where to where, through how many cells, and the time that is left over, in picoseconds."""

    start: str
    end: str
    levels: int
    slack_ps: float


@dataclass(frozen=True)
class Power:
    """Milliwatts: inside cells, on their outputs, leaking; of that, of registers, clock pins included, and of the clock: pins, gates and
    gated nets; and of each cell, [instances].
    """

    internal_mw: float
    switching_mw: float
    leakage_mw: float
    registers_mw: float
    clock_mw: float
    cells_mw: NDArray[np.float64]

    @property
    def total_mw(self) -> float:
        """All of it."""
        return self.internal_mw + self.switching_mw + self.leakage_mw


@dataclass(frozen=True)
class Analysis:
    """What OpenSTA says: the critical path, the critical one between flip-flops if there is one, and power.

    Attributes:
        slacks_ps: worst slack of the paths that end in a cell, by the position of the cell in `Gates.instances`.
    """

    critical: TimingPath | None
    inside: TimingPath | None
    power: Power
    slacks_ps: dict[int, float]


def analyse(
    netlist: Netlist, gates: Gates, clock_ps: float, folder: Path, toggles: NDArray[np.float64] | None = None, rate: float = 0.1
) -> Analysis:
    """Time a netlist and add up its power.

    Inputs come from the library's driver at the clock edge, outputs are due at the next one; the reset is not timed, since it is held for
    many cycles.

    Args:
        netlist, gates: the same design.
        clock_ps: period.
        folder: for the scripts and reports.
        toggles: [nets] changes per cycle of each net, from a simulation, gated clocks included; without it every input and flip-flop output
            has `rate`, and no clock is stopped.
        rate: changes per cycle where nothing was simulated.

    Raises:
        UnmaskError: OpenSTA is missing or failed.
    """
    names = names_of(gates, netlist.flat)
    start = constraints(netlist, gates, names, clock_ps, folder)
    script = _paths("critical", "") + _paths("inside", "-from [all_registers -clock_pins] -to [all_registers -data_pins]")
    script.append(f"report_checks -path_delay max -format end -group_count {len(gates.instances) + 1} -digits 6 > ends.txt")
    opensta(folder, "timing", verilog(gates, names, netlist.top), [*start, *script])
    scale = netlist.library.time_unit / 1e-12
    slacks = _slacks(folder / "ends.txt", names, scale)
    power = power_of(netlist, gates, clock_ps, folder, toggles, rate)
    return Analysis(_path(folder / "critical.txt", scale), _path(folder / "inside.txt", scale), power, slacks)


def power_of(
    netlist: Netlist, gates: Gates, clock_ps: float, folder: Path, toggles: NDArray[np.float64] | None = None, rate: float = 0.1
) -> Power:
    """The power of a netlist; arguments and errors as of `analyse`, which takes longer."""
    names = names_of(gates, netlist.flat)
    start = constraints(netlist, gates, names, clock_ps, folder)
    # The activity of gates that constants silence is worked out in no order, and ends OpenSTA: ports hold 0 and 1 instead.
    script = [f"sta::set_power_input_port_activity [get_ports {tie}] 0 {level}" for level, tie in enumerate(TIES)]
    if toggles is None:
        script += [f"set_power_activity -global -activity {rate} -duty 0.5", f"set_power_activity -input -activity {rate} -duty 0.5"]
    else:
        # The option for pins of `set_power_activity` is broken in Debian's OpenSTA; what it is meant to call works.
        for (_, _, pins), instance in zip(gates.instances, names.instances, strict=True):
            for pin, net in pins.items():
                script.append(f"sta::set_power_pin_activity [get_pins {instance}/{pin}] {toggles[net]:.6g} 0.5")
        for port in gates.inputs:
            for bit, net in zip(names.ports[port.name], port.nets, strict=True):
                script.append(f"sta::set_power_input_port_activity [get_ports {bit}] {toggles[net]:.6g} 0.5")
    # Once more while nothing but clocks toggles: OpenSTA takes every gated clock to run.
    still = "set_power_activity -global -activity 0 -duty 0.5"
    script += [_POWER_OF_ALL, "power_of_all power.txt", still, "power_of_all clock.txt"]
    opensta(folder, "power", verilog(gates, names, netlist.top, tied=True), [*start, *script])
    clocks, watts = (_watts(folder / file, names) for file in ("clock.txt", "power.txt"))
    if toggles is not None:
        # One that is left out and whose pins do not toggle takes what it takes while nothing does.
        quiet = np.array([not any(toggles[net] for net in pins.values()) for _, _, pins in gates.instances], np.bool_)
        left_out = quiet & np.isnan(watts[:, 0])
        watts[left_out] = clocks[left_out]
    for file, found in (("clock.txt", clocks), ("power.txt", watts)):
        if (unknown := np.flatnonzero(np.isnan(found[:, 0]))).size:
            raise UnmaskError(f"{folder / file}: OpenSTA does not report the power of instance {names.instances[unknown[0]]}")
    return _power(watts, clocks, gates, toggles, clock_ps * 1e-12)


def constraints(netlist: Netlist, gates: Gates, names: Names, clock_ps: float, folder: Path) -> list[str]:
    """A script's start, in a folder that is there: the design, its clock, what drives its inputs and loads its outputs."""
    folder.mkdir(parents=True, exist_ok=True)
    library, driver = netlist.library, netlist.library.driver
    period = clock_ps * 1e-12 / library.time_unit
    output = next(pin.name for pin in driver.pins if pin.direction == "output")
    start = [
        f"read_liberty {{{library.full.resolve()}}}",
        "read_verilog netlist.v",
        f"link_design {netlist.top}",
        f"create_clock -name {CLOCK} -period {period:.6g} [get_ports {CLOCK}]",
    ]
    for port in gates.inputs:
        for bit in names.ports[port.name]:
            start.append(f"set_driving_cell -lib_cell {driver.name} -pin {output} [get_ports {bit}]")
            start.append(
                f"set_false_path -from [get_ports {bit}]" if port.name == RESET else f"set_input_delay 0 -clock {CLOCK} [get_ports {bit}]"
            )
    load = OUTPUT_LOAD * library.load_of(driver)
    for port in gates.outputs:
        for bit in names.ports[port.name]:
            start += [f"set_output_delay 0 -clock {CLOCK} [get_ports {bit}]", f"set_load {load:.6g} [get_ports {bit}]"]
    return start


def opensta(folder: Path, name: str, netlist: str, script: list[str]) -> None:
    """Run a script of OpenSTA's on a netlist, in a folder.

    Raises:
        UnmaskError: it is missing or failed.
    """
    (folder / "netlist.v").write_text(netlist)
    (folder / f"{name}.tcl").write_text("\n".join([*script, "exit", ""]))
    log = run("sta", ["-no_splash", "-exit", f"{name}.tcl"], folder)
    (folder / f"{name}.log").write_text(log)
    if "Error" in log:
        raise UnmaskError(f"OpenSTA in {folder}: {next(line for line in log.splitlines() if 'Error' in line)}")


def _paths(name: str, which: str) -> list[str]:
    return [f"report_checks -path_delay max -format full -digits 6 {which} > {name}.txt"]


def _path(file: Path, scale: float) -> TimingPath | None:
    """The path of a `report_checks`."""
    text = file.read_text()
    slack = re.search(r"(-?[\d.]+)\s+slack", text)
    start, end = re.search(r"Startpoint: (\S+)", text), re.search(r"Endpoint: (\S+)", text)
    if not (slack and start and end):
        return None
    levels = len(re.findall(r"^\s+-?[\d.]+\s+-?[\d.]+ [v^] \S+/\S+ \(", text.partition("data arrival time")[0], re.MULTILINE))
    return TimingPath(start[1], end[1], levels, float(slack[1]) * scale)


def _slacks(file: Path, names: Names, scale: float) -> dict[int, float]:
    """The worst slack at each cell where paths end, by its position, of a `report_checks` of all ends; what ends in a port is left out."""
    positions = {name: position for position, name in enumerate(names.instances)}
    found: dict[int, float] = {}
    for line in file.read_text().splitlines():
        end = re.match(r"(\S+)/\S+ \(.*\) .*?(-?[\d.]+)(?: \(\w+\))?$", line)
        if end and end[1] in positions:
            position, slack = positions[end[1]], float(end[2]) * scale
            found[position] = min(slack, found.get(position, slack))
    return found


def _watts(file: Path, names: Names) -> NDArray[np.float64]:
    """[instances, 3] of a `report_power` of all: internal, switching, leakage; NaN for one that is left out."""
    found = {}
    for line in file.read_text().splitlines():
        words = line.split()
        if len(words) == 5 and re.match(r"-?\d", words[0]):
            found[words[4]] = [float(word) for word in words[:3]]
    watts = np.array([found.get(instance, [np.nan] * 3) for instance in names.instances]).reshape(-1, 3)
    watts[:, 0] *= internal_power_scale()
    return watts


def _power(
    all_toggle: NDArray[np.float64],
    clocks_toggle: NDArray[np.float64],
    gates: Gates,
    toggles: NDArray[np.float64] | None,
    period: float,
) -> Power:
    """The sums, less what stopped clocks save.

    Args:
        all_toggle, clocks_toggle: watts of each instance at the activity, and where only clocks have any; no clock being stopped.
        toggles: as `analyse`. period: seconds.
    """
    library = gates.library
    watts, clock = all_toggle.copy(), np.zeros(len(all_toggle))
    for index, (_, kind, pins) in enumerate(gates.instances):
        cell, gate = library.cells[kind], library.clock_gates.get(kind)
        if gate is not None:
            runs = 1.0 if toggles is None else toggles[pins[gate.output]] / 2
            own = (runs * gate.running + (1 - runs) * gate.stopped) * library.energy_unit / period
            watts[index, 0] += own - clocks_toggle[index, 0]
            watts[index, 1] *= runs
            clock[index] = own + watts[index, 1]
        elif cell.sequential:
            net = pins[cell.clocked_on.strip("() ")]
            runs = 1.0 if toggles is None or net not in gates.clock_gates else toggles[net] / 2
            watts[index, 0] -= (1 - runs) * clocks_toggle[index, 0]
            clock[index] = runs * clocks_toggle[index, 0]
    internal, switching, leakage = 1e3 * watts.sum(axis=0)
    own_mw = 1e3 * watts.sum(axis=1)
    registers = sum(own for own, (_, kind, _) in zip(own_mw, gates.instances, strict=True) if library.cells[kind].sequential)
    return Power(float(internal), float(switching), float(leakage), float(registers), float(1e3 * clock.sum()), own_mw)

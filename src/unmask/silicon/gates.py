"""A netlist of standard cells as arrays, and its simulation cycle by cycle, with the number of times each net toggles.

Gates are evaluated at most once a cycle, in the order of their levels, and only where an input has changed; glitches are not counted. Every
flip-flop is on the one clock, or behind a clock gate on it: then it takes its next state at the end of the cycles in which the gate's
enable is 1, which the gate's latch sees while the clock is low.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from unmask.errors import UnmaskError
from unmask.silicon import logic
from unmask.silicon.blocks import Design
from unmask.silicon.liberty import Cell, Library
from unmask.silicon.synthesis import CLOCK, Netlist

# The two constant nets come first.
ZERO, ONE = 0, 1
# Gates and flip-flops that are skipped together if no input of theirs has changed.
_GROUP = 64

Bits = NDArray[np.uint8]


@dataclass(frozen=True)
class Port:
    """A port of the netlist: `nets`, one per bit, the lowest first."""

    name: str
    direction: str
    nets: NDArray[np.int32]


def places_of(ports: Sequence[Port]) -> dict[str, slice]:
    """The columns of each port, by name, where the bits of several stand beside each other."""
    starts = np.cumsum([0, *(len(port.nets) for port in ports)])
    return {port.name: slice(int(start), int(end)) for port, start, end in zip(ports, starts[:-1], starts[1:], strict=True)}


@dataclass(frozen=True)
class _Functions:
    """Functions of nets, each a truth table, the nets that select its row, lowest bit first, and the net of its value."""

    tables: NDArray[np.uint8]
    first_row: NDArray[np.int64]
    inputs: NDArray[np.int32]
    first_input: NDArray[np.int64]
    outputs: NDArray[np.int32]


class Gates:
    """A flat netlist, gates in an order in which each comes after those that drive it.

    Attributes:
        design: the RTL of the netlist.
        ports: by name, the clock's included.
        nets: number of nets, the two constants included.
        instances: (name, cell, net by pin) of every cell.
        net_of_bit: net by the number that yosys gave it.
        clock_gates: the net of the enable by that of the clock gate's output.
    """

    def __init__(self, netlist: Netlist) -> None:
        """Read the netlist.

        Raises:
            UnmaskError: a cell is no gate, clock gate or flip-flop on the rising clock edge, or gates drive each other in a circle.
        """
        self.library: Library = netlist.library
        self.design: Design = netlist.design
        module: dict[str, Any] = netlist.flat
        numbers: dict[int | str, int] = {"0": ZERO, "1": ONE, "x": ZERO, "z": ZERO}

        def net(bit: int | str) -> int:
            return numbers.setdefault(bit, len(numbers) - 2)

        self.ports = {
            name: Port(name, port["direction"], np.array([net(bit) for bit in port["bits"]], np.int32))
            for name, port in module["ports"].items()
        }
        self.instances: list[tuple[str, str, dict[str, int]]] = [
            (name, cell["type"], {pin: net(bits[0]) for pin, bits in cell["connections"].items()}) for name, cell in module["cells"].items()
        ]
        self.net_of_bit = numbers
        self.nets = len(numbers) - 2
        known = self.library.clock_gates
        self.clock_gates = dict(self._clock_gate(name, kind, pins) for name, kind, pins in self.instances if kind in known)
        gates: list[_Function] = []
        registers: list[_Function] = []
        for name, kind, pins in self.instances:
            if kind in known:
                continue
            cell = self.library.cells[kind]
            nets = pins
            if cell.state:
                nets = {**pins, cell.state[0]: self._state_net(name, cell, pins)}
                following = _function(cell.next_state, nets, cell.state[0])
                enable = self.clock_gates.get(pins[_bare(cell.clocked_on)])
                registers.append(following if enable is None else _enabled(following, enable))
            for pin in cell.pins:
                if pin.direction == "output" and pin.name in pins and not (cell.state and _bare(pin.function) == cell.state[0]):
                    gates.append(_function(_of_state(cell, pin.function or ""), nets, pin.name))
        self._gates = _packed([gates[index] for index in self._levels(gates, {register[2] for register in registers})])
        self._registers = _packed(registers)
        self._readers = _readers(self.nets, self._gates, self._registers)

    def _clock_gate(self, name: str, kind: str, pins: dict[str, int]) -> tuple[int, int]:
        """(Net of the output, net of the enable) of a clock gate."""
        gate = self.library.clock_gates[kind]
        if CLOCK not in self.ports or pins.get(gate.clock) != self.ports[CLOCK].nets[0]:
            raise UnmaskError(f"clock gate {name} ({kind}) is not on {CLOCK}")
        if any(pins.get(pin, ZERO) != ZERO for pin in gate.low):
            raise UnmaskError(f"clock gate {name} ({kind}): expected 0 at {', '.join(gate.low)}")
        return pins[gate.output], pins[gate.enable]

    def _state_net(self, name: str, cell: Cell, pins: dict[str, int]) -> int:
        """The net of the pin that shows the state, or a new one."""
        assert cell.state is not None
        clock = self.ports[CLOCK].nets[0] if CLOCK in self.ports else -1
        own = pins.get(_bare(cell.clocked_on), ZERO)
        if own != clock and own not in self.clock_gates:
            raise UnmaskError(f"flip-flop {name} ({cell.name}) is not on the rising edge of {CLOCK}")
        used = {_bare(cell.clocked_on), *logic.names(cell.next_state)}
        if not cell.plain and any(pins.get(pin, ZERO) not in (ZERO, ONE) for pin in cell.inputs if pin not in used):
            raise UnmaskError(f"flip-flop {name} ({cell.name}) has an asynchronous set or reset in use")
        for pin in cell.pins:
            if _bare(pin.function) == cell.state[0] and pin.name in pins:
                return pins[pin.name]
        self.nets += 1
        return self.nets - 1

    def _levels(self, gates: list[_Function], states: set[int]) -> list[int]:
        """Indices of the gates in order of evaluation."""
        known = {ZERO, ONE, *states, *(int(net) for port in self.ports.values() if port.direction == "input" for net in port.nets)}
        readers: dict[int, list[int]] = {}
        waits = []
        ready = []
        for index, (_, inputs, _) in enumerate(gates):
            needed = {net for net in inputs if net not in known}
            waits.append(len(needed))
            for net in needed:
                readers.setdefault(net, []).append(index)
            if not needed:
                ready.append(index)
        for index in ready:
            for reader in readers.get(gates[index][2], ()):
                waits[reader] -= 1
                if not waits[reader]:
                    ready.append(reader)
        if len(ready) != len(gates):
            raise UnmaskError(f"{len(gates) - len(ready)} gates wait for nets that nothing drives, or for each other")
        return ready

    @cached_property
    def inputs(self) -> list[Port]:
        """Input ports without the clock, by name."""
        return sorted((p for p in self.ports.values() if p.direction == "input" and p.name != CLOCK), key=lambda port: port.name)

    @cached_property
    def outputs(self) -> list[Port]:
        """Output ports, by name; not those that pass the clock on to a memory macro."""
        clock = set(self.ports[CLOCK].nets) if CLOCK in self.ports else set()
        outputs = (port for port in self.ports.values() if port.direction == "output" and not clock & set(port.nets))
        return sorted(outputs, key=lambda port: port.name)

    def run(self, stimulus: Bits, seed: int = 0, skip: int = 0, only: NDArray[np.bool_] | None = None) -> tuple[Bits, NDArray[np.int64]]:
        """Simulate, from a random state of every flip-flop.

        Args:
            stimulus: [cycles, bits] of all `inputs`, in their order; the values are there during the whole cycle.
            seed: of the power-up state.
            skip: first cycles, in which toggles are not counted.
            only: [cycles] in which they are, of the others.

        Returns:
            [cycles, bits] of all `outputs` at the end of each cycle, and [nets] how often each net changed: that of a clock gate's output
            twice in each cycle in which its enable is 1.

        Raises:
            UnmaskError: the stimulus does not fit.
        """
        ports = np.concatenate([np.empty(0, np.int32), *(port.nets for port in self.inputs)])
        shown = np.concatenate([np.empty(0, np.int32), *(port.nets for port in self.outputs)])
        if stimulus.ndim != 2 or stimulus.shape[1] != len(ports):
            raise UnmaskError(f"a stimulus of shape {stimulus.shape}, expected [cycles, {len(ports)}]")
        values = np.random.default_rng(seed).integers(0, 2, self.nets, dtype=np.uint8)
        values[[ZERO, ONE]] = 0, 1
        toggles = np.zeros(self.nets, np.int64)
        result = np.zeros((len(stimulus), len(shown)), np.uint8)
        gates, registers = astuple(self._gates), astuple(self._registers)
        given = np.ascontiguousarray(stimulus, np.uint8)
        counted = np.arange(len(stimulus)) > skip
        if only is not None:
            counted &= only
        clocks = np.array([*self.clock_gates], np.int64), np.array([*self.clock_gates.values()], np.int64)
        _simulate(given, ports, shown, values, gates, registers, self._readers, clocks, counted, result, toggles)
        return result, toggles

    def clocked(self, rates: NDArray[np.float64]) -> float:
        """The share of the flip-flops' clock pulses that are not stopped, at [nets] toggles per cycle; 1 without flip-flops."""
        cells = self.library.cells
        clocks = [pins[_bare(cells[kind].clocked_on)] for _, kind, pins in self.instances if cells[kind].sequential]
        return float(np.mean([rates[net] / 2 if net in self.clock_gates else 1.0 for net in clocks])) if clocks else 1.0


# A truth table, the nets of its inputs and the net of its output.
_Function = tuple[NDArray[np.bool_], list[int], int]


def _bare(function: str | None) -> str:
    return (function or "").strip("() ")


def _of_state(cell: Cell, function: str) -> str:
    """A flip-flop's output in terms of its state alone."""
    return re.sub(rf"\b{cell.state[1]}\b", f"(!{cell.state[0]})", function) if cell.state else function


def _function(expression: str, nets: dict[str, int], output: str) -> _Function:
    names = logic.names(expression)
    return logic.truth_table(expression, names), [nets.get(name, ZERO) for name in names], nets[output]


def _enabled(following: _Function, enable: int) -> _Function:
    """The next state of a flip-flop behind a clock gate: what it was, where the enable is 0."""
    table, inputs, state = following
    return np.concatenate([np.zeros_like(table), table, np.ones_like(table), table]), [*inputs, enable, state], state


def _packed(functions: list[_Function]) -> _Functions:
    """Equal tables are kept once."""
    rows: dict[bytes, int] = {}
    tables: list[NDArray[np.bool_]] = []
    first_row = []
    total = 0
    for table, _, _ in functions:
        key = table.tobytes()
        if key not in rows:
            rows[key] = total
            tables.append(table)
            total += len(table)
        first_row.append(rows[key])
    return _Functions(
        np.concatenate([np.empty(0, np.uint8), *tables]).astype(np.uint8),
        np.array(first_row, np.int64),
        np.array([net for _, inputs, _ in functions for net in inputs], np.int32),
        np.cumsum([0, *(len(inputs) for _, inputs, _ in functions)]).astype(np.int64),
        np.array([output for *_, output in functions], np.int32),
    )


def _readers(nets: int, gates: _Functions, registers: _Functions) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Of each net, where what reads it begins and ends in a list of gates and, after them, flip-flops."""
    inputs = np.concatenate([gates.inputs, registers.inputs])
    sizes = [np.diff(functions.first_input) for functions in (gates, registers)]
    owners = np.repeat(np.arange(sum(map(len, sizes)), dtype=np.int32), np.concatenate(sizes))
    order = np.argsort(inputs, kind="stable")
    first = np.concatenate([[0], np.cumsum(np.bincount(inputs, minlength=nets))])
    return first.astype(np.int64), owners[order]


@numba.njit(cache=True)  # type: ignore[misc]
def _value(function, index, values):  # type: ignore[no-untyped-def]
    tables, first_row, inputs, first_input, _ = function
    row = first_row[index]
    for position in range(first_input[index], first_input[index + 1]):
        row += np.int64(values[inputs[position]]) << (position - first_input[index])
    return tables[row]


@numba.njit(cache=True)  # type: ignore[misc]
def _change(net, value, values, readers, dirty, groups, toggles, counts):  # type: ignore[no-untyped-def]
    """Give a net a value; what reads it is dirty."""
    if values[net] != value:
        values[net] = value
        toggles[net] += counts
        for index in range(readers[0][net], readers[0][net + 1]):
            reader = readers[1][index]
            dirty[reader] = 1
            groups[reader // _GROUP] = 1


@numba.njit(cache=True)  # type: ignore[misc]
def _simulate(stimulus, ports, shown, values, gates, registers, readers, clocks, counted, result, toggles):  # type: ignore[no-untyped-def]
    # Gates, then flip-flops, each dirty or not; and whether any of a group of them is.
    count, both = len(gates[4]), len(gates[4]) + len(registers[4])
    dirty, groups = np.ones(both, np.uint8), np.ones(both // _GROUP + 1, np.uint8)
    following = np.zeros(len(registers[4]), np.uint8)
    due, dues = np.zeros(len(registers[4]), np.int64), 0
    for cycle in range(stimulus.shape[0]):
        counts = counted[cycle]
        for bit in range(len(ports)):
            _change(ports[bit], stimulus[cycle, bit], values, readers, dirty, groups, toggles, counts)
        for index in range(dues):
            register = due[index]
            _change(registers[4][register], following[register], values, readers, dirty, groups, toggles, counts)
        dues = 0
        for group in range(len(groups)):
            if not groups[group]:
                continue
            groups[group] = 0
            for each in range(group * _GROUP, min((group + 1) * _GROUP, both)):
                if not dirty[each]:
                    continue
                dirty[each] = 0
                if each < count:
                    _change(gates[4][each], _value(gates, each, values), values, readers, dirty, groups, toggles, counts)
                else:
                    register = each - count
                    following[register] = _value(registers, register, values)
                    due[dues] = register
                    dues += 1
        if counts:
            for index in range(len(clocks[0])):
                toggles[clocks[0][index]] += 2 * values[clocks[1][index]]
        for bit in range(len(shown)):
            result[cycle, bit] = values[shown[bit]]

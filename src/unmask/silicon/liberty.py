"""Liberty files: one library out of the files of a standard-cell kit, its units, and what this package needs to know of its cells.

The files are merged and thinned textually, so that each tool reads only what it uses; the text of what is kept is the kit's own.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from unmask.errors import UnmaskError
from unmask.silicon.clock_gates import ClockGate, clock_gate

# What stands before the opening brace of a group.
_HEADER = re.compile(r"(\w+)\s*\(([^(){}]*)\)\s*$")
# Where a group stands alone, a statement of it: `name : value ;` or `name (values) ;`.
_STATEMENT = re.compile(r"(\w+)\s*:\s*(\"[^\"]*\"|[^;\n{}]+?)\s*(?:;|\n)|(\w+)\s*\(([^;{}]*?)\)\s*;")
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)

# What neither mapping nor the logic of a cell needs; only static timing and power analysis reads them.
_POWER = {"internal_power", "leakage_power", "pg_pin", "power_lut_template", "normalized_driver_waveform", "receiver_capacitance"}
_TABLES = {"timing", "lu_table_template", "output_voltage", "input_voltage", "operating_conditions"}

# Buffers that are made to be slow, against hold violations, and are small: mapping would take them for ordinary ones.
_DELAY_CELL = re.compile(r"HB\d|DLY|CLKDLY|.*_dly", re.IGNORECASE)

_SECONDS = {"fs": 1e-15, "ps": 1e-12, "ns": 1e-9, "us": 1e-6}
_WATTS = {"pW": 1e-12, "nW": 1e-9, "uW": 1e-6, "mW": 1e-3}
_VOLTS = {"mV": 1e-3, "V": 1.0}
_FARADS = {"ff": 1e-15, "pf": 1e-12}


@dataclass
class Group:
    """A Liberty group: `kind (name) { attributes, groups }`."""

    kind: str
    name: str
    attributes: dict[str, str] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)

    def all(self, kind: str) -> Iterator[Group]:
        """The groups of that kind directly inside this one."""
        return (group for group in self.groups if group.kind == kind)


@dataclass(frozen=True)
class Pin:
    """A pin of a cell. `function` is the Liberty expression of an output, in names of inputs or of the state; None on an input."""

    name: str
    direction: str
    function: str | None
    capacitance: float


@dataclass(frozen=True)
class Cell:
    """A standard cell.

    Attributes:
        area: in the library's unit, which is um2 in every kit this was tried with; Liberty itself does not name it.
        state: (state variable, its complement) of a flip-flop, or None.
        next_state, clocked_on: of a flip-flop, Liberty expressions.
        plain: a gate, or a flip-flop without asynchronous set or reset.
    """

    name: str
    area: float
    pins: tuple[Pin, ...]
    state: tuple[str, str] | None
    next_state: str
    clocked_on: str
    plain: bool

    @property
    def sequential(self) -> bool:
        """Whether it holds a state."""
        return self.state is not None

    @property
    def inputs(self) -> list[str]:
        """Names of the input pins, in the file's order."""
        return [pin.name for pin in self.pins if pin.direction == "input"]


@dataclass(frozen=True)
class Library:
    """A standard-cell library, merged from one or more Liberty files.

    Attributes:
        name: the first library's own name, with the number of further files.
        full, logic, registers: merged files for timing and power analysis, for mapping logic (no power), and of the flip-flops alone.
        gates: of the clock gates alone, with tables.
        digest: of what a netlist is mapped with, the contents of `logic`, `registers` and `gates`.
    """

    name: str
    full: Path
    logic: Path
    registers: Path
    gates: Path
    digest: str

    @cached_property
    def top(self) -> Group:
        """The library without tables."""
        return parse(self.registers.with_name("cells.lib").read_text())

    @cached_property
    def cells(self) -> dict[str, Cell]:
        """The cells by name."""
        return {group.name: _cell(group) for group in self.top.all("cell")}

    @cached_property
    def clock_gates(self) -> dict[str, ClockGate]:
        """The clock gates for rising edges by name."""
        found = (clock_gate(group) for group in parse(self.gates.read_text()).all("cell"))
        return {gate.cell: gate for gate in found if gate is not None}

    @property
    def clock_gate(self) -> ClockGate | None:
        """The smallest clock gate, or nothing."""
        return min(self.clock_gates.values(), key=lambda gate: (gate.area, gate.cell), default=None)

    @property
    def energy_unit(self) -> float:
        """Joules per unit of the energy inside a cell."""
        return self.capacitance_unit * _quantity(self.top.attributes.get("voltage_unit", "1V"), _VOLTS, "voltage_unit") ** 2

    @property
    def time_unit(self) -> float:
        """Seconds per unit of time."""
        return _quantity(self.top.attributes.get("time_unit", ""), _SECONDS, "time_unit")

    @property
    def leakage_unit(self) -> float:
        """Watts per unit of leakage power."""
        return _quantity(self.top.attributes.get("leakage_power_unit", ""), _WATTS, "leakage_power_unit")

    @property
    def capacitance_unit(self) -> float:
        """Farads per unit of capacitance."""
        number, _, unit = self.top.attributes.get("capacitive_load_unit", "").partition(",")
        return _quantity(number.strip() + unit.strip(), _FARADS, "capacitive_load_unit")

    @cached_property
    def driver(self) -> Cell:
        """A modest buffer, which stands for whatever drives the inputs of a unit: the second smallest by area, or the only one."""
        buffers = sorted((cell for cell in self.cells.values() if _is_buffer(cell)), key=lambda cell: (cell.area, cell.name))
        if not buffers:
            raise UnmaskError(f"library {self.name} has no buffer")
        return buffers[min(1, len(buffers) - 1)]

    @staticmethod
    def load_of(cell: Cell) -> float:
        """Capacitance of its first input, in the library's unit."""
        return next(pin.capacitance for pin in cell.pins if pin.direction == "input")


def load_library(path: Path, cache: Path) -> Library:
    """The library in a `.lib` or `.lib.gz` file, or in all those of a folder.

    Args:
        path: the file or folder.
        cache: a folder for the merged files; they are named by the digest of their sources.

    Raises:
        UnmaskError: there is no Liberty file, or it can't be read.
    """
    files = sorted([*path.glob("*.lib"), *path.glob("*.lib.gz")]) if path.is_dir() else [path]
    if not files:
        raise UnmaskError(f"{path}: expected a Liberty file (.lib, .lib.gz) or a folder of them")
    try:
        contents = [file.read_bytes() for file in files]
        texts = [(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8", "replace") for data in contents]
    except (OSError, EOFError) as error:
        raise UnmaskError(f"{path}: {error}") from error
    own = Path(__file__).read_bytes()
    folder = cache / "liberty" / hashlib.sha256(b"\0".join([own, *contents])).hexdigest()[:16]
    names = {kind: folder / f"{kind}.lib" for kind in ("full", "logic", "registers", "gates", "cells")}
    if not all(file.exists() for file in names.values()):
        folder.mkdir(parents=True, exist_ok=True)
        merged = _charge_once(_without_delay_cells(_merge([_COMMENT.sub("", text) for text in texts], path)))
        logic = thinned(merged, _POWER)
        kinds = {"full": merged, "logic": logic, "cells": thinned(logic, _TABLES)}
        cells = parse(kinds["cells"])
        kinds["registers"] = _only({_cheapest_register(cells)}, kinds["cells"])
        kinds["gates"] = _only({group.name for group in cells.all("cell") if clock_gate(group)}, merged)
        for kind, text in kinds.items():
            partial = names[kind].with_suffix(".partial")
            partial.write_text(text)
            partial.replace(names[kind])
    first = re.search(r"library\s*\(\s*\"?([^)\"]*?)\"?\s*\)", names["cells"].read_text()[:4096])
    assert first is not None
    name = first[1] if len(files) == 1 else f"{first[1]} and {len(files) - 1} more"
    used = b"\0".join(names[kind].read_bytes() for kind in ("logic", "registers", "gates"))
    return Library(name, names["full"], names["logic"], names["registers"], names["gates"], hashlib.sha256(used).hexdigest()[:16])


def parse(text: str) -> Group:
    """The outermost group of a Liberty text without comments."""
    stack = [Group("", "")]
    position = 0
    for start, end, header in _braces(text):
        _statements(text[position:start], stack[-1])
        position = end
        if header:
            group = Group(*header)
            stack[-1].groups.append(group)
            stack.append(group)
        elif len(stack) > 1:
            stack.pop()
    if not stack[0].groups:
        raise UnmaskError("a Liberty file without a library group")
    return stack[0].groups[0]


def thinned(text: str, kinds: set[str]) -> str:
    """The text without groups of these kinds."""
    kept, position, depth, dropped = [], 0, 0, 0
    for start, end, header in _braces(text):
        if header:
            depth += 1
            if not dropped and header[0] in kinds:
                kept.append(text[position:start])
                dropped = depth
        else:
            if dropped == depth:
                position, dropped = end, 0
            depth -= 1
    kept.append(text[position:])
    return "".join(kept)


def _braces(text: str) -> Iterator[tuple[int, int, tuple[str, str] | None]]:
    """(start, end, header) of the beginning of each group, its header (kind, name) included, and of each closing brace."""
    last = 0
    for brace in re.finditer(r"[{}]", text):
        start, header = brace.start(), None
        if brace[0] == "{":
            match = _HEADER.search(text, max(last, start - 200), start)
            if match is None:
                raise UnmaskError(f"Liberty: expected the kind and name of a group, found {text[max(last, start - 40) : start].strip()!r}")
            start, header = match.start(), (match[1], match[2].strip().strip('"'))
        last = brace.end()
        yield start, last, header


def _groups_of_library(text: str) -> Iterator[tuple[str, str, int, int]]:
    """(kind, name, start, end) of each group directly inside the library group of `text`."""
    depth, begun = 0, (0, ("", ""))
    for start, end, header in _braces(text):
        if header:
            depth += 1
            if depth == 2:
                begun = start, header
        else:
            if depth == 2:
                yield *begun[1], begun[0], end
            depth -= 1


def _merge(texts: list[str], path: Path) -> str:
    """The first library with the groups of the others that it lacks."""
    first = texts[0]
    if not re.search(r"library\s*\(", first):
        raise UnmaskError(f"{path}: expected a Liberty library")
    have = {(kind, name) for kind, name, _, _ in _groups_of_library(first)}
    added = []
    for text in texts[1:]:
        for kind, name, start, end in _groups_of_library(text):
            if (kind, name) not in have:
                have.add((kind, name))
                added.append(text[start:end])
    return first[: first.rindex("}")] + "\n".join(added) + "\n}\n"


def _without_delay_cells(text: str) -> str:
    """The library without cells that only serve to lose time."""
    kept, position = [], 0
    for kind, name, start, end in _groups_of_library(text):
        if kind == "cell" and _DELAY_CELL.match(name):
            kept.append(text[position:start])
            position = end
    return "".join([*kept, text[position:]])


def _cheapest_register(library: Group) -> str:
    """Name of the D flip-flop on a rising edge that is smallest together with the inverter that an inverted output needs.

    yosys takes the first one that does not invert, which may be the largest. One with asynchronous set or reset is a last resort.
    """
    cells = [_cell(group) for group in library.all("cell")]
    inverter = min((c.area for c in cells if len(c.inputs) == 1 and not c.sequential and _is_inverter(c)), default=0.0)
    cost = {}
    for cell in cells:
        functions = {pin.function for pin in cell.pins if pin.direction == "output"}
        if cell.state is None or cell.clocked_on.strip("() ") not in cell.inputs or cell.next_state.strip("()! '") not in cell.inputs:
            continue
        inverting = ("!" in cell.next_state or "'" in cell.next_state) == (cell.state[0] in functions)
        both = {*cell.state} <= functions
        cost[cell.name] = (not cell.plain, cell.area + inverter * (inverting and not both), cell.name)
    if not cost:
        raise UnmaskError(f"library {library.name} has no flip-flop on a rising edge")
    return min(cost, key=lambda name: cost[name])


def _only(cells: set[str], text: str) -> str:
    """The library with these cells."""
    kept, position = [], 0
    for kind, name, start, end in _groups_of_library(text):
        if kind == "cell" and name not in cells:
            kept.append(text[position:start])
            position = end
    return "".join([*kept, text[position:]])


def _statements(text: str, group: Group) -> None:
    for statement in _STATEMENT.finditer(text):
        key, value = (statement[1], statement[2]) if statement[1] else (statement[3], statement[4])
        group.attributes[key] = value.strip().strip('"')


def _quantity(text: str, units: dict[str, float], what: str) -> float:
    match = re.fullmatch(r"([\d.]+)\s*(\w+)", text)
    scale = {name.lower(): factor for name, factor in units.items()}.get(match[2].lower()) if match else None
    if match is None or scale is None:
        raise UnmaskError(f"Liberty {what} is {text!r}, expected a number and one of {', '.join(units)}")
    return float(match[1]) * scale


def _cell(group: Group) -> Cell:
    pins = tuple(
        Pin(pin.name, pin.attributes.get("direction", ""), pin.attributes.get("function"), float(pin.attributes.get("capacitance", 0)))
        for pin in group.all("pin")
    )
    registers = list(group.all("ff"))
    one = registers[0].attributes if len(registers) == 1 else {}
    state = tuple(name.strip().strip('"') for name in registers[0].name.split(",")) if one else ()
    odd = {kind.kind for kind in group.groups} & {"latch", "ff_bank", "latch_bank", "statetable", "test_cell"}
    known = all(pin.function is not None or pin.direction != "output" for pin in pins)
    driven = not any("three_state" in pin.attributes for pin in group.all("pin"))
    return Cell(
        name=group.name,
        area=float(group.attributes.get("area", 0)),
        pins=pins,
        state=(state[0], state[1]) if len(state) == 2 else None,
        next_state=one.get("next_state", ""),
        clocked_on=one.get("clocked_on", ""),
        plain=known and driven and not odd and not {"clear", "preset"} & one.keys(),
    )


def _charge_once(text: str) -> str:
    """The library without the internal power of ground pins: a charge that a cell takes from its supply leaves it through its ground, and
    the two state one energy."""
    ground = re.compile(r"pg_pin\s*\(\s*\"?(\w+)\"?\s*\)\s*\{[^}]*pg_type\s*:\s*\"?\w*ground")
    named = re.compile(rf'related_pg_pin\s*:\s*"?({"|".join(sorted(set(ground.findall(text)))) or "$^"})"?\s*;')
    kept, position, begun, inside = [], 0, 0, 0
    for start, end, header in _braces(text):
        if header:
            if not begun and header[0] == "internal_power":
                begun = start
            inside += bool(begun)
        elif begun:
            inside -= 1
            if not inside:
                if named.search(text, begun, end):
                    kept.append(text[position:begun])
                    position = end
                begun = 0
    return "".join([*kept, text[position:]])


def _is_buffer(cell: Cell) -> bool:
    return _one_input_function(cell) == "A"


def _is_inverter(cell: Cell) -> bool:
    return _one_input_function(cell) in {"!A", "A'"}


def _one_input_function(cell: Cell) -> str | None:
    """Of a gate with one input and one output, in which the input is called A."""
    outputs = [pin for pin in cell.pins if pin.direction == "output"]
    if cell.sequential or len(cell.inputs) != 1 or len(outputs) != 1 or outputs[0].function is None:
        return None
    return re.sub(rf"\b{cell.inputs[0]}\b", "A", re.sub(r"[()\s]", "", outputs[0].function))

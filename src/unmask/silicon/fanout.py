"""Trees of buffers on nets that drive much: those of flip-flops and ports, which logic synthesis leaves alone, and between blocks; and
further clock gates where one would drive too much."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from unmask.silicon.liberty import Library

# In input capacitances of the buffer: what a net may drive without one, and what a buffer is given to drive.
MOST, EACH = 16.0, 10.0


class _Sink(NamedTuple):
    """What a net drives: the pin or port, as a list of yosys' JSON and a place in it, the cell, and the capacitance."""

    bits: list[Any]
    place: int
    name: str
    load: float


TREE = re.compile(r"(?:^|\.)fanout_\d+$")
"""What buffers are called."""


def with_trees(module: dict[str, Any], library: Library, clock: str, output_load: float) -> Counter[str]:
    """Put trees into a flat module of yosys' JSON, in place; the buffers and clock gates that were added, by cell.

    Every sink of a net is behind equally many buffers. A buffer all of whose sinks lie in one instance of the top module is named as lying
    there too. The clock stays as it is: its tree is laid out later. A clock gate that drives more than `MOST` gets others beside
    it, with its enable.

    Args:
        clock: its port.
        output_load: what a bit of an output port drives, in input capacitances of the library's driver.
    """
    buffer = library.driver
    own = library.load_of(buffer)
    source, drain = (next(pin.name for pin in buffer.pins if pin.direction == direction) for direction in ("input", "output"))
    loads = {
        cell.name: {pin.name: pin.capacitance / own for pin in cell.pins if pin.direction == "input"} for cell in library.cells.values()
    }
    cells, ports = module["cells"], module["ports"]
    sinks: dict[int, list[_Sink]] = {}

    def add(bits: list[Any], place: int, name: str, load: float) -> None:
        if isinstance(bits[place], int):
            sinks.setdefault(bits[place], []).append(_Sink(bits, place, name, load))

    for name, cell in cells.items():
        for pin, load in loads[cell["type"]].items():
            if pin in cell["connections"]:
                add(cell["connections"][pin], 0, name, load)
    for port in ports.values():
        if port["direction"] == "output":
            for place in range(len(port["bits"])):
                add(port["bits"], place, "", output_load)
    following = max((bit for entry in module["netnames"].values() for bit in entry["bits"] if isinstance(bit, int)), default=1) + 1
    added: Counter[str] = Counter()
    for name, cell in list(cells.items()):
        if (gate := library.clock_gates.get(cell["type"])) is None:
            continue
        _, *others = [*_groups(sinks.pop(cell["connections"][gate.output][0], ()), MOST)]
        for group in others:
            connections = {pin: list(bits) for pin, bits in cell["connections"].items()} | {gate.output: [following]}
            for sink in group:
                sink.bits[sink.place] = following
            cells[f"{name}.beside_{following}"] = {"type": gate.cell, "connections": connections}
            add(connections[gate.enable], 0, f"{name}.beside_{following}", loads[gate.cell][gate.enable])
            added[gate.cell] += 1
            following += 1
    for bit in ports.get(clock, {"bits": ()})["bits"]:
        sinks.pop(bit, None)
    for bit, driven in sinks.items():
        while sum(sink.load for sink in driven) > MOST and len(driven) > 1:
            above: list[_Sink] = []
            for group in _groups(driven, EACH):
                places = {sink.name.rpartition(".")[0] for sink in group}
                inside = places.pop() if len(places) == 1 else ""
                name = f"{inside}.fanout_{following}" if inside else f"fanout_{following}"
                for sink in group:
                    sink.bits[sink.place] = following
                cells[name] = {"type": buffer.name, "connections": {source: [bit], drain: [following]}}
                above.append(_Sink(cells[name]["connections"][source], 0, name, 1.0))
                added[buffer.name] += 1
                following += 1
            driven = above
    return added


def _groups(sinks: Sequence[_Sink], most: float) -> Iterator[list[_Sink]]:
    """Neighbours that a cell drives together, one or more."""
    group: list[_Sink] = []
    driven = 0.0
    for sink in sinks:
        if group and driven + sink.load > most:
            yield group
            group, driven = [], 0.0
        group.append(sink)
        driven += sink.load
    yield group

"""Trees of buffers on nets that drive much: those of flip-flops and ports, which logic synthesis leaves alone, and between blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from unmask.silicon.liberty import Library

# In input capacitances of the buffer: what a net may drive without one, and what a buffer is given to drive.
MOST, EACH = 16.0, 10.0

# An input pin: the cell and the pin, and its capacitance.
_Sink = tuple[str, str, float]


def with_trees(module: dict[str, Any], library: Library, clock: str) -> Counter[str]:
    """Put trees into a flat module of yosys' JSON, in place; the buffers that were added, by cell.

    Every sink of a net is behind equally many buffers. A buffer all of whose sinks lie in one instance of the top module is named as lying
    there too. The clock stays as it is: its tree is laid out later.
    """
    buffer = library.driver
    own = library.load_of(buffer)
    source, drain = (next(pin.name for pin in buffer.pins if pin.direction == direction) for direction in ("input", "output"))
    loads = {
        cell.name: {pin.name: pin.capacitance / own for pin in cell.pins if pin.direction == "input"} for cell in library.cells.values()
    }
    cells = module["cells"]
    sinks: dict[int, list[_Sink]] = {}
    for name, cell in cells.items():
        for pin, load in loads[cell["type"]].items():
            for bit in cell["connections"].get(pin, ()):
                if isinstance(bit, int):
                    sinks.setdefault(bit, []).append((name, pin, load))
    for bit in module["ports"].get(clock, {"bits": ()})["bits"]:
        sinks.pop(bit, None)
    following = max((bit for entry in module["netnames"].values() for bit in entry["bits"] if isinstance(bit, int)), default=1) + 1
    added: Counter[str] = Counter()
    for bit, pins in sinks.items():
        while sum(load for _, _, load in pins) > MOST and len(pins) > 1:
            above: list[_Sink] = []
            for group in _groups(pins):
                places = {name.rpartition(".")[0] for name, _, _ in group}
                inside = places.pop() if len(places) == 1 else ""
                name = f"{inside}.fanout_{following}" if inside else f"fanout_{following}"
                for sink, pin, _ in group:
                    cells[sink]["connections"][pin] = [following]
                cells[name] = {"type": buffer.name, "connections": {source: [bit], drain: [following]}}
                above.append((name, source, 1.0))
                added[buffer.name] += 1
                following += 1
            pins = above
    return added


def _groups(sinks: Sequence[_Sink]) -> Iterator[list[_Sink]]:
    """Neighbours that a buffer drives together."""
    group: list[_Sink] = []
    driven = 0.0
    for sink in sinks:
        if group and driven + sink[2] > EACH:
            yield group
            group, driven = [], 0.0
        group.append(sink)
        driven += sink[2]
    yield group

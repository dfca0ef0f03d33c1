"""A flat netlist in the plainest Verilog, which OpenSTA, Icarus and Verilator read alike: one wire per net, one port per bit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from unmask.silicon.gates import ONE, ZERO, Gates

# Words of Verilog that a register or a wire may be called.
_KEYWORDS = ("assign", "begin", "case", "end", "input", "module", "output", "reg", "table", "time", "wire")


@dataclass(frozen=True)
class Names:
    """What things are called in the Verilog of a netlist.

    Attributes:
        nets: name by net, or a constant.
        instances: by position in `Gates.instances`.
        ports: names of the bits of each port, lowest first.
    """

    nets: list[str]
    instances: list[str]
    ports: dict[str, list[str]]


def names_of(gates: Gates, flat: dict[str, Any]) -> Names:
    """Names made of the design's own: a flip-flop is called after the register, a gate after the net that it drives."""
    known: dict[int, str] = {}
    for name, entry in sorted(flat["netnames"].items(), key=lambda item: (item[1].get("hide_name", 0), len(item[0]), item[0])):
        if not entry.get("hide_name", 0) and not name.startswith("$"):
            for index, bit in enumerate(entry["bits"]):
                net = gates.net_of_bit.get(bit)
                if net is not None:
                    known.setdefault(net, name if len(entry["bits"]) == 1 else f"{name}_{index}")
    taken = set(_KEYWORDS)

    def unique(text: str) -> str:
        base = re.sub(r"\W+", "_", text).strip("_") or "_"
        base = base if base[0].isalpha() else f"n{base}"
        found, count = base, 1
        while found in taken:
            count += 1
            found = f"{base}_v{count}"
        taken.add(found)
        return found

    ports = {
        name: [unique(name if len(port.nets) == 1 else f"{name}_{bit}") for bit in range(len(port.nets))]
        for name, port in gates.ports.items()
    }
    inputs = {
        int(net): bit
        for name, port in gates.ports.items()
        if port.direction == "input"
        for net, bit in zip(port.nets, ports[name], strict=True)
    }
    nets = ["1'b0", "1'b1"]
    nets += [inputs[net] if net in inputs else unique(f"w_{known[net]}" if net in known else f"n{net}") for net in range(2, gates.nets)]
    instances = []
    for position, (name, kind, pins) in enumerate(gates.instances):
        driven = [pins[pin.name] for pin in gates.library.cells[kind].pins if pin.direction == "output" and pin.name in pins]
        if gates.library.cells[kind].sequential and not name.startswith("$"):
            instances.append(unique(f"{name.partition('$')[0]}_reg"))
        else:
            instances.append(unique(f"{next((known[net] for net in driven if net in known), f'u{position}')}_g"))
    return Names(nets, instances, ports)


TIES = ("tie_0_", "tie_1_")
"""Ports that hold 0 and 1, where constants are not wanted."""


def verilog(gates: Gates, names: Names, top: str, tied: bool = False) -> str:
    """The module.

    Args:
        tied: constants come from two more ports, `TIES`.
    """
    ports = [(bit, port.direction) for name, port in gates.ports.items() for bit in names.ports[name]]
    nets = names.nets
    if tied:
        nets = [*TIES, *nets[len(TIES) :]]
        ports += [(tie, "input") for tie in TIES]
    lines = [f"module {top} ({', '.join(bit for bit, _ in ports)});"]
    lines += [f"  {direction} {bit};" for bit, direction in ports]
    inputs = {bit for bit, direction in ports if direction == "input"}
    lines += [f"  wire {name};" for net, name in enumerate(nets) if net not in (ZERO, ONE) and name not in inputs]
    for (_, kind, pins), instance in zip(gates.instances, names.instances, strict=True):
        lines.append(f"  {kind} {instance} ({', '.join(f'.{pin}({nets[net]})' for pin, net in pins.items())});")
    for name, port in gates.ports.items():
        if port.direction == "output":
            lines += [f"  assign {bit} = {nets[net]};" for bit, net in zip(names.ports[name], port.nets, strict=True)]
    return "\n".join([*lines, "endmodule", ""])

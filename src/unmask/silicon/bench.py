"""The RTL of a design as Verilog for a test bench: models of its memory macros, and a recorder of its ports and of theirs."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amaranth.lib import wiring

from unmask.errors import UnmaskError
from unmask.silicon.blocks import MACRO_PORTS, Design
from unmask.silicon.gates import CLOCK, Port
from unmask.silicon.tools import yosys

TOP = "top"
_MACRO_CELL = re.compile(r"^  cell \\(unmask_sram_\S+) (\S+)\n((?:    connect [^\n]*\n)*)  end\n", re.MULTILINE)


def recording_bench(component: wiring.Component, inputs: Sequence[Port], outputs: Sequence[Port], file: str) -> str:
    """Verilog of the module `top`.

    Args:
        component: whose large memories are macros.
        inputs, outputs: ports of its netlist: `NAME`, or `INSTANCE.INSTANCE__PORT` of a macro.
        file: that gets a line per clock edge: the inputs and the outputs before it, two hexadecimal numbers.

    Raises:
        UnmaskError: the design lacks a port of the netlist.
    """
    design = Design(component, TOP)
    kinds: dict[tuple[str, tuple[str, ...]], str] = {}

    def told_apart(cell: re.Match[str]) -> str:
        """A macro's instance, the macro being named for its ports too."""
        ports = tuple(sorted(re.findall(r"^    connect \\(\S+)", cell[3], re.MULTILINE)))
        name = kinds.setdefault((cell[1], ports), f"{cell[1]}_{len(kinds)}")
        return f"  cell \\{name} {cell[2]}\n{cell[3]}  end\n"

    texts = [f"module \\{block.name}\n{_MACRO_CELL.sub(told_apart, block.text)}end\n" for block in design.blocks.values() if not block.macro]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "rtl.il").write_text("\n".join(texts))
        script = f"read_rtlil rtl.il\n{MACRO_PORTS}\nhierarchy -top {TOP}\nproc\nopt_clean\nmemory_collect\n"
        yosys(f"{script}write_json rtl.json\nwrite_verilog -noattr rtl.v\n", folder, "bench")
        modules = json.loads((folder / "rtl.json").read_text())["modules"]
        verilog = (folder / "rtl.v").read_text()
    head, body = verilog.split(f"module {TOP}(", 1)
    rest, end, tail = body.partition("endmodule")
    recorder = _recorder(modules, inputs, outputs, file)
    memories = [model(name, {port: len(of["bits"]) for port, of in modules[name]["ports"].items()}) for name in kinds.values()]
    return "\n".join([f"{head}module {TOP}({rest}{recorder}{end}{tail}", *memories])


def _recorder(modules: dict[str, Any], inputs: Sequence[Port], outputs: Sequence[Port], file: str) -> str:
    names = []
    for side in (inputs, outputs):
        names.append([_reference(modules, port.name) for port in side])
    # Bit 0 of a row is the first port's; the first of a Verilog concatenation is the highest.
    given, seen = (", ".join(reversed(side)) for side in names)
    return f"""  integer recorded_ports;
  initial recorded_ports = $fopen("{file}", "w");
  always @(posedge {CLOCK}) $fwrite(recorded_ports, "%h %h\\n", {{{given}}}, {{{seen}}});
"""


def _reference(modules: dict[str, Any], name: str) -> str:
    """A port of the netlist in the words of the module `top`."""
    path, inside, port = name.rpartition("__")
    module, steps = modules[TOP], path.split(".") if inside and name not in modules[TOP]["ports"] else []
    port = port if steps else name
    for step in steps:
        if step not in module["cells"]:
            raise UnmaskError(f"port {name} of the netlist is none of the RTL: no {step}")
        module = modules[module["cells"][step]["type"]]
    if port not in module["ports"]:
        raise UnmaskError(f"port {name} of the netlist is none of the RTL")
    return ".".join(_identifier(part) for part in (*steps, port))


def _identifier(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_]\w*", name) else f"\\{name} "


def model(kind: str, widths: dict[str, int]) -> str:
    """A memory macro, as `unmask.rtl.sram` and `unmask.silicon.blocks` describe it, of zeros at first.

    Args:
        kind: name of the module.
        widths: bits of its ports by their names.
    """
    reads = sorted({port.partition("_")[0] for port in widths if re.match(r"r\d", port)})
    writes = sorted({port.partition("_")[0] for port in widths if re.match(r"w\d", port)})
    found = re.match(r"unmask_sram_(\d+)x(\d+)_", kind)
    assert found is not None
    rows, width = int(found[1]), int(found[2])
    lines = [f"module {kind} ({', '.join(widths)});"]
    for port, bits in widths.items():
        lines.append(f"  {'output reg' if re.fullmatch(r'r[0-9]+_data', port) else 'input'} [{bits - 1}:0] {port};")
    lines += [f"  reg [{width - 1}:0] words [0:{rows - 1}];", f"  always @(posedge {CLOCK}) begin"]
    changed = {}
    for port in writes:
        word = width // widths[f"{port}_mask"]
        mask = ", ".join(f"{{{word}{{{port}_mask[{bit}]}}}}" for bit in reversed(range(widths[f"{port}_mask"])))
        changed[port] = f"{{{mask}}}"
    for port in reads:
        through = f"{port}_en_through" in widths
        enable = f"{port}_en_through" if through else f"{port}_en"
        if enable not in widths:
            continue
        value = f"words[{port}_addr]"
        for write in writes if through else ():
            mask = f"({{{width}{{{write}_addr == {port}_addr}}}} & {changed[write]})"
            value = f"(({value} & ~{mask}) | ({write}_data & {mask}))"
        lines.append(f"    if ({enable}) {port}_data <= {value};")
    for port in writes:
        row = f"words[{port}_addr]"
        # Two ports write to one word in a cycle only if their masks differ.
        for bit in range(widths[f"{port}_mask"]):
            word = width // widths[f"{port}_mask"]
            part = f"[{(bit + 1) * word - 1}:{bit * word}]"
            lines.append(f"    if ({port}_mask[{bit}]) {row}{part} <= {port}_data{part};")
    lines.append("  end")
    for port in reads:
        if f"{port}_en" not in widths and f"{port}_en_through" not in widths:
            lines.append(f"  always @(*) {port}_data = words[{port}_addr];")
    return "\n".join([*lines, "  integer row;", f"  initial for (row = 0; row < {rows}; row = row + 1) words[row] = 0;", "endmodule", ""])

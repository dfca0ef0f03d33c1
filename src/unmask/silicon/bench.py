"""The RTL of an engine or an NPU in Icarus: models of its memory macros and of the memory behind its bus, and a recorder of ports."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unmask.errors import UnmaskError
from unmask.rtl.bus import ADDRESS_BITS as MEMORY_BITS
from unmask.rtl.host import ADDRESS_BITS, BUS_BITS, PROGRAM, Register
from unmask.silicon.blocks import MACRO_PORTS, Design
from unmask.silicon.gates import Port
from unmask.silicon.synthesis import CLOCK
from unmask.silicon.tools import yosys

PORTS, REPORT = "ports.txt", "report.txt"
"""Files that the bench writes: the inputs and the outputs before each clock edge, two hexadecimal numbers a line; and, of each program,
its status, the number of the instruction that a fault belongs to, and its cycles."""
# Beats of reads, and of writes, that the memory has yet to serve, at most.
_UNDER_WAY = 1 << 14
_MACRO_CELL = re.compile(r"^  cell \\(unmask_sram_\S+) (\S+)\n((?:    connect [^\n]*\n)*)  end\n", re.MULTILINE)


def rtl_verilog(design: Design) -> tuple[str, dict[str, Any]]:
    """Verilog of a design with models of its macros, and yosys' JSON of its modules."""
    kinds: dict[tuple[str, tuple[str, ...]], str] = {}

    def told_apart(cell: re.Match[str]) -> str:
        """A macro's instance, the macro being named for its ports too."""
        ports = tuple(sorted(re.findall(r"^    connect \\(\S+)", cell[3], re.MULTILINE)))
        name = kinds.setdefault((cell[1], ports), f"{cell[1]}_{len(kinds)}")
        return f"  cell \\{name} {cell[2]}\n{cell[3]}  end\n"

    texts = [
        f"module \\{block.name}\n{_MACRO_CELL.sub(told_apart, block.text)}end\n" for block in design.blocks.values() if not block.macro
    ]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "rtl.il").write_text("\n".join(texts))
        script = f"read_rtlil rtl.il\n{MACRO_PORTS}\nhierarchy -top {design.top}\nproc\nopt_clean\nmemory_collect\n"
        yosys(f"{script}write_json rtl.json\nwrite_verilog -noattr rtl.v\n", folder, "rtl")
        modules: dict[str, Any] = json.loads((folder / "rtl.json").read_text())["modules"]
        verilog = (folder / "rtl.v").read_text()
    models = [model(name, {port: len(of["bits"]) for port, of in modules[name]["ports"].items()}) for name in kinds.values()]
    return "\n".join([verilog, *models]), modules


def bench(
    design: Design,
    modules: dict[str, Any],
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    beat_bytes: int,
    delays: tuple[int, int],
    programs: Sequence[tuple[int, int, int]],
    place: Sequence[str] = (),
) -> str:
    """The module `bench`, which does what the lockstep test bench does: see `unmask.rtl.lockstep`.

    Args:
        design, modules: of `rtl_verilog`.
        inputs, outputs: ports of its netlist: `NAME`, or `INSTANCE.INSTANCE__PORT` of a macro.
        delays: cycles from a request to its first beat, and from the last beat of a write to its response.
        programs: of each, words of 32 bits in `program_N.hex`, bytes of memory, in beats, in `memory_N.hex`, and the most cycles it may
            take. What it leaves is written to `left_N.hex`.
        place: the instances that lead to the unit whose netlist it is.

    Raises:
        UnmaskError: the design lacks a port of the netlist.
    """
    sides = [[f"dut.{_reference(modules, design.top, place, port.name)}" for port in side] for side in (inputs, outputs)]
    # Bit 0 of a row is the first port's; the first of a Verilog concatenation is the highest.
    given, seen = (", ".join(reversed(side)) for side in sides)
    own = modules[design.top]["ports"]
    wires = [f"  {'reg' if of['direction'] == 'input' else 'wire'} [{len(of['bits']) - 1}:0] {name};" for name, of in own.items()]
    starts = [f"    {name} = 0;" for name, of in own.items() if of["direction"] == "input"]
    runs = [
        f'    run({words}, {size}, {most}, "program_{number}.hex", "memory_{number}.hex", "left_{number}.hex");'
        for number, (words, size, most) in enumerate(programs)
    ]
    values = {
        "WIRES": "\n".join(wires),
        "CONNECTIONS": ", ".join(f".{name}({name})" for name in own),
        "STARTS": "\n".join(starts),
        "RUNS": "\n".join(runs),
        "GIVEN": given,
        "SEEN": seen,
        "TOP": design.top,
        "BITS": str(8 * beat_bytes - 1),
        "BYTES": str(beat_bytes),
        "WORDS": str(max(words for words, _, _ in programs)),
        "BEATS": str(max(-(-size // beat_bytes) for _, size, _ in programs)),
        "UNDER_WAY": str(_UNDER_WAY),
        "MEMORY_BITS": str(MEMORY_BITS),
        "ADDRESS_BITS": str(ADDRESS_BITS),
        "BUS_BITS": str(BUS_BITS),
        "PROGRAM": str(PROGRAM),
        "READ_DELAY": str(delays[0]),
        "WRITE_DELAY": str(delays[1]),
        "PORTS": PORTS,
        "REPORT": REPORT,
        **{register.name: str(int(register)) for register in Register},
    }
    return re.sub(r"@(\w+)@", lambda match: values[match[1]], Path(__file__).with_name("bench.v").read_text())


def _reference(modules: dict[str, Any], top: str, place: Sequence[str], name: str) -> str:
    """A port of the netlist in the words of the top module."""
    module = modules[top]
    for step in place:
        module = modules[module["cells"][step]["type"]]
    path, inside, port = name.rpartition("__")
    steps = path.split(".") if inside and name not in module["ports"] else []
    port = port if steps else name
    for step in steps:
        if step not in module["cells"]:
            raise UnmaskError(f"port {name} of the netlist is none of the RTL: no {step}")
        module = modules[module["cells"][step]["type"]]
    if port not in module["ports"]:
        raise UnmaskError(f"port {name} of the netlist is none of the RTL")
    return ".".join(_identifier(part) for part in (*place, *steps, port))


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
    start = ["  integer row;", "  initial begin", *(f"    {port}_data = 0;" for port in reads)]
    start += [f"    for (row = 0; row < {rows}; row = row + 1) words[row] = 0;", "  end"]
    return "\n".join([*lines, *start, "endmodule", ""])

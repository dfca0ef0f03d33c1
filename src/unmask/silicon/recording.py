"""What goes in and out of the sampling engine while it runs programs: its ports, and those of its memory macros, cycle by cycle.

The RTL runs in the lockstep test bench. A wrapper around it holds the memories and writes every port to a file before each clock edge.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unmask.errors import UnmaskError
from unmask.machine.config import Machine
from unmask.rtl.lockstep.generator import Case
from unmask.silicon.blocks import MACRO_PORTS, rtlil_of
from unmask.silicon.gates import CLOCK, Bits, Gates, Port
from unmask.silicon.tools import yosys

_MEMORY_PORT = re.compile(r"(?P<memory>.+)__(?P<port>clk|[rw]\d+_(?:en|en_through|addr|data|mask))$")
# A program has run away after so many times the cycles that it should take.
_PATIENCE = 4


@dataclass(frozen=True)
class Recording:
    """[cycles, bits] of a netlist's inputs and of its outputs, in the order of `Gates.inputs` and `Gates.outputs`, and what was run."""

    inputs: Bits
    outputs: Bits
    what: str

    def after_reset(self, ports: Sequence[Port]) -> int:
        """The first cycle before which there was a reset; 0 if the netlist has none.

        Args:
            ports: of the inputs.

        Raises:
            UnmaskError: there was no reset.
        """
        start = 0
        for port in ports:
            if port.name == "rst":
                held = np.flatnonzero(self.inputs[:, start])
                if not len(held):
                    raise UnmaskError("a recording without a reset")
                return int(held[0]) + 1
            start += len(port.nets)
        return 0


def record(machine: Machine, cases: Sequence[Case], what: str, gates: Gates, cache: Path) -> Recording:
    """Run programs on the RTL of a machine's sampling engine.

    Args:
        machine: with the ideal memory.
        cases: the programs; what: in words.
        gates: the netlist whose ports are recorded.
        cache: folder of results.

    Raises:
        UnmaskError: the engine can't be built or run, does not do what the functional and the cycle reading say, or lacks ports of the
            netlist.
    """
    from unmask.rtl.engine import SamplingEngine
    from unmask.rtl.lockstep.build import ports_header, taps_of
    from unmask.rtl.lockstep.compare import compare
    from unmask.rtl.lockstep.reference import expect
    from unmask.rtl.lockstep.runner import Job, execute, outcomes
    from unmask.rtl.lockstep.verilate import build

    engine = SamplingEngine(machine, trace=True, black_box=True)
    folder = (cache / "recordings" / f"{machine.name}-{machine.vector.vlen}").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rtl.il").write_text(rtlil_of(engine, "dut"))
    yosys(
        f"read_rtlil rtl.il\n{MACRO_PORTS}\nhierarchy -top dut\nproc\nflatten\ndelete t:$scopeinfo\nopt_clean\nmemory_collect\n"
        "expose -evert -sep __ t:unmask_sram_*\nwrite_json ports.json\nwrite_verilog -noattr dut.v\n",
        folder,
        "evert",
    )
    inputs, outputs = gates.inputs, gates.outputs
    ports = json.loads((folder / "ports.json").read_text())["modules"]["dut"]["ports"]
    if unknown := {port.name for port in (*inputs, *outputs)} - ports.keys():
        raise UnmaskError(f"ports {', '.join(sorted(unknown))} of the netlist are none of the RTL")
    dump = folder / "ports.txt"
    text = (folder / "dut.v").read_text() + _wrapper(ports, [port.name for port in inputs], [port.name for port in outputs], dump)
    library = build(text, ports_header(machine, engine.engines, taps_of(machine, engine)))
    dump.unlink(missing_ok=True)
    expected = [expect(case.program, machine, case.parameters) for case in cases]
    patience = [_PATIENCE * each.cycles + 10_000 for each in expected]
    jobs = [Job(case.program.words, case.program.image(), most) for case, most in zip(cases, patience, strict=True)]
    log = execute(library, jobs, machine)
    found = compare(expected, log, outcomes(log, len(jobs)), [True] * len(jobs))
    if found.value_mismatches or found.cycle_mismatches:
        raise UnmaskError(f"the RTL differs from the readings in {found.value_mismatches} values and {found.cycle_mismatches} cycles")
    rows = dump.read_text().split()
    dump.unlink()
    widths = [sum(len(port.nets) for port in side) for side in (inputs, outputs)]
    return Recording(_unpacked(rows[0::2], widths[0]), _unpacked(rows[1::2], widths[1]), what)


def _wrapper(ports: dict[str, Any], inputs: list[str], outputs: list[str], dump: Path) -> str:
    """The module `top`: the everted RTL, its memories, and what writes the ports down."""
    memories: dict[str, dict[str, str]] = {}
    own = []
    for name in ports:
        if (match := _MEMORY_PORT.fullmatch(name)) and f"{match['memory']}__{CLOCK}" in ports:
            memories.setdefault(match["memory"], {})[match["port"]] = name
        else:
            own.append(name)
    wires = {name: f"p{index}" for index, name in enumerate(ports)}
    lines = [f"module top ({', '.join(own)});"]
    for name, port in ports.items():
        width = f"[{len(port['bits']) - 1}:0]"
        if name in own:
            lines += [f"  {port['direction']} {width} {name};", f"  wire {width} {wires[name]};"]
            lines.append(f"  assign {wires[name]} = {name};" if port["direction"] == "input" else f"  assign {name} = {wires[name]};")
        else:
            lines.append(f"  {'wire' if port['direction'] == 'output' else 'reg'} {width} {wires[name]};")
    connections = [f".\\{name} ({wire})" for name, wire in wires.items()]
    lines.append(f"  dut dut ({', '.join(connections)});")
    for index, memory in enumerate(memories.values()):
        widths = {port: len(ports[name]["bits"]) for port, name in memory.items()}
        lines += _memory(f"m{index}", {port: wires[name] for port, name in memory.items()}, widths)
    # Bit 0 of a row is the first port's; the first of a Verilog concatenation is the highest.
    given, seen = (", ".join(wires[name] for name in reversed(names)) for names in (inputs, outputs))
    lines += [
        "  integer file;",
        f'  initial file = $fopen("{dump}", "a");',
        f'  always @(posedge {CLOCK}) $fwrite(file, "%h %h\\n", {{{given}}}, {{{seen}}});',
        "endmodule",
        "",
    ]
    return "\n".join(lines)


def _memory(name: str, wires: dict[str, str], widths: dict[str, int]) -> list[str]:
    """A memory macro, as `unmask.rtl.sram` and `unmask.silicon.blocks` describe it."""
    reads = sorted({port.partition("_")[0] for port in wires if port.startswith("r")})
    writes = sorted({port.partition("_")[0] for port in wires if port.startswith("w")})
    width = widths[f"{(reads or writes)[0]}_data"]
    rows = 1 << widths[f"{(reads or writes)[0]}_addr"]
    lines = [f"  reg [{width - 1}:0] {name} [0:{rows - 1}];", f"  always @(posedge {CLOCK}) begin"]
    for port in reads:
        address, data = wires[f"{port}_addr"], wires[f"{port}_data"]
        enable = wires.get(f"{port}_en", wires.get(f"{port}_en_through"))
        if enable is None:
            continue
        value = f"{name}[{address}]"
        for write in writes if f"{port}_en_through" in wires else ():
            mask = f"({{{width}{{{wires[f'{write}_addr']} == {address}}}}} & {wires[f'{write}_mask']})"
            value = f"(({value} & ~{mask}) | ({wires[f'{write}_data']} & {mask}))"
        lines.append(f"    if ({enable}) {data} <= {value};")
    for port in writes:
        mask, address, data = (wires[f"{port}_{part}"] for part in ("mask", "addr", "data"))
        word = width // widths[f"{port}_mask"]
        for bit in range(widths[f"{port}_mask"]):
            part = f"[{(bit + 1) * word - 1}:{bit * word}]"
            lines.append(f"    if ({mask}[{bit}]) {name}[{address}]{part} <= {data}{part};")
    lines.append("  end")
    clocked = {port.partition("_")[0] for port in wires if "_en" in port}
    for port in reads:
        if port not in clocked:
            lines.append(f"  always @(*) {wires[f'{port}_data']} = {name}[{wires[f'{port}_addr']}];")
    row = f"{name}_row"
    return [*lines, f"  integer {row};", f"  initial for ({row} = 0; {row} < {rows}; {row} = {row} + 1) {name}[{row}] = 0;"]


def _unpacked(rows: list[str], width: int) -> Bits:
    """Hexadecimal numbers as bits, lowest first."""
    size = -(-width // 8)
    packed = np.frombuffer(bytes.fromhex("".join(row.zfill(2 * size) for row in rows)), np.uint8).reshape(len(rows), size)
    return np.unpackbits(packed[:, ::-1], axis=1, bitorder="little")[:, :width]

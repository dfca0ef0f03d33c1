"""Verilog of a unit, with what an integrator must know beside it."""

from __future__ import annotations

import re
from pathlib import Path

from amaranth.lib.wiring import Flow, Signature

from unmask.errors import UnmaskError
from unmask.isa.row import Engine
from unmask.machine.config import Machine
from unmask.rtl.engine import SamplingEngine
from unmask.rtl.faults import Fault
from unmask.rtl.host import INTEGERS, MEANING, PROGRAM
from unmask.rtl.integration import MATRIX, NOTE
from unmask.rtl.npu import Npu
from unmask.rtl.reserved import RESERVED
from unmask.rtl.verilog import verilog_of

UNITS: dict[str, type[SamplingEngine] | type[Npu]] = {"sampler": SamplingEngine, "npu": Npu}
_WHAT = {"sampler": "sampling engine", "npu": "NPU"}
_LINT = (
    ("DECLFILENAME", "one file holds all modules of the unit"),
    ("UNUSEDSIGNAL", "a port of several uses leaves bits of some of them alone, e.g. the upper bits of 48-bit addresses after their check"),
    ("UNUSEDPARAM", "constants that a unit of this size does not need"),
    ("WIDTHTRUNC", "sums are computed one bit wider than they are kept"),
    ("WIDTHEXPAND", "narrow operands are zero-extended by assignment"),
    ("MULTIDRIVEN", "a memory bank has several write ports"),
    ("CMPCONST", "bounds that no address of this size can exceed"),
    ("UNSIGNED", "bounds that no address of this size can undercut"),
    ("VARHIDDEN", "multiplexers are functions, whose arguments are called a, b and s"),
    ("CASEOVERLAP", "multiplexers take the first case that fits; at most one does"),
    ("PROCASSINIT", "registers have their reset value at the start, too, where a technology can give it to them"),
    ("UNDRIVEN", "outputs that this unit does not use keep their name, but no logic"),
    ("SYNCASYNCNET", "reset is synchronous"),
)


def unit_named(name: str) -> type[SamplingEngine] | type[Npu]:
    """The component of a unit.

    Raises:
        UnmaskError: there is none of that name.
    """
    if name not in UNITS:
        raise UnmaskError(f"unit {name!r}: expected one of {', '.join(UNITS)}")
    return UNITS[name]


def readable(text: str) -> str:
    """Verilog without escaped names: underscores stand for dots, and one follows a word of the language."""
    return re.sub(r"\\(\S+) ", _plain, text)


def _plain(escaped: re.Match[str]) -> str:
    name = re.sub(r"\W+", "_", escaped[1].replace("[", "__").removesuffix("]"))
    return (f"{name}_" if name in RESERVED else name) + " "


def lint_waivers() -> str:
    """What Verilator's lint is told to leave, with the reasons."""
    return "".join(f"/* verilator lint_off {rule} */ // {reason}\n" for rule, reason in _LINT)


def port_table(signature: Signature) -> str:
    """Ports as a Markdown table: name, direction, bits."""
    lines = ["| port | direction | bits |", "|---|---|---|", "| clk | in | 1 |", "| rst | in | 1 |"]
    for path, member, value in signature.flatten(signature.create()):
        direction = "in" if member.flow is Flow.In else "out"
        lines.append(f"| {'__'.join(map(str, path))} | {direction} | {len(value.as_value() if hasattr(value, 'as_value') else value)} |")
    return "\n".join(lines) + "\n"


def _matrix_note(unit: SamplingEngine) -> str:
    array, load, entry = unit.machine.matrix, unit.load_shape, unit.sequencer.layouts[Engine.MATRIX]
    return MATRIX.format(
        mlen=array.mlen,
        granule=unit.machine.vector.granule,
        width=array.rows * array.blen,
        lanes=load.matrix_lanes,
        bits=load.matrix_bits,
        payload=", ".join(f"{name} ({field.width} bits)" for name, field in entry),
    )


def emit(name: str, machine: Machine, folder: Path, *, black_box: bool = False, matrix_port: bool = False) -> list[Path]:
    """Write a unit's Verilog, its port list, integration note and machine file.

    Args:
        folder: made if it is not there.
        black_box: leave the SRAMs to macros, whose names and ports the note lists.
        matrix_port: of the sampler only: with the port of a matrix unit.

    Returns:
        The files.

    Raises:
        UnmaskError: an unknown unit, one that has no such port, a machine that the hardware cannot be built for, a folder that cannot be
            written.
    """
    kind = unit_named(name)
    if matrix_port and kind is not SamplingEngine:
        raise UnmaskError(f"unit {name} has a matrix engine: expected the sampler for a matrix port")
    sampler = SamplingEngine(machine, black_box=black_box, matrix_port=matrix_port) if kind is SamplingEngine else None
    unit = sampler or kind(machine, black_box=black_box)
    top = f"unmask_{name}"
    head = f"// {top}: the {name} of machine {machine.name}, VLEN {machine.vector.vlen}. Written by `unmask rtl emit`; do not edit.\n"
    registers = "".join(f"| 0x{register:02x} | {register.name} | {meaning} |\n" for register, meaning in MEANING.items())
    faults = "".join(f"| {int(fault)} | {fault.name} |\n" for fault in Fault)
    note = NOTE.format(
        top=top,
        what=_WHAT[name],
        matrix=_matrix_note(sampler) if sampler and matrix_port else "",
        machine=machine.name,
        vlen=machine.vector.vlen,
        ports=port_table(unit.signature),
        registers=registers,
        faults=faults,
        program=f"0x{PROGRAM:06x}",
        integers=f"0x{INTEGERS:06x}",
        beat=unit.shape.beat_bytes,
        bursts=unit.shape.bursts,
        words=machine.sequencer.program_words,
    )
    contents = {f"{top}.v": head + lint_waivers() + readable(verilog_of(unit, top)), "INTEGRATION.md": note}
    contents["machine.json"] = machine.model_dump_json(indent=2, exclude_none=True) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for file, text in contents.items():
            partial = folder / f"{file}.partial"
            partial.write_text(text, "utf-8")
            partial.replace(folder / file)
            paths.append(folder / file)
    except OSError as error:
        raise UnmaskError(f"{folder}: cannot write: {error.strerror}") from None
    return paths

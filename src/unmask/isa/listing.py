"""Assembly text that keeps the program's entries and the phase of every instruction, in comments: `# entry full`, `# phase attention`."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from unmask.errors import UnmaskError
from unmask.isa.encoding import assemble, disassemble
from unmask.isa.program import Program

_PLAIN_NAME = re.compile(r"[\w.-]+")
_COMMENT = re.compile(r"\s*# (phase|entry) (.*)")


def listing(program: Program) -> str:
    """The program as assembly text, one comment line wherever an entry begins or the phase changes; `read_listing` gives all back."""
    lines: list[str] = []
    current: str | None = None
    starts = {first: name for name, (first, _) in program.entries.items()}
    for index, (line, phase) in enumerate(zip(disassemble(program.words).splitlines(), program.phases, strict=True)):
        if index in starts:
            lines.append(f"# entry {_quoted(starts[index])}")
            current = None
        if phase != current:
            indent = line[: len(line) - len(line.lstrip())]
            lines.append(f"{indent}# phase {_quoted(phase)}")
            current = phase
        lines.append(line)
    return "\n".join(lines) + "\n"


def _quoted(name: str) -> str:
    return name if _PLAIN_NAME.fullmatch(name) else json.dumps(name)


@dataclass(frozen=True)
class Listing:
    """What assembly text says.

    Attributes:
        words: uint64 [instructions, 2].
        phases: of each instruction, or None where no comment names a phase.
        entries: ranges of instructions by name; empty where no comment names one.
    """

    words: NDArray[np.uint64]
    phases: list[str] | None
    entries: dict[str, tuple[int, int]]


def read_listing(text: str) -> Listing:
    """The content of assembly text.

    Raises:
        UnmaskError: names the line and what is wrong with it; an instruction stands before the first of the phase comments.
    """
    words, phases = assemble(text), []
    starts: dict[str, int] = {}
    current: str | None = None
    first_orphan = count = 0
    for number, line in enumerate(text.splitlines(), 1):
        if match := _COMMENT.fullmatch(line):
            name = _name(match[2].strip(), f"line {number}: {match[1]}")
            if match[1] == "phase":
                current = name
            elif name in starts:
                raise UnmaskError(f"line {number}: entry {name} begins a second time")
            else:
                starts[name] = count
        elif line.split("#")[0].strip():
            count += 1
            if current is None:
                first_orphan = first_orphan or number
            else:
                phases.append(current)
    ends = [*list(starts.values())[1:], len(words)]
    firsts = [0, *ends]  # what stands before the first comment belongs to the first entry
    entries = {name: (first, end) for name, first, end in zip(starts, firsts, ends, strict=False)}
    if current is None:
        return Listing(words, None, entries)
    if first_orphan:
        raise UnmaskError(f"line {first_orphan}: an instruction of no phase: expected a line '# phase NAME' before it")
    return Listing(words, phases, entries)


def assemble_like(text: str, like: Program) -> Program:
    """Assembly text as a program with the HBM content, regions, machine and description of another.

    Phases and entries come from the text's comments; text without any phase keeps the other program's, instruction by instruction.

    Raises:
        UnmaskError: names the line and what is wrong with it; or the text names no phases and has another number of instructions.
    """
    read = read_listing(text)
    phases, entries = read.phases, read.entries
    if phases is None:
        if len(read.words) != len(like.words):
            raise UnmaskError(
                f"{len(read.words)} instructions without phases cannot take those of a program of {len(like.words)}: "
                "expected lines '# phase NAME', as `unmask disasm` writes them"
            )
        phases, entries = list(like.phases), entries or dict(like.entries)
    return replace(like, words=read.words, phases=phases, entries=entries)


def _name(text: str, where: str) -> str:
    if not text.startswith('"'):
        return text
    try:
        return str(json.loads(text))
    except ValueError:
        raise UnmaskError(f"{where} {text}: expected a name, or one in double quotes as JSON") from None

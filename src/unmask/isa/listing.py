"""Assembly text that keeps the phase of every instruction, in comments: `# phase attention`."""

from __future__ import annotations

import json
import re

import numpy as np
from numpy.typing import NDArray

from unmask.errors import UnmaskError
from unmask.isa.encoding import assemble, disassemble
from unmask.isa.program import Program

_PLAIN_NAME = re.compile(r"[\w.-]+")
_COMMENT = re.compile(r"\s*# phase (.*)")


def listing(program: Program) -> str:
    """The program as assembly text, one comment line wherever the phase changes; `read_listing` gives both back."""
    lines: list[str] = []
    current: str | None = None
    for line, phase in zip(disassemble(program.words).splitlines(), program.phases, strict=True):
        if phase != current:
            indent = line[: len(line) - len(line.lstrip())]
            lines.append(f"{indent}# phase {phase if _PLAIN_NAME.fullmatch(phase) else json.dumps(phase)}")
            current = phase
        lines.append(line)
    return "\n".join(lines) + "\n"


def read_listing(text: str) -> tuple[NDArray[np.uint64], list[str] | None]:
    """The words of assembly text, and the phase of each instruction, or None where no comment names a phase.

    Raises:
        UnmaskError: names the line and what is wrong with it; an instruction stands before the first of the phase comments.
    """
    words, phases = assemble(text), []
    current: str | None = None
    first_orphan = 0
    for number, line in enumerate(text.splitlines(), 1):
        if match := _COMMENT.fullmatch(line):
            current = _phase_name(match[1].strip(), f"line {number}")
        elif line.split("#")[0].strip():
            if current is None:
                first_orphan = first_orphan or number
            else:
                phases.append(current)
    if current is None:
        return words, None
    if first_orphan:
        raise UnmaskError(f"line {first_orphan}: an instruction of no phase: expected a line '# phase NAME' before it")
    return words, phases


def assemble_like(text: str, like: Program) -> Program:
    """Assembly text as a program with the HBM content, regions, machine and description of another.

    Phases come from the text's comments; text without any keeps the other program's, instruction by instruction.

    Raises:
        UnmaskError: names the line and what is wrong with it; or the text names no phases and has another number of instructions.
    """
    words, phases = read_listing(text)
    if phases is None:
        if len(words) != len(like.words):
            raise UnmaskError(
                f"{len(words)} instructions without phases cannot take those of a program of {len(like.words)}: "
                "expected lines '# phase NAME', as `unmask disasm` writes them"
            )
        phases = list(like.phases)
    return Program(words, phases, like.hbm_bytes, like.regions, like.data, like.machine, like.about)


def _phase_name(text: str, where: str) -> str:
    if not text.startswith('"'):
        return text
    try:
        return str(json.loads(text))
    except ValueError:
        raise UnmaskError(f"{where}: phase {text}: expected a name, or one in double quotes as JSON") from None

"""From Amaranth to RTLIL and Verilog: each distinct module once, however many lanes there are."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

from amaranth.back import rtlil

from unmask.errors import UnmaskError

_MODULE = re.compile(r"^(?:attribute [^\n]*\n)*module (\\\S+)\n(.*?)^end\n", re.MULTILINE | re.DOTALL)
_CELL = re.compile(r"^(\s*cell )(\\\S+)( [^\n]*)$", re.MULTILINE)
_PASSES = ("proc", "opt_clean", "memory_collect")


def distinct(text: str) -> str:
    """RTLIL in which modules of the same content are one.

    Args:
        text: RTLIL without source attributes, children before or after parents.
    """
    bodies = {match[1]: match[2] for match in _MODULE.finditer(text)}
    headers = {match[1]: match[0][: match[0].index("module ")] for match in _MODULE.finditer(text)}
    while True:
        first: dict[str, str] = {}
        same = {}
        for name, body in bodies.items():
            kept = first.setdefault(body, name)
            if kept != name:
                same[name] = kept
        if not same:
            break
        bodies = {name: _renamed(body, same) for name, body in bodies.items() if name not in same}
    return "".join(f"{headers[name]}module {name}\n{body}end\n" for name, body in bodies.items())


def _renamed(body: str, names: dict[str, str]) -> str:
    """A module whose cells are of other types."""
    return _CELL.sub(lambda cell: f"{cell[1]}{names.get(cell[2], cell[2])}{cell[3]}", body)


def rtlil_of(unit: Any, top: str) -> str:
    """A component as RTLIL, its top module named `top`."""
    return distinct(str(rtlil.convert(unit, name=top, emit_src=False)))


def verilog_of(unit: Any, top: str) -> str:
    """A component as Verilog, its top module named `top`, those of its parts beginning with it; raises as `verilog_from`."""
    return verilog_from(rtlil_of(unit, top))


def verilog_from(text: str) -> str:
    """RTLIL as Verilog.

    Raises:
        UnmaskError: pyosys is not installed.
    """
    try:
        from pyosys import libyosys
    except ImportError:
        raise UnmaskError("Verilog is written by pyosys, which is not installed: pip install 'unmask[rtl]'") from None
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "unit.il", Path(folder) / "unit.v"
        source.write_text(text)
        design = libyosys.Design()
        for command in (f"read_rtlil {source}", *_PASSES, f"write_verilog -noattr {target}"):
            libyosys.run_pass(f"tee -q {command}", design)
        return target.read_text()

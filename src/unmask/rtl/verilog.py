"""From Amaranth to RTLIL and Verilog: each distinct module once, however many lanes there are."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from amaranth.back import rtlil

from unmask.errors import UnmaskError
from unmask.rtl.once import once_each

_MODULE = re.compile(r"^(?:attribute [^\n]*\n)*module (\\\S+)\n(.*?)^end\n", re.MULTILINE | re.DOTALL)
_CELL = re.compile(r"^(\s*cell )(\\\S+)( [^\n]*)$", re.MULTILINE)
_PASSES = ("proc", "opt_clean", "memory_collect")
YOSYS = "import sys; from pyosys import libyosys; libyosys.run_pass('script ' + sys.argv[1], libyosys.Design())"
"""What Python runs as a process of its own: the script of yosys that is its argument."""


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
    with once_each(unit, top) as repeated:
        text = str(rtlil.convert(unit, name=top, emit_src=False))
    return distinct("\n".join([*repeated.values(), text]))


def verilog_of(unit: Any, top: str) -> str:
    """A component as Verilog, its top module named `top`, those of its parts beginning with it; raises as `verilog_from`."""
    return verilog_from(rtlil_of(unit, top))


def verilog_from(text: str) -> str:
    """RTLIL as Verilog.

    Raises:
        UnmaskError: pyosys is not installed, or fails; says how.
    """
    if find_spec("pyosys") is None:
        raise UnmaskError("Verilog is written by pyosys, which is not installed: pip install 'unmask[rtl]'")
    with tempfile.TemporaryDirectory() as folder:
        source, target, script = (Path(folder) / name for name in ("unit.il", "unit.v", "passes.ys"))
        source.write_text(text)
        script.write_text("\n".join((f"read_rtlil {source}", *_PASSES, f"write_verilog -noattr {target}")) + "\n")
        # A process of its own: yosys names every pass on the standard output, where figures in JSON go.
        done = subprocess.run([sys.executable, "-c", YOSYS, str(script)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise UnmaskError(f"yosys: {' '.join((done.stderr or done.stdout).split())[-300:]}")
        return target.read_text()

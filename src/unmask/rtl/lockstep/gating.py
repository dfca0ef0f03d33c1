"""Clocks of their own for the engines of a design that is simulated: what rests need not be computed.

Nothing else changes: the test bench gives such a clock its edge together with that of the whole design, from the start of an instruction
until some cycles after its end, and leaves it out while the engine has nothing to do and its registers would stay as they are.
"""

from __future__ import annotations

import re
from itertools import pairwise

from unmask.errors import UnmaskError

_MODULE = re.compile(r"^module (\\\S+)\n", re.MULTILINE)
_FIRST_PORT = 1_000_000
"""Above the number of any other port."""


def with_clocks(rtlil: str, top: str, paths: dict[str, tuple[str, ...]]) -> str:
    """RTLIL whose cells have clocks of their own.

    Args:
        rtlil: with a module `top` whose clock, as that of all parts, is called `clk`.
        paths: by the name of a clock, which becomes an input of `top`, the names of the cells that lead to the one that it drives.

    Raises:
        UnmaskError: there is no such cell, or it has no clock.
    """
    starts = [match.start() for match in _MODULE.finditer(rtlil)] + [len(rtlil)]
    head = rtlil[: starts[0]]
    modules: dict[str, str] = {}
    for first, end in pairwise(starts):
        match = _MODULE.match(rtlil, first)
        assert match is not None
        modules[match[1]] = rtlil[first:end]
    for number, (clock, path) in enumerate(paths.items()):
        module = f"\\{top}"
        for depth, name in enumerate(path):
            cell = re.search(rf"^  cell (\\\S+) \\{re.escape(name)}\n(.*?)^  end\n", modules[module], re.MULTILINE | re.DOTALL)
            last = depth == len(path) - 1
            if cell is None or (last and "    connect \\clk " not in cell[2]):
                raise UnmaskError(f"the design has no clocked part {'.'.join(path)}")
            whole = cell[0]
            if last:
                changed = re.sub(r"^    connect \\clk .*$", rf"    connect \\clk \\{clock}", whole, flags=re.MULTILINE)
            else:
                first_line = whole[: whole.index("\n") + 1]
                changed = f"{first_line}    connect \\{clock} \\{clock}\n{cell[2]}  end\n"
            port = f"  wire width 1 input {_FIRST_PORT + number} \\{clock}\n"
            line = f"module {module}\n"
            modules[module] = modules[module].replace(whole, changed, 1).replace(line, line + port, 1)
            module = cell[1]
    return head + "".join(modules.values())

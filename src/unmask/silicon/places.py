"""Which block each cell of a flat netlist belongs to: those blocks that were mapped by themselves, wherever they stand in the design."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from unmask.silicon.fanout import TREE
from unmask.silicon.synthesis import Netlist

_INSTANCE = re.compile(r"^  cell \\(\S+) \\(\S+)$", re.MULTILINE)

TREES = "fanout trees"
"""What the buffers between and around the blocks are called among these."""


def plain(name: str) -> str:
    """The name of a cell of a flat netlist without yosys' marks: instances and the cell in the last of them, dots between."""
    return name.replace("$flatten", "").replace("\\", "")


def part_of(cell: str, opened: Collection[str]) -> str:
    """The path of the outermost instance that a cell lies in and that is not among the opened ones; "" of the top module's own cells."""
    *steps, _ = plain(cell).split(".")
    path = ""
    for step in steps:
        if path not in opened or step.startswith("$"):
            break
        path = f"{path}.{step}" if path else step
    return path


class Places:
    """The instances of a netlist's blocks.

    Attributes:
        blocks: the block of each instance by its path, dots between the names; the top's path is empty.
    """

    def __init__(self, netlist: Netlist) -> None:
        """Read the hierarchy of the mapped blocks; macros are no places."""
        paths = {block.name: block.path for block in netlist.blocks if block.path}
        inside = {
            name: [(instance, kind) for kind, instance in _INSTANCE.findall(path.read_text()) if kind in paths]
            for name, path in paths.items()
        }

        def below(path: str, block: str) -> Iterator[tuple[str, str]]:
            yield path, block
            for instance, kind in inside[block]:
                yield from below(f"{path}.{plain(instance)}" if path else plain(instance), kind)

        self.blocks = dict(below("", netlist.top))

    def path_of(self, cell: str) -> str:
        """The path of the instance that a cell lies in, the innermost that is a block of its own."""
        steps = plain(cell).split(".")
        return next((path for end in range(len(steps) - 1, 0, -1) if (path := ".".join(steps[:end])) in self.blocks), "")

    def block_of(self, cell: str) -> str:
        """The block that a cell belongs to, or `TREES`."""
        return TREES if TREE.search(cell) else self.blocks[self.path_of(cell)]

"""A stream through one or two buffers, whose instructions order themselves by credits."""

from __future__ import annotations

from unmask.isa.encoding import Operand
from unmask.rtl.lockstep import values
from unmask.rtl.lockstep.accumulators import Unavailable
from unmask.rtl.lockstep.areas import Area, Tile
from unmask.rtl.lockstep.builder import Builder
from unmask.rtl.lockstep.emission import RING
from unmask.rtl.lockstep.nodes import Address, Item, Loop, Node, Touch, touched


class Ring:
    """One ring; its semaphores are named by the ordering, which is told their numbers by `Semaphores.fresh` when it runs."""

    def __init__(
        self, b: Builder, rows: int, cols: int, count: int, buffers: list[Tile], results: list[Tile], area: Area, target: Area | None
    ) -> None:
        self._b, self._rows, self._cols, self._count = b, rows, cols, count
        self._buffers, self._results, self._area, self._target = buffers, results, area, target

    def _node(self, name: str, constants: dict[str, int], places: dict[str, tuple[int, list[Tile]]], hbm: dict[str, Area]) -> Node:
        """An instruction whose tiles are in ring registers and whose HBM address moves by its rows."""
        node = Node(name, {"rows": self._rows, "cols": self._cols, **constants}, loops=(self._count,))
        for operand, (register, tiles) in places.items():
            node.registers[operand] = register
            node.constants[f"{operand}_stride"] = tiles[0].stride
        for operand, area in hbm.items():
            node.constants[f"{operand}_stride"] = area.stride
            node.addresses[operand] = Address(area.start, (self._rows * area.stride,))
        touches: list[Touch] = []
        for index in range(max(len(tiles) for _, tiles in places.values())):
            trial = {**node.addresses, **{o: Address(tiles[index].start) for o, (_, tiles) in places.items()}}
            touches += touched(Node(name, node.constants, trial, node.loops), self._b.machine)
        node.touches = touches
        return node

    def add(self) -> None:
        b, rng = self._b, self._b.rng
        first, second = RING[0], RING[1]
        full, done, free, taken = -1, -2, -3, -4
        load = self._node("L_VEC", {}, {"dst": (first, self._buffers)}, {"src": self._area})
        load.wait, load.signal = [free], [full]
        body: list[Item] = [load]
        if self._target is None:
            node = self._reduction()
            node.wait, node.signal = [full], [free]
            body.append(node)
        else:
            where = (second, self._results) if self._results else (first, self._buffers)
            name = rng.choice(("V_EXP", "V_MUL_I"))
            extra = {"value": values.bf16(b.numbers)} if name == "V_MUL_I" else {}
            node = self._node(name, extra, {"a": (first, self._buffers), "dst": where}, {})  # type: ignore[arg-type]
            store = self._node("ST_VEC", {}, {"src": where}, {"dst": self._target})
            node.wait, node.signal = ([full, taken], [free, done]) if self._results else ([full], [done])
            store.wait, store.signal = [done], [taken if self._results else free]
            body += [node, store]
        depth = len(self._buffers)
        for register, tiles in ((first, self._buffers), (second, self._results)):
            if tiles:
                b.body.append(Node("S_LI", {"value": tiles[0].start}, registers={"rd": register}))
                if depth > 1:
                    body.append(Node("S_XORI", {"value": tiles[0].start ^ tiles[1].start}, registers={"rd": register, "rs": register}))
                for tile in tiles:
                    b.tiles.tiles.append(tile)
        if self._count < depth:
            raise Unavailable
        b.body.append(Loop(self._count, body, sealed=True, credits={free: depth, taken: depth}))

    def _reduction(self) -> Node:
        """A running sum of what streams by; its accumulators start from zero before the loop."""
        b = self._b
        b.instruction("V_RED_SUM", rows=self._rows, running=0)
        start = b.instruction("F_FILL", count=self._rows)
        where = start.addresses["dst"]
        constants: dict[str, Operand] = {"rows": self._rows, "cols": self._cols, "running": 1, "a_stride": self._buffers[0].stride}
        node = Node("V_RED_SUM", constants, loops=(self._count,))
        for tile in self._buffers:
            node.addresses = {"a": Address(tile.start), "dst": where}
            node.touches += touched(node, self._b.machine)
        node.addresses = {"dst": where}
        node.registers = {"a": RING[0]}
        return node

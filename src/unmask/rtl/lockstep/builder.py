"""Chooses operands: places for every register operand of an instruction so that the instruction is legal where it stands.

What an operand is for is read off the rules of `unmask.machine.access`; nothing here knows what an instruction computes, but for the few
facts in `_MARKED` and `_MARKS`, and in `unmask.rtl.lockstep.accumulators`.
"""

from __future__ import annotations

from functools import cached_property
from random import Random

import numpy as np

from unmask.isa.encoding import Operand
from unmask.isa.table import BF16_BYTES, BY_NAME, INT32_BYTES, STRIDE_UNIT
from unmask.machine.access import Access
from unmask.machine.config import MATRIX_FORMATS, Machine
from unmask.numerics import mx
from unmask.rtl.lockstep.accumulators import Accumulators, Unavailable
from unmask.rtl.lockstep.areas import Area, Blocks, Memory, Span, Tile, Tiles, Words, overlaps
from unmask.rtl.lockstep.nodes import Address, Item, Node, Probe, probe, touched
from unmask.rtl.lockstep.sizes import Sizes

HBM_BYTES = 1 << 15
ALIGNMENT = BF16_BYTES
"""Bytes that addresses and strides in HBM are multiples of; MX scales lie anywhere."""
_MARKED = {"eligible": True}
"""Operands that read words of a kind: 0 or 1."""
_MARKED_OF = {("F_EXP_WIN", "a"): True}
"""The same, of one instruction: BF16 values."""
_MARKS = frozenset({"I_EQ_I", "F_LT", "V_TOPK_MASK", "V_THRESHOLD_MASK", "V_BARS_MASK", "V_RED_MAX", "V_RED_MAX_IDX", "F_EXP"})
"""Instructions that leave 0 or 1 in the integer SRAM, and BF16 values in the float SRAM."""


class Builder(Sizes):
    """Builds instructions one after the other, at the top level or in the body of a loop.

    Attributes:
        body: where instructions are put; loops: iterations of the loops around them.
    """

    def __init__(self, rng: Random, machine: Machine) -> None:
        super().__init__(rng, np.random.default_rng(rng.getrandbits(64)), machine)
        self.items: list[Item] = []
        self.body: list[Item] = self.items
        self.loops: tuple[int, ...] = ()
        self.tiles = Tiles(rng, machine.vector_elements, machine.vector.granule)
        self.words = {"float": Words(rng, machine.sram.float_words), "integer": Words(rng, machine.sram.integer_words)}
        self.memory = Memory(rng, self.numbers, HBM_BYTES, ALIGNMENT)
        self.accumulators = Accumulators(rng, machine.vector.accumulators)
        self.moved: list[tuple[Tile, tuple[int, ...]]] = []

    @cached_property
    def blocks(self) -> Blocks:
        """The matrix SRAM."""
        codes = max(mx.format_named(name).element.bits for name in self.machine.formats.stored[:MATRIX_FORMATS])
        return Blocks(self.rng, self.machine.matrix_blocks(codes))

    def instruction(self, name: str, **given: Operand) -> Node:
        """Append an instruction with random operands, but for the constants given.

        Raises:
            Unavailable: no place for one of its operands.
        """
        constants = self.constants(name, given)
        return self.place(name, constants, {})

    def place(self, name: str, constants: dict[str, Operand], addresses: dict[str, Address]) -> Node:
        """Append an instruction with these constants; operands that `addresses` does not give are placed.

        Raises:
            Unavailable: no place for one of its operands.
        """
        claimed = self.accumulators.claim(name, constants, addresses, bool(self.loops))
        found = probe(name, constants, self.machine)
        moves = self._moves(constants)
        taken: dict[str, list[Span]] = {"vector": [], "float": [], "integer": [], "matrix": []}
        for operand, accesses in found.roles.items():
            if operand in addresses and accesses[0].space in taken:
                taken[accesses[0].space].append(self._span(operand, accesses[0], constants, addresses))
        later = []
        # What is read and written lies apart from what is read, and is placed after it.
        for operand, accesses in sorted(found.roles.items(), key=lambda role: any(a.write for a in role[1])):
            if operand in addresses or operand == "scales":
                continue
            if all(a.write for a in accesses) and accesses[0].space != "hbm":
                later.append(operand)
            else:
                self._operand(name, operand, accesses, constants, addresses, moves, taken)
        for operand in later:
            self._result(name, operand, found, constants, addresses, moves, taken)
        for operand in found.scalars:
            if operand not in addresses:
                value = self.scalar(operand, constants)
                addresses[operand] = Address(value)
        marks = addresses["value"].base in (0, 1) if name == "I_FILL" else name in _MARKS
        self._finish(found, constants, addresses, marks or constants.get("boolean") == 1)
        # "boolean" is a wish, and one row has no stride.
        constants = {field.name: constants[field.name] for field in BY_NAME[name].fields if field.name in constants}
        node = Node(name, constants, addresses, self.loops)
        node.touches = touched(node, self.machine)
        self.accumulators.keep(*claimed)
        self.body.append(node)
        return node

    def _moves(self, constants: dict[str, Operand]) -> list[tuple[int, int]]:
        """Rows and columns by which operands that move do so, per loop."""
        granule = self.machine.vector.granule
        result = []
        for _ in self.loops:
            if "cols" in constants:
                rows, cols = int(constants["rows"]), int(constants["cols"]) // granule * granule
                result.append(self.rng.choice(((rows, 0), (1, 0), (0, cols), (0, cols), (0, 0))))
            else:
                result.append(self.rng.choice(((int(constants.get("count", 1)), 0), (1, 0), (0, 0))))
        return result

    def _extent(self, moves: list[tuple[int, int]]) -> tuple[int, int]:
        return (
            sum(r * (n - 1) for (r, _), n in zip(moves, self.loops, strict=True)),
            sum(c * (n - 1) for (_, c), n in zip(moves, self.loops, strict=True)),
        )

    def _still(self, moves: list[tuple[int, int]]) -> list[tuple[int, int]]:
        return [(0, 0)] * len(moves) if self.rng.random() < 0.4 else moves

    def _operand(
        self,
        name: str,
        operand: str,
        accesses: list[Access],
        constants: dict[str, Operand],
        addresses: dict[str, Address],
        moves: list[tuple[int, int]],
        taken: dict[str, list[Span]],
    ) -> None:
        """A place for an operand that is read, or is in HBM."""
        access, written = accesses[0], any(a.write for a in accesses)
        moves = self._still(moves)
        if access.space == "hbm":
            self._in_memory(operand, access, constants, addresses, moves)
        elif access.space == "vector":
            tile, steps = self._source(access.rows, access.cols, moves, written)
            torn = tile.stride * STRIDE_UNIT < access.cols and access.rows > 1
            if written and (torn or overlaps(*self._reach(tile, steps), taken["vector"])):
                raise Unavailable
            constants[f"{operand}_stride"] = tile.stride
            addresses[operand] = Address(tile.start, steps)
            taken["vector"].append(self._reach(tile, steps))
        elif access.space == "matrix":
            more, _ = self._extent(moves)
            start = self.blocks.find((access.rows + more) * access.cols, int(constants["format"]))
            if start is None:
                raise Unavailable
            addresses[operand] = Address(start, tuple(rows * access.cols for rows, _ in moves))
        else:
            more, _ = self._extent(moves)
            marked = _MARKED.get(operand, False) or _MARKED_OF.get((name, operand), False)
            count = access.cols + more
            start = self.words[access.space].find(count, marked, taken[access.space] if written else ())
            if start is None:
                raise Unavailable
            addresses[operand] = Address(start, tuple(rows for rows, _ in moves))
            taken[access.space].append((start, start + count))

    def _reach(self, tile: Tile, steps: tuple[int, ...]) -> Span:
        low, high = tile.span
        return low, high + sum(step * (n - 1) for step, n in zip(steps, self.loops, strict=False))

    def _source(self, rows: int, cols: int, moves: list[tuple[int, int]], written: bool) -> tuple[Tile, tuple[int, ...]]:
        same = [(t, s) for t, s in self.moved if t.rows >= rows and t.cols >= cols and len(s) == len(self.loops)]
        if same and self.rng.random() < 0.4:
            tile, steps = self.rng.choice(same)
            return tile._replace(rows=rows, cols=cols), steps
        more_rows, more_cols = self._extent(moves)
        whole = self.tiles.find(rows + more_rows, cols + more_cols)
        if whole is None or (written and whole.stride == 0):
            moves, whole = [(0, 0)] * len(moves), self.tiles.find(rows, cols)
        if whole is None:
            raise Unavailable
        return whole._replace(rows=rows, cols=cols), tuple(r * whole.stride * STRIDE_UNIT + c for r, c in moves)

    def _in_memory(
        self,
        operand: str,
        access: Access,
        constants: dict[str, Operand],
        addresses: dict[str, Address],
        moves: list[tuple[int, int]],
    ) -> None:
        more_rows, more_cols = self._extent(moves)
        stride, block = f"{operand}_stride", 0
        if "format" in constants:
            form = int(constants["format"])
            block = mx.BLOCK * mx.format_named(self.machine.formats.stored[form]).element.bits // 8
            kind, rows, cols, unit = f"mx{form}", access.rows, access.cols // block, block
            if any(c % mx.BLOCK for _, c in moves):
                moves, more_rows, more_cols = [(0, 0)] * len(moves), 0, 0
            moves, more_cols = [(r, c // mx.BLOCK) for r, c in moves], more_cols // mx.BLOCK
        elif stride in constants:
            kind, rows, cols, unit = "bf16", access.rows, access.cols // BF16_BYTES, BF16_BYTES
        else:
            kind, rows, cols, unit = "bool" if constants.get("boolean") else "int", 1, access.cols // INT32_BYTES, INT32_BYTES
            if any(r * INT32_BYTES % ALIGNMENT for r, _ in moves):
                moves, more_rows = [(0, 0)] * len(moves), 0
            moves, more_cols, more_rows = [(0, r) for r, _ in moves], more_rows, 0
        # A store packs whole blocks into a beat.
        alignment = block if block and access.write else 1
        area: Area | None = None
        if self.rng.random() < 0.4:
            area = self.memory.find(kind, rows + more_rows, cols + more_cols, alignment)
        if area is None:
            area = self.memory.place(kind, rows + more_rows, cols + more_cols, block, alignment)
            if area is not None:
                # What is to be written is filled too: a program that writes too little is found out.
                area = self.memory.fill(area, block)
        if area is None:
            raise Unavailable
        pitch = area.stride * block if block else area.stride
        if stride in constants:
            constants[stride] = area.stride
            if not access.write and rows > 1 and self.rng.random() < 0.05:
                constants[stride] = pitch = 0
        addresses[operand] = Address(area.start, tuple(r * pitch + c * unit for r, c in moves))
        if block:
            row = int(constants[stride])
            addresses["scales"] = Address(area.scales, tuple(r * row + c for r, c in moves))

    def _result(
        self,
        name: str,
        operand: str,
        found: Probe,
        constants: dict[str, Operand],
        addresses: dict[str, Address],
        moves: list[tuple[int, int]],
        taken: dict[str, list[Span]],
    ) -> None:
        """A place for an operand that is only written: an operand's own, or one that no operand touches."""
        access = found.roles[operand][0]
        # The matrix engine reads its operand again while it writes.
        if name != "M_MM" and self.rng.random() < 0.3 and self._in_place(operand, access, found, constants, addresses):
            return
        moves = self._still(moves)
        more_rows, more_cols = self._extent(moves)
        if access.space == "vector":
            tile = self.tiles.place(access.rows + more_rows, access.cols + more_cols, taken["vector"])
            if tile is None:
                raise Unavailable
            constants[f"{operand}_stride"] = tile.stride
            addresses[operand] = Address(tile.start, tuple(r * tile.stride * STRIDE_UNIT + c for r, c in moves))
            taken["vector"].append(tile.span)
        elif access.space == "matrix":
            if any(c % mx.BLOCK for _, c in moves):
                moves, more_rows, more_cols = [(0, 0)] * len(moves), 0, 0
            blocks = (access.rows + more_rows) * access.cols + more_cols // mx.BLOCK
            start = self.blocks.place(blocks, int(constants["format"]), bool(self.loops))
            if start is None:
                raise Unavailable
            addresses[operand] = Address(start, tuple(r * access.cols + c // mx.BLOCK for r, c in moves))
        else:
            words = self.words[access.space]
            avoid = list(taken[access.space])
            if self.loops and name not in _MARKS:
                # An instruction of an earlier part of the body may rely on what marked words are.
                avoid += words.marked_spans()
            start = words.place(access.cols + more_rows, avoid)
            if start is None:
                raise Unavailable
            addresses[operand] = Address(start, tuple(rows for rows, _ in moves))
            taken[access.space].append((start, start + access.cols + more_rows))

    def _in_place(self, operand: str, access: Access, found: Probe, constants: dict[str, Operand], addresses: dict[str, Address]) -> bool:
        """Let a result replace an operand of the same shape, if there is one."""
        for other, accesses in found.roles.items():
            a = accesses[0]
            if other not in addresses or a.write or a.space != access.space or (a.rows, a.cols) != (access.rows, access.cols):
                continue
            if self.loops and a.space != "vector":
                continue
            stride = int(constants.get(f"{other}_stride", 0))
            if a.space == "vector" and a.rows > 1 and stride * STRIDE_UNIT < a.cols:
                continue
            others = [
                self._span(third, b[0], constants, addresses)
                for third, b in found.roles.items()
                if third != other and third in addresses and b[0].space == a.space
            ]
            if overlaps(*self._span(other, a, constants, addresses), others):
                continue
            if a.space == "vector":
                constants[f"{operand}_stride"] = stride
            addresses[operand] = addresses[other]
            return True
        return False

    def _span(self, operand: str, access: Access, constants: dict[str, Operand], addresses: dict[str, Address]) -> Span:
        """Everything between the locations of an SRAM that an operand touches, over all iterations."""
        base, steps = addresses[operand]
        stride = int(constants.get(f"{operand}_stride", 0)) * STRIDE_UNIT if access.space == "vector" else 0
        more = sum(step * (n - 1) for step, n in zip(steps, self.loops, strict=False))
        return base, base + more + (access.rows - 1) * stride + access.cols

    def _finish(self, found: Probe, constants: dict[str, Operand], addresses: dict[str, Address], marks: bool) -> None:
        """Note what holds values now."""
        for operand, accesses in found.roles.items():
            access = accesses[-1]
            if not access.write or access.space in ("hbm", "accumulators"):
                continue
            base, steps = addresses[operand]
            if access.space == "vector":
                tile = Tile(base, access.rows, access.cols, int(constants[f"{operand}_stride"]))
                if any(steps):
                    self.moved.append((tile, steps))
                else:
                    self.tiles.tiles.append(tile)
            elif access.space == "matrix":
                if not any(steps):
                    self.blocks.hold(base, access.rows * access.cols, int(constants["format"]))
            else:
                more = sum(step * (n - 1) for step, n in zip(steps, self.loops, strict=False))
                if not any(steps):
                    self.words[access.space].hold(base, access.cols + more, marks)
                elif not marks:
                    self.words[access.space].forget_marks(base, access.cols + more)

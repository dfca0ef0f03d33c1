"""Random legal programs.

A program starts by loading a few tiles and words, and then does anything: single instructions, loops nested up to three deep whose operands
move by rows or columns, rings of buffers between load, vector and store engine, and the short sequences in which instructions make sense
only together. Registers come about in many ways, semaphores where order matters (`unmask.rtl.lockstep.ordering`), and
`unmask.machine.hazards` has the last word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

import numpy as np

from unmask.errors import UnmaskError
from unmask.isa.encoding import Operand, encode
from unmask.isa.program import Program, Region
from unmask.isa.table import BY_NAME, INT32_BYTES, Engine, Kind
from unmask.machine.config import Machine
from unmask.machine.hazards import find_races
from unmask.rtl.lockstep.accumulators import Unavailable
from unmask.rtl.lockstep.areas import Tile
from unmask.rtl.lockstep.builder import Builder
from unmask.rtl.lockstep.emission import LOADED, Emitter, TooFewRegisters
from unmask.rtl.lockstep.nodes import Address, Loop, Node, touched
from unmask.rtl.lockstep.ordering import Ordering, Semaphores, TooFewSemaphores
from unmask.rtl.lockstep.rings import Ring
from unmask.rtl.lockstep.values import special_fp32

_TOGETHER = frozenset({"V_EXP_WIN", "V_RED_SUM_WIN", "F_EXP_WIN", "L_GATHER"})
"""Their operands must fit each other; see `_Generator._window` and `_Generator._gather`."""


@dataclass
class Case:
    """A program and what it takes to run it.

    Attributes:
        program: HBM image and instructions.
        parameters: what S_LD finds in the integer SRAM.
        pairs: how often an instruction was made to wait for another engine's, by engines.
    """

    program: Program
    parameters: dict[int, int] = field(default_factory=dict)
    pairs: dict[str, int] = field(default_factory=dict)


def generate(seed: int, index: int, machine: Machine, names: frozenset[str]) -> Case:
    """The index-th program of a seed: the same whatever else is generated.

    Args:
        machine: its sizes and formats.
        names: instructions that the engine has.

    Raises:
        UnmaskError: a program that was meant to be legal has races: a mistake of the generator's.
    """
    for attempt in range(100):
        rng = Random(f"{seed}/{index}/{attempt}")
        try:
            case = _Generator(rng, machine, names).case()
        except (TooFewRegisters, TooFewSemaphores):
            continue
        if races := find_races(case.program, machine, case.parameters):
            raise UnmaskError(f"program {index} of seed {seed}: {races[0]}: expected no race")
        if len(case.program.words) <= machine.sequencer.program_words:
            return case
    raise UnmaskError(f"program {index} of seed {seed}: no legal program in 100 attempts")


class _Generator:
    def __init__(self, rng: Random, machine: Machine, names: frozenset[str]) -> None:
        self._rng, self._machine = rng, machine
        self._b = Builder(rng, machine)
        of_engines = sorted(name for name in names if BY_NAME[name].engine is not Engine.SEQUENCER and name not in _TOGETHER)
        self._names = of_engines
        self._all = names
        self._parameters: dict[int, int] = {}

    def case(self) -> Case:
        """One program."""
        self._stock()
        parts: list[Callable[[], None]] = [self._single] * 12 + [self._loop] * 4 + [self._ring] * 2
        parts += [self._window, self._sampler, self._load_word, self._more]
        if "M_MM" in self._all:
            parts += [self._product] * 8
        if "L_GATHER" in self._all:
            parts.append(self._gather)
        for _ in range(self._rng.randint(4, 16)):
            self._try(self._rng.choice(parts))
        semaphores = Semaphores(self._rng)
        ordering = Ordering(self._rng, semaphores)
        items = ordering.order(self._b.items)
        ops = Emitter(self._rng).program(items, semaphores.credits)
        size = len(self._b.memory.image)
        program = Program(
            encode(ops),
            ["fuzz"] * len(ops),
            size,
            {"hbm": Region(0, size)},
            {"hbm": self._b.memory.image},
            self._machine.model_dump(),
        )
        return Case(program, self._parameters, ordering.pairs)

    def _try(self, part: Callable[[], None]) -> None:
        for _ in range(6):
            try:
                part()
            except Unavailable:
                continue
            return

    def _stock(self) -> None:
        """Enough of everything for loops, which cannot add to it."""
        v, rng = self._machine.vector.vlen, self._rng
        b = self._b
        b.instruction("L_INT", count=rng.randint(16, 48), boolean=0)
        b.instruction("L_INT", count=rng.randint(16, 48), boolean=1)
        for _ in range(2):
            cols = rng.choice((4 * v, 5 * v + 3, 96, rng.randint(2 * v, 8 * v)))
            self._try(lambda cols=cols: self._tile(rng.randint(2, 10), cols))  # type: ignore[misc]
        self._try(self._floats)
        self._try(self._floats)
        self._try(self._special_floats)
        if "M_MM" in self._all:
            self._try(self._product)

    def _tile(self, rows: int, cols: int) -> None:
        self._b.instruction(self._choose("L_VEC", "L_VEC", "L_MX"), rows=rows, cols=cols)

    def _choose(self, *names: str) -> str:
        """One of the instructions that the engine has."""
        if not (there := [name for name in names if name in self._all]):
            raise Unavailable
        return self._rng.choice(there)

    def _floats(self) -> None:
        """Words of the float SRAM: BF16 values of a tile, picked one by one, constants, or integers."""
        rng = self._rng
        name = self._choose("V_RED_MAX_IDX", "V_RED_MAX_IDX", "F_FROM_INT", "F_UNIFORM", "F_FILL", "V_RED_MAX")
        if name in ("V_RED_MAX_IDX", "V_RED_MAX"):
            rows = min(rng.randint(8, 24), self._machine.vector.accumulators)
            self._b.instruction("L_VEC", rows=rows, cols=self._machine.vector.granule)
            self._b.instruction(name, rows=rows, cols=1, running=0)
        else:
            self._b.instruction(name, count=rng.randint(8, 32))

    def _special_floats(self) -> None:
        """Zeros, infinities, NaN and the like in a few words of the float SRAM: tiles seldom leave these there."""
        self._choose("F_FILL")
        for _ in range(self._rng.randint(1, 4)):
            self._b.instruction("F_FILL", count=self._rng.randint(1, 4), value=special_fp32(self._b.numbers))

    def _more(self) -> None:
        self._rng.choice((self._floats, self._special_floats, self._stock_words, lambda: self._tile(self._b.rows(), self._b.columns())))()

    def _stock_words(self) -> None:
        self._b.instruction("L_INT", boolean=self._rng.randrange(2))

    def _single(self) -> None:
        self._b.instruction(self._rng.choice(self._names))

    def _window(self) -> None:
        """A maximum, exponentials relative to it, and their sum; a second chunk may continue the first."""
        b, rng = self._b, self._rng
        if not self._all >= {"V_RED_MAX", "V_EXP_WIN", "V_RED_SUM_WIN", "F_EXP_WIN"}:
            raise Unavailable
        # Maxima of short rows are special numbers more often.
        rows, cols = b.rows(), b.columns() if rng.random() < 0.7 else rng.randint(1, 2)
        a = b.instruction("V_RED_MAX", rows=rows, cols=cols, running=0)
        self._sum(a, rows, cols, 0)
        if rng.random() < 0.4:
            more_cols = b.columns()
            given: dict[str, Operand] = {"running": 1, "rows": rows, "cols": more_cols}
            b.place("V_RED_MAX", b.constants("V_RED_MAX", given), {"dst": a.addresses["dst"]})
            more = b.body[-1]
            assert isinstance(more, Node)
            self._sum(more, rows, more_cols, 1)
        if rng.random() < 0.6:
            place = {"a": a.addresses["dst"], "f": a.addresses["dst"]}
            b.place("F_EXP_WIN", b.constants("F_EXP_WIN", {"count": rows}), place)

    def _sum(self, top: Node, rows: int, cols: int, running: int) -> None:
        b = self._b
        given = {"rows": rows, "cols": cols, "a_stride": top.constants["a_stride"]}
        exp = b.place("V_EXP_WIN", b.constants("V_EXP_WIN", given), {"a": top.addresses["a"], "f": top.addresses["dst"]})
        # The result of V_EXP_WIN may not have replaced the maxima, being in another memory; its tile is what is summed.
        given = {"rows": rows, "cols": cols, "running": running, "a_stride": exp.constants["dst_stride"]}
        b.place("V_RED_SUM_WIN", b.constants("V_RED_SUM_WIN", given), {"a": exp.addresses["dst"], "f": top.addresses["dst"]})

    def _product(self) -> None:
        """A left operand, a right one, their product, and others right behind it, some of them of what it made."""
        b, rng = self._b, self._rng
        sizes = b.constants("M_MM", {})
        given = {name: sizes[name] for name in ("m", "n", "k", "transposed", "format")}
        m, n, k = (int(sizes[name]) for name in ("m", "n", "k"))
        rows, cols = (k, n) if sizes["transposed"] else (n, k)
        if rng.random() < 0.7:
            b.instruction("L_VEC", rows=m, cols=k)
        b.instruction("L_MAT", rows=rows, cols=cols, format=sizes["format"])
        product = b.instruction("M_MM", **given)
        for _ in range(rng.choice((0, 0, 1, 2, 4))):
            if rng.random() < 0.3:
                made = {"m": product.constants["m"], "k": product.constants["n"], "a_stride": product.constants["dst_stride"]}
                product = b.place("M_MM", b.constants("M_MM", made), {"a": product.addresses["dst"]})
            else:
                product = b.instruction("M_MM")

    def _sampler(self) -> None:
        """Rows that stream by in one or more chunks, and what comes of them."""
        b, rng = self._b, self._rng
        if not self._all >= {"V_SAMPLE", "V_SAMPLE_END"}:
            raise Unavailable
        rows = b.rows()
        first = b.instruction("V_SAMPLE", rows=rows, running=0).addresses["first"]
        for _ in range(rng.choice((0, 0, 1, 2))):
            b.place("V_SAMPLE", b.constants("V_SAMPLE", {"rows": rows, "running": 1}), {"first": first})
        b.place("V_SAMPLE_END", b.constants("V_SAMPLE_END", {"count": rows}), {"first": first})

    def _gather(self) -> None:
        """Row numbers that a load brings, and the rows of a table that they choose."""
        b, rng = self._b, self._rng
        rows, cols, limit = b.rows(), b.columns(), rng.choice((1, 2, rng.randint(3, 12)))
        numbers, table = b.memory.place("int", 1, rows), b.memory.place("bf16", limit, cols)
        if numbers is None or table is None:
            raise Unavailable
        # Nothing else knows of the numbers' place, or some store might change them.
        b.memory.write(numbers.start, np.array([rng.randrange(limit) for _ in range(rows)], "<i4").view(np.uint8))
        b.memory.fill(table)
        ids = b.place("L_INT", b.constants("L_INT", {"count": rows}), {"src": Address(numbers.start)})
        given: dict[str, Operand] = {"rows": rows, "cols": cols, "limit": limit, "table_stride": table.stride}
        b.place("L_GATHER", b.constants("L_GATHER", given), {"ids": ids.addresses["dst"], "table": Address(table.start)})

    def _load_word(self) -> None:
        """S_LD of a word that a load has just brought, arithmetic with it at once or not, and an instruction whose constant that is."""
        b, rng = self._b, self._rng
        if b.loops or "I_FILL" not in self._all:
            raise Unavailable
        node = b.instruction("L_INT", count=rng.randint(1, 8), boolean=0)
        offset = rng.randrange(int(node.constants["count"]))
        source, target = node.addresses["src"].base + offset * INT32_BYTES, node.addresses["dst"].base + offset
        value = int(b.memory.image[source : source + INT32_BYTES].view("<i4")[0])
        if self._parameters.setdefault(target, value) != value:
            # The cycle reading knows one value per word.
            return
        word = Node("S_LD", {}, {"a": Address(target)}, registers={"rd": LOADED})
        word.touches = touched(word, self._machine)
        b.body.append(word)
        for _ in range(rng.randint(0, 2)):
            name = rng.choice(("S_ADD", "S_ADDI", "S_MULI", "S_XORI"))
            operands = [spec.name for spec in BY_NAME[name].fields if spec.kind is Kind.REGISTER]
            constants: dict[str, Operand] = {} if "rt" in operands else {"value": rng.randint(0, 1 << 20)}
            b.body.append(Node(name, constants, registers=dict.fromkeys(operands, LOADED)))
        fill = b.instruction("I_FILL")
        fill.registers["value"] = LOADED
        b.words["integer"].forget_marks(fill.addresses["dst"].base, int(fill.constants["count"]))

    def _loop(self) -> None:
        """A nest of loops at the top level."""
        self._nest(self._rng.choice((1, 1, 1, 2, 2, 3)), 12)
        self._b.moved.clear()

    def _nest(self, depth: int, room: int) -> None:
        b, rng = self._b, self._rng
        count = rng.choice((1, 2, 2, 3, 3, 4, 5))
        count = min(count, max(1, room))
        outer, moved = b.body, b.moved
        b.body, b.loops, b.moved = [], (*b.loops, count), []
        try:
            inside = rng.randrange(2) if depth > 1 else None
            steps = rng.randint(1, 3) if depth > 1 else rng.randint(2, 5)
            for index in range(steps):
                if inside == index:
                    self._nest(depth - 1, room // count)
                more = [self._gather] if "L_GATHER" in self._all else []
                products = [self._product] * 4 if "M_MM" in self._all else []
                self._try(rng.choice((*[self._single] * 10, self._window, self._sampler, *more, *products)))
            body = b.body
        finally:
            b.body, b.loops, b.moved = outer, b.loops[:-1], moved
        if body:
            b.body.append(Loop(count, body))

    def _ring(self) -> None:
        """A stream through one or two buffers: load, compute, and store or reduce, each stage as far ahead as the buffers allow."""
        b, rng = self._b, self._rng
        if b.loops or not self._all >= {"V_RED_SUM", "V_EXP", "V_MUL_I", "F_FILL"}:
            raise Unavailable
        rows, cols, count, depth = rng.randint(1, 4), b.columns(), rng.randint(2, 6), rng.randint(1, 2)
        reduces = rng.random() < 0.4
        buffers = self._buffers(rows, cols, depth, [])
        avoid = [buffer.span for buffer in buffers]
        area = b.memory.place("bf16", rows * count, cols)
        target = None if reduces else b.memory.place("bf16", rows * count, cols)
        if area is None or (target is None and not reduces):
            raise Unavailable
        b.memory.fill(area)
        if target is not None:
            b.memory.fill(target)
        results = [] if reduces or rng.random() < 0.3 else self._buffers(rows, cols, depth, avoid)
        Ring(b, rows, cols, count, buffers, results, area, target).add()

    def _buffers(self, rows: int, cols: int, depth: int, avoid: Sequence[tuple[int, int]]) -> list[Tile]:
        """Tiles of one shape that do not touch."""
        found: list[Tile] = []
        for _ in range(depth):
            tile = self._b.tiles.place(rows, cols, [*avoid, *(t.span for t in found)])
            if tile is None or (found and tile.stride != found[0].stride and rows > 1):
                raise Unavailable
            found.append(tile._replace(stride=found[0].stride) if found else tile)
        return found

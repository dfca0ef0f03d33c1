"""Programs that end in a fault: a legal one, one instruction of which is made to fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from unmask.isa.encoding import Op, encode, encode_op
from unmask.isa.table import BY_OPCODE, INSTRUCTIONS, NO_SEMAPHORE, STRIDE_UNIT, Engine
from unmask.machine.config import MATRIX_FORMATS, Machine
from unmask.machine.cycle import engine_of
from unmask.numerics import mx
from unmask.rtl.faults import Fault
from unmask.rtl.lockstep.builder import HBM_BYTES
from unmask.rtl.lockstep.generator import Case, generate
from unmask.rtl.lockstep.runner import Job

EVERY = 10
"""One program of so many ends in a fault; kinds take turns."""
_FAR = 1 << 40
_TIMEOUT = 200_000


@dataclass(frozen=True)
class FaultyCase:
    """A program that must stop.

    Attributes:
        job: for the harness.
        fault, pc: what the status register must say.
        what: what is wrong, for the reader.
    """

    job: Job
    fault: Fault
    pc: int
    what: str


class _Maker:
    """Appends a failing instruction to the beginning of a legal program."""

    def __init__(self, rng: Random, machine: Machine, names: frozenset[str]) -> None:
        self.rng, self.machine, self.names = rng, machine, names
        self.errors = (0, 0)
        self.patched: int | None = None
        self._registers = iter(range(1, 30))
        self.ops: list[Op] = []

    def register(self, value: int) -> int:
        number = next(self._registers)
        self.ops.append(Op("S_LI", {"rd": number, "value": value}))
        return number

    def tile(self, start: int, rows: int = 1, cols: int = 8) -> Op:
        operands = {"rows": rows, "cols": cols, "dst_stride": -(-cols // STRIDE_UNIT), "value": 1.0}
        return Op("V_FILL", {"dst": self.register(start), **operands})

    def load(self, start: int, source: int) -> Op:
        place = {"dst": self.register(start), "src": self.register(source)}
        return Op("L_VEC", {**place, "rows": 1, "cols": 16, "dst_stride": 1, "src_stride": 32})

    def store(self, start: int, target: int) -> Op:
        place = {"src": self.register(start), "dst": self.register(target)}
        return Op("ST_VEC", {**place, "rows": 1, "cols": 16, "src_stride": 1, "dst_stride": 32})


def _illegal(m: _Maker) -> Op:
    m.patched = m.rng.choice([code for code in range(256) if code not in BY_OPCODE])
    return Op("S_LI", {"rd": 31, "value": 0})


def _foreign(m: _Maker) -> Op:
    """An instruction that the unit does not have."""
    foreign = [row.opcode for row in INSTRUCTIONS if row.name not in m.names and row.engine is not Engine.SEQUENCER]
    m.patched = m.rng.choice(foreign) if foreign else min(set(range(256)) - BY_OPCODE.keys())
    return Op("S_LI", {"rd": 31, "value": 0})


def _underflow(m: _Maker) -> Op:
    free = m.rng.randrange(NO_SEMAPHORE)
    engine = m.rng.choice((Engine.SEQUENCER, Engine.LOAD, Engine.STORE, Engine.VECTOR))
    # Nothing else of these programs uses semaphores; see `faulty`.
    return Op("SYNC", {"engine": int(engine)}, wait=(free,))


def _overflow(m: _Maker) -> Op:
    name = m.rng.randrange(NO_SEMAPHORE)
    m.ops.append(Op("SEM_SET", {"semaphore": name, "value": (1 << 16) - 1}))
    return Op("SYNC", {"engine": int(m.rng.choice((Engine.LOAD, Engine.VECTOR)))}, signal=(name,))


def _reset(m: _Maker) -> Op:
    name = m.rng.randrange(NO_SEMAPHORE)
    m.ops.append(Op("SEM_SET", {"semaphore": name, "value": m.rng.randint(1, 9)}))
    return Op("SEM_SET", {"semaphore": name, "value": m.rng.randint(0, 9)})


def _end(m: _Maker) -> Op:
    m.patched = encode_op(Op("END")) & 0xFF
    return Op("S_LI", {"rd": 31, "value": 0})


def _deep(m: _Maker) -> Op:
    m.ops += [Op("LOOP", {"count": 2})] * m.machine.sequencer.loop_depth
    return Op("LOOP", {"count": 2})


def _no_rows(m: _Maker) -> Op:
    return m.rng.choice((lambda: m.tile(0, rows=0), lambda: m.tile(0, cols=0)))()


def _no_count(m: _Maker) -> Op:
    return Op("F_FILL", {"dst": m.register(0), "count": 0, "value": 0.0})


def _many_rows(m: _Maker) -> Op:
    rows = m.machine.vector.accumulators + 1
    return Op("V_RED_SUM", {"dst": m.register(0), "a": m.register(0), "rows": rows, "cols": 1, "a_stride": 0, "running": 0})


def _many_scores(m: _Maker) -> Op:
    places = {name: m.register(0) for name in ("dst", "f", "eligible", "k")}
    return Op("V_TOPK_MASK", {**places, "count": m.machine.vector.sorter + 1})


def _tile_outside(m: _Maker) -> Op:
    end, granule = m.machine.vector_elements, m.machine.vector.granule
    start = m.rng.choice((end, end - granule, -granule, _FAR))
    return m.tile(start, cols=granule + 1)


def _words_outside(m: _Maker) -> Op:
    sram = m.machine.sram
    start = m.rng.choice((sram.float_words, sram.float_words - 3, -1, _FAR))
    if m.rng.random() < 0.5:
        return Op("F_FILL", {"dst": m.register(start), "count": 4, "value": 0.0})
    start = m.rng.choice((sram.integer_words, sram.integer_words - 3, -1, _FAR))
    return Op("I_FILL", {"dst": m.register(start), "value": m.register(0), "count": 4})


def _load_outside(m: _Maker) -> Op:
    end = m.machine.vector_elements
    return m.rng.choice(
        (
            lambda: m.load(end, 0),
            lambda: m.load(0, HBM_BYTES),
            lambda: m.load(0, HBM_BYTES - 30),
            lambda: m.load(0, _FAR),
            lambda: m.store(end, 0),
            lambda: m.store(0, HBM_BYTES - 2),
            lambda: m.store(0, -32),
        )
    )()


def _word_outside(m: _Maker) -> Op:
    return Op("S_LD", {"rd": 31, "a": m.register(m.rng.choice((m.machine.sram.integer_words, -1, _FAR)))})


def _misaligned(m: _Maker) -> Op:
    offset = m.rng.randrange(1, m.machine.vector.granule)
    return m.rng.choice((lambda: m.tile(offset), lambda: m.load(offset, 0), lambda: m.store(offset, 0)))()


def _number_outside(m: _Maker) -> Op:
    """A row number that the table has not, or the address of one that the integer SRAM has not."""
    words, limit = m.machine.sram.integer_words, m.rng.randint(1, 9)
    ids, tokens = m.rng.randrange(words), m.rng.sample(range(NO_SEMAPHORE), 2)
    # Nothing that came before writes the number after it is there.
    m.ops.append(Op("SYNC", {"engine": int(Engine.LOAD)}, signal=(tokens[0],)))
    place = {"dst": m.register(ids), "value": m.register(m.rng.choice((limit, -1, 1 << 18)))}
    m.ops.append(Op("I_FILL", {**place, "count": 1}, wait=(tokens[0],), signal=(tokens[1],)))
    at = m.register(m.rng.choice((ids, ids, words, -1, _FAR)))
    sizes = {"rows": 1, "cols": 8, "dst_stride": 1, "table_stride": 16, "limit": limit}
    return Op("L_GATHER", {"dst": m.register(0), "table": m.register(0), "ids": at, **sizes}, wait=(tokens[1],))


def _format(m: _Maker) -> Op:
    number = m.rng.randrange(len(m.machine.formats.stored), 4)
    places = {name: m.register(0) for name in ("dst", "src", "scales")}
    return Op("L_MX", {**places, "rows": 1, "cols": 32, "dst_stride": 1, "src_stride": 1, "format": number})


def _memory(m: _Maker) -> Op:
    beat = m.machine.hbm.beat_bytes
    address = m.rng.randrange(0, HBM_BYTES - 4 * beat, 2)
    m.errors = (address + 30, address + 31)
    return m.rng.choice((m.load, m.store))(0, address)


def _product(m: _Maker, /, **changes: int) -> Op:
    """A small product, but for some operands."""
    sizes = {"m": 3, "n": 5, "k": 40, "dst_stride": 1, "a_stride": 2, "transposed": m.rng.randrange(2), "format": 0}
    sizes |= {name: value for name, value in changes.items() if name in sizes}
    places = {name: m.register(changes.get(name, start)) for name, start in (("dst", 256), ("a", 0), ("b", 0))}
    return Op("M_MM", {**places, **sizes})


def _blocks(m: _Maker, /, **changes: int) -> Op:
    """A load of the matrix SRAM, but for some operands."""
    places = {name: m.register(changes.get(name, 0)) for name in ("dst", "src", "scales")}
    return Op("L_MAT", {**places, "rows": 3, "cols": 33, "src_stride": 2, "format": changes.get("format", 0)})


def _blocks_of(m: _Maker) -> int:
    return m.machine.matrix_blocks(max(mx.format_named(name).element.bits for name in m.machine.formats.stored[:MATRIX_FORMATS]))


def _no_product(m: _Maker) -> Op:
    return _product(m, **{m.rng.choice("mnk"): 0})


def _product_outside(m: _Maker) -> Op:
    end, granule, blocks = m.machine.vector_elements, m.machine.vector.granule, _blocks_of(m)
    name, places = m.rng.choice((("a", (end - granule, -granule)), ("dst", (end, -granule)), ("b", (blocks - 1, -1))))
    return _product(m, **{name: m.rng.choice((*places, _FAR))})


def _product_misaligned(m: _Maker) -> Op:
    return _product(m, **{m.rng.choice(("a", "dst")): m.rng.randrange(1, m.machine.vector.granule)})


def _product_format(m: _Maker) -> Op:
    return m.rng.choice((_product, _blocks))(m, format=m.rng.choice((2, 3)))


def _blocks_outside(m: _Maker) -> Op:
    name, places = m.rng.choice((("dst", (_blocks_of(m) - 5, -1)), ("src", (HBM_BYTES - 5,)), ("scales", (HBM_BYTES - 5,))))
    return _blocks(m, **{name: m.rng.choice((*places, _FAR))})


_KINDS: dict[str, tuple[Fault, Callable[[_Maker], Op]]] = {
    "illegal opcode": (Fault.OPCODE, _illegal),
    "another engine's opcode": (Fault.OPCODE, _foreign),
    "semaphore underflow": (Fault.UNDERFLOW, _underflow),
    "semaphore overflow": (Fault.OVERFLOW, _overflow),
    "SEM_SET of a semaphore in use": (Fault.RESET, _reset),
    "END without LOOP": (Fault.LOOP, _end),
    "loops too deep": (Fault.LOOP, _deep),
    "no rows or columns": (Fault.SIZE, _no_rows),
    "no entries": (Fault.SIZE, _no_count),
    "too many rows": (Fault.SIZE, _many_rows),
    "too many scores": (Fault.SIZE, _many_scores),
    "tile outside": (Fault.ADDRESS, _tile_outside),
    "words outside": (Fault.ADDRESS, _words_outside),
    "transfer outside": (Fault.ADDRESS, _load_outside),
    "S_LD outside": (Fault.ADDRESS, _word_outside),
    "misaligned": (Fault.ALIGNMENT, _misaligned),
    "unknown format": (Fault.FORMAT, _format),
    "memory error": (Fault.MEMORY, _memory),
}
_GATHER_KINDS: dict[str, tuple[Fault, Callable[[_Maker], Op]]] = {"row number outside": (Fault.ADDRESS, _number_outside)}
_MATRIX_KINDS: dict[str, tuple[Fault, Callable[[_Maker], Op]]] = {
    "no product": (Fault.SIZE, _no_product),
    "product outside": (Fault.ADDRESS, _product_outside),
    "product misaligned": (Fault.ALIGNMENT, _product_misaligned),
    "unknown format of the matrix SRAM": (Fault.FORMAT, _product_format),
    "blocks outside": (Fault.ADDRESS, _blocks_outside),
}


def fault_kinds(names: frozenset[str]) -> dict[str, tuple[Fault, Callable[[_Maker], Op]]]:
    """What may be wrong with a program for a unit that has these instructions: the fault, and what makes the failing instruction."""
    return _KINDS | (_GATHER_KINDS if "L_GATHER" in names else {}) | (_MATRIX_KINDS if "M_MM" in names else {})


def faulty(seed: int, index: int, machine: Machine, names: frozenset[str]) -> FaultyCase:
    """The index-th faulty program of a seed: some instructions of a legal one, then one that fails, then more of the legal one."""
    rng = Random(f"fault/{seed}/{index}")
    case: Case = generate(seed, index, machine, names)
    kinds = fault_kinds(names)
    kind = list(kinds)[(index // EVERY + seed) % len(kinds)]
    fault, make = kinds[kind]
    if kind == "unknown format" and len(machine.formats.stored) > 3:
        kind = "misaligned"
        fault, make = kinds[kind]
    # Addresses of loops' instructions mean nothing without their loops: what is kept is the part before the first one. Without semaphores
    # instructions race, which is of no matter here.
    ops = case.program.ops
    straight = next(i for i, op in enumerate(ops) if op.name in ("LOOP", "HALT"))
    kept = [Op(op.name, op.operands) for op in ops[: min(straight, rng.randint(0, 40))] if op.name not in ("SEM_SET", "S_LD")]
    if fault is Fault.MEMORY:
        # An earlier transfer that meets the memory's error would be the one that fails.
        kept = [op for op in kept if engine_of(op) not in (Engine.LOAD, Engine.STORE)]
    maker = _Maker(rng, machine, names)
    maker.ops = list(kept)
    op = make(maker)
    pc = len(maker.ops)
    whole = [*maker.ops, op, *(Op("S_LI", {"rd": 0, "value": 0}) for _ in range(rng.randint(0, 3))), Op("HALT")]
    words = encode(whole)
    if maker.patched is not None:
        words[pc] = (maker.patched | 0xFFFFFF00, 0)
    memory = case.program.data["hbm"]
    return FaultyCase(Job(words, memory, _TIMEOUT, errors=maker.errors), fault, pc, f"{kind}: {op.name} at {engine_of(op).name.lower()}")

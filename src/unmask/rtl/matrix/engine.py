"""The matrix engine: a left row and a row of tiles of the right operand per cycle, from one instruction to the next without a pause."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from unmask.isa.row import STRIDE_UNIT
from unmask.machine.config import MATRIX_FORMATS, Machine
from unmask.numerics import mx
from unmask.numerics.mx import BLOCK
from unmask.rtl.bits import wire
from unmask.rtl.decode import Operands, dispatch_layout
from unmask.rtl.faults import BITS as FAULT_BITS
from unmask.rtl.faults import Fault
from unmask.rtl.matrix.failures import Failures
from unmask.rtl.matrix.quantizer import PLACES as QUANTIZER_PLACES
from unmask.rtl.matrix.quantizer import Quantizer
from unmask.rtl.matrix.row import ArrayRow
from unmask.rtl.matrix.sram import MatrixRead, code_bits
from unmask.rtl.matrix.stages import Stages
from unmask.rtl.matrix.timing import LEFT, READ, Timing
from unmask.rtl.matrix.walk import K_BITS, M_BITS, N_BITS, STRIDE_BITS, Walk, pointer
from unmask.rtl.pipeline import delay, strobe
from unmask.rtl.sram import SramRead, SramWrite

NAMES = frozenset({"M_MM"})
"""Its instructions."""


class MatrixEngine(wiring.Component):
    """The matrix engine of a machine.

    A row of the array holds `blen` columns of `mlen` elements of the right operand and collects the next ones meanwhile, one row of
    them, or one column of each transposed block, per cycle. All multipliers see one left row per cycle, quantized on the way. The products
    of a chunk of K go through the adder tree into the accumulator of their result, which stays where it is until K is over; then a row
    of `rows * blen` results leaves per cycle, while the next tiles are under way: those of the same instruction, or of the next, which
    starts as soon as the right operand of the one before has been read. An instruction ends as `unmask.machine.costs.matrix_cycles` says;
    its last row is written at least a cycle before.

    Ports:
        start, entry: an M_MM starts in this cycle; only while `ready`, which says whether one like `entry`, or if that is none, any other
            may.
        retire: strobe in the last cycle before the end of the oldest instruction under way.
        fault: of the oldest instruction under way, until `stop`. stop: forget everything.
        a, dst: of the vector SRAM: `mlen` elements to read, `rows * blen` to write. row0, ...: of the matrix SRAM.
    """

    def __init__(self, machine: Machine, pc_bits: int) -> None:
        """Size it.

        Raises:
            UnmaskError: an array that this design cannot build; names the field.
        """
        self.machine, array = machine, machine.matrix
        self._timing = Timing.of(machine)
        self._lanes, self._width = array.mlen // BLOCK, array.blen * array.rows
        self._beat = max(array.blen, BLOCK)
        self._bits = code_bits(machine)
        self._blocks = machine.matrix_blocks(self._bits)
        layout = dispatch_layout(NAMES, pc_bits)
        elements = ceil_log2(machine.vector_elements // machine.vector.granule)
        self._rows = [f"row{index}" for index in range(array.rows)]
        super().__init__(
            {
                "start": In(1),
                "entry": In(layout),
                "ready": Out(1),
                "retire": Out(1),
                "fault": Out(FAULT_BITS),
                "stop": In(1),
                "a": Out(SramRead(elements, 16, array.mlen)),
                "dst": Out(SramWrite(elements, 16, self._width)),
                **dict.fromkeys(self._rows, Out(MatrixRead(ceil_log2(self._blocks), self._bits, self._lanes))),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        array, timing, given = self.machine.matrix, self._timing, Operands(m, self.entry, NAMES)
        layout = data.StructLayout(
            {
                "m": M_BITS,
                "n": N_BITS,
                "k": K_BITS,
                "transposed": 1,
                **{name: self._element_bits() for name in ("a", "dst")},
                **{f"{name}_stride": STRIDE_BITS for name in ("a", "dst")},
                **{f"{name}_far": 1 for name in ("a", "dst")},
            }
        )
        m.submodules.stages = stages = Stages(layout, timing.depth, LEFT + timing.sums - READ)
        m.submodules.failures = self._failures = failures = Failures(timing.depth)
        m.d.comb += [
            stages.start.eq(self.start),
            stages.transposed.eq(given["transposed"]),
            stages.stop.eq(self.stop),
            *(getattr(stages.item, name).eq(given[name]) for name in layout.members if not name.endswith("_far")),
            *(getattr(stages.item, f"{name}_far").eq(self._far(given[name])) for name in ("a", "dst")),
        ]
        right = self._walk(m, "right", self.start, given)
        left = self._walk(m, "left", stages.left_start, stages.left)
        result = self._walk(m, "result", stages.result_start, stages.result)

        rows = [
            ArrayRow(
                array.blen,
                self._lanes,
                self._activations,
                self._formats,
                self._bits,
                self._beat,
                min(K_BITS - 5, self._blocks.bit_length()),
                timing.sums,
                timing.rounds,
            )
            for _ in self._rows
        ]
        left_wrong = self._left(m, left, stages.left)
        for name, row in zip(self._rows, rows, strict=True):
            m.submodules[f"array_{name}"] = row
            m.d.comb += [
                Cat(row.left.as_value()).eq(Cat(self._quantizer.parts.as_value())),
                Cat(row.left_scales.as_value()).eq(Cat(self._quantizer.scales.as_value())),
            ]
        result_wrong = self._results(m, result, stages.result, rows)
        m.d.comb += [
            stages.reading.eq(right.valid),
            stages.first_ending.eq(right.first_ending),
            stages.last.eq(right.last),
            self.ready.eq(stages.ready & ~failures.found),
            failures.right_wrong.eq(self._right(m, right, given, rows)),
            failures.left_wrong.eq(left_wrong),
            failures.result_wrong.eq(result_wrong),
        ]
        self._ends(m, result, given)
        return m

    def _ends(self, m: Module, walk: Walk, given: Operands) -> None:
        """Tells when an instruction is done, and what is wrong with one as a whole."""
        array, failures, timing = self.machine.matrix, self._failures, self._timing
        empty = ((given["m"] == 0) | (given["n"] == 0) | (given["k"] == 0)) & self.start
        unknown = (given["format"] >= MATRIX_FORMATS) & self.start
        misaligned = ((given["a"] | given["dst"]) & (self.machine.vector.granule - 1)).any() & self.start
        m.d.sync += failures.wrong.eq(Mux(empty, Fault.SIZE, Mux(unknown, Fault.FORMAT, Mux(misaligned, Fault.ALIGNMENT, Fault.NONE))))
        final = walk.last_chunk & (walk.n_left <= self._width) & (walk.m_left <= array.blen)
        last = walk.valid & final & (walk.position == array.blen - 1)
        done = strobe(m, last, READ + timing.rounds, self.stop, "done") & ~failures.failed
        m.d.comb += [
            failures.done.eq(done),
            failures.stop.eq(self.stop),
            self.retire.eq(strobe(m, done, timing.spare, self.stop, "retire") & ~self.stop),
            # Those before it retire first.
            self.fault.eq(Mux(strobe(m, failures.failed, timing.spare, self.stop, "failed"), failures.code, Fault.NONE)),
        ]

    @property
    def _activations(self) -> Any:
        return mx.format_named(self.machine.formats.activations).element

    @property
    def _formats(self) -> list[Any]:
        found = [mx.format_named(name).element for name in self.machine.formats.stored[:MATRIX_FORMATS]]
        return found[:1] if found[0] == found[1] else found

    def _walk(self, m: Module, name: str, start: Value, of: Any) -> Walk:
        """A walk through the instructions whose operands are `of`."""
        array = self.machine.matrix
        walk = m.submodules[f"{name}_walk"] = Walk(array.blen, array.mlen, array.rows, self._beat)
        m.d.comb += [
            walk.start.eq(start),
            walk.stop.eq(self.stop),
            walk.m.eq(of["m"]),
            walk.n.eq(of["n"]),
            walk.k.eq(of["k"]),
            walk.beat.eq(Mux(of["transposed"], self._beat, array.blen)),
            getattr(self._failures, f"{name}_start").eq(start),
        ]
        return walk

    def _far(self, address: Value) -> Value:
        return address >= self.machine.vector_elements

    def _element_bits(self) -> int:
        # An address is checked before the next stride is added, so one more stride must fit.
        return int(max(self.machine.vector_elements.bit_length(), STRIDE_BITS + STRIDE_UNIT.bit_length()) + 1)

    def _element_pointer(self, m: Module, walk: Walk, name: str, of: Any, steps: dict[str, Value]) -> tuple[Signal, Signal]:
        """An address that follows a walk, and whether its first one is outside."""
        blen = self.machine.matrix.blen
        stride, far = _kept(m, walk, of[f"{name}_stride"], f"{name}_stride") * STRIDE_UNIT, _kept(m, walk, of[f"{name}_far"], f"{name}_far")
        return pointer(m, walk, of[name], {"row": stride, "tile": stride * blen, **steps}, self._element_bits(), name), far

    def _left(self, m: Module, walk: Walk, of: Any) -> Value:
        """Reads the left rows and quantizes them; a row outside the memory."""
        array = self.machine.matrix
        address, far = self._element_pointer(m, walk, "a", of, {"chunk": Const(array.mlen)})
        count = wire(m, Mux(walk.last_chunk, walk.k_left, array.mlen)[: array.mlen.bit_length()])
        # What is beyond K is known before the row is there.
        there = wire(m, Cat(walk.k_left > index for index in range(array.mlen)))
        m.submodules.quantizer = self._quantizer = quantizer = Quantizer(array.mlen, self._activations, QUANTIZER_PLACES)
        m.d.comb += [
            self.a.enable.eq(1),
            self.a.address.eq(address >> ceil_log2(self.machine.vector.granule)),
            quantizer.row.eq(self.a.data),
            quantizer.inside.eq(delay(m, there, 1, "left_inside")),
        ]
        inside = walk.valid & (walk.position < array.blen) & (walk.position < walk.m_left)
        return wire(m, inside & (far | (address + count > self.machine.vector_elements)))

    def _right(self, m: Module, walk: Walk, given: Operands, rows: list[ArrayRow]) -> Value:
        """Reads the blocks of all rows of the array; one outside the memory."""
        array, lanes = self.machine.matrix, self._lanes
        transposed = _kept(m, walk, given["transposed"], "transposed")
        row_blocks = _kept(m, walk, (Mux(given["transposed"], given["n"], given["k"]) + BLOCK - 1) >> 5, "row_blocks")
        bits = max(self._blocks.bit_length(), K_BITS + (array.mlen * self._width).bit_length()) + 1
        slot, block_column = walk.position[:5], walk.position >> 5
        steps: dict[str, Value] = {
            "row": row_blocks,
            "chunk": Mux(transposed, row_blocks * array.mlen, lanes),
            "group": Mux(transposed, 0, row_blocks * self._width),
        }
        base = pointer(m, walk, given["b"], steps, bits, "b", again=transposed & (slot == BLOCK - 1))
        far = _kept(m, walk, given["b"] >= self._blocks, "b_far")
        inside = []
        for lane in range(lanes):
            row = Mux(transposed, lane * BLOCK + slot, lane * BLOCK)
            inside.append(wire(m, (row < walk.k_left)))
        outside = []
        later = {
            name: delay(m, value, 1, f"right_{name}")
            for name, value in (
                ("valid", walk.valid),
                ("position", walk.position),
                ("last", walk.next_chunk | walk.next_group | walk.next_tile | walk.last),
                ("inside", Cat(inside)),
                ("transposed", transposed),
                ("format", _kept(m, walk, given["format"][0], "format")),
            )
        }
        for index, (name, row) in enumerate(zip(self._rows, rows, strict=True)):
            port, first = getattr(self, name), index * array.blen
            column = wire(m, walk.column + first)
            there = Mux(transposed, block_column * BLOCK, walk.position) + first < walk.n_left
            for lane in range(lanes):
                across = row_blocks * (lane * BLOCK) + (column >> 5) + block_column
                address = wire(m, (base + Mux(transposed, across, row_blocks * first + lane))[:bits])
                m.d.comb += port.address[lane].eq(address)
                outside.append(walk.valid & there & inside[lane] & (far | (address >= self._blocks)))
            part = column[ceil_log2(array.blen) : 5] if array.blen < BLOCK else Const(0, 1)
            m.d.comb += [
                row.valid.eq(later["valid"]),
                row.position.eq(later["position"]),
                row.last.eq(later["last"]),
                row.inside.eq(later["inside"]),
                row.transposed.eq(later["transposed"]),
                row.format.eq(later["format"]),
                row.part.eq(delay(m, part, 1, f"part_{index}")),
                Cat(row.blocks.as_value()).eq(Cat(port.blocks.as_value())),
                Cat(row.scales.as_value()).eq(Cat(port.scales.as_value())),
            ]
        return Cat(outside).any()

    def _results(self, m: Module, walk: Walk, of: Any, rows: list[ArrayRow]) -> Value:
        """Adds up, and writes the rows of the result; one outside the memory."""
        array, after = self.machine.matrix, READ + self._timing.rounds
        address, far = self._element_pointer(m, walk, "dst", of, {"group": Const(self._width)})
        count = wire(m, Mux(walk.n_left < self._width, walk.n_left, self._width)[: self._width.bit_length()])
        add = wire(m, walk.valid & (walk.position < array.blen) & (walk.position < walk.m_left))
        writes = wire(m, add & walk.last_chunk)
        outside = wire(m, writes & (far | (address + count > self.machine.vector_elements)))
        mask = wire(m, Mux(writes & ~outside, (Const(1, self._width + 1) << count) - 1, 0)[: self._width])
        for row in rows:
            m.d.comb += [row.index.eq(walk.position), row.first.eq(walk.first_chunk), row.add.eq(add)]
        m.d.comb += [
            self.dst.address.eq(delay(m, address, after, "dst_address") >> ceil_log2(self.machine.vector.granule)),
            self.dst.mask.eq(Mux(self._failures.failed, 0, delay(m, mask, after, "dst_mask"))),
            Cat(self.dst.data).eq(Cat(row.results.as_value() for row in rows)),
        ]
        return outside


def _kept(m: Module, walk: Walk, value: Value, name: str) -> Signal:
    """What is loaded with the start of a walk."""
    kept = Signal(Value.cast(value).shape(), name=f"{name}_kept")
    with m.If(walk.start):
        m.d.sync += kept.eq(value)
    return kept

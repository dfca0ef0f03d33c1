"""The matrix engine: one instruction at a time, a left row and a row of tiles of the right operand per cycle."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
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
from unmask.rtl.matrix.quantizer import PLACES as QUANTIZER_PLACES
from unmask.rtl.matrix.quantizer import Quantizer
from unmask.rtl.matrix.row import ArrayRow
from unmask.rtl.matrix.sram import MatrixRead, code_bits
from unmask.rtl.matrix.timing import LEFT, ROUND_PLACES, SUM_PLACES, slack
from unmask.rtl.matrix.walk import K_BITS, STRIDE_BITS, Walk, pointer
from unmask.rtl.pipeline import delay
from unmask.rtl.sram import SramRead, SramWrite

NAMES = frozenset({"M_MM"})
"""Its instructions."""


class MatrixEngine(wiring.Component):
    """The matrix engine of a machine.

    A row of the array holds `blen` columns of `mlen` elements of the right operand and collects the next ones meanwhile, one row of
    them, or one column of each transposed block, per cycle. All multipliers see one left row per cycle, quantized on the way. The products
    of a chunk of K go through the adder tree into the accumulator of their result, which stays where it is until K is over; then a row
    of `rows * blen` results leaves per cycle, while the next tiles are under way. An instruction that starts in cycle s ends as
    `unmask.machine.costs.matrix_cycles` says, and writes its last row in the cycle before.

    Ports:
        start, entry: an M_MM starts in this cycle; only while `ready`.
        retire: strobe in the last cycle before its end.
        fault: of the instruction under way, until `stop`. stop: forget it.
        a, dst: of the vector SRAM: `mlen` elements to read, `rows * blen` to write. row0, ...: of the matrix SRAM.
    """

    def __init__(self, machine: Machine, pc_bits: int) -> None:
        """Size it.

        Raises:
            UnmaskError: an array that this design cannot build; names the field.
        """
        self.machine, array = machine, machine.matrix
        self._slack = slack(machine)
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
        array = self.machine.matrix
        busy, ends = Signal(), Signal()
        self._given = given = Operands(m, self.entry, NAMES)
        self._held = held = {name: Signal.like(value, name=f"held_{name}") for name, value in given.values.items()}
        m.d.comb += [self.ready.eq(~busy), self.retire.eq(ends)]
        with m.If(self.start):
            m.d.sync += [busy.eq(1), *(held[name].eq(value) for name, value in given.values.items())]
        with m.Elif(ends | self.stop):
            m.d.sync += busy.eq(0)

        used = min(self._slack, SUM_PLACES + ROUND_PLACES)
        rounds = used * ROUND_PLACES // (SUM_PLACES + ROUND_PLACES)
        sums, spare = used - rounds, self._slack - used
        transposed = given["transposed"]
        # From the first block's address to the first left row's, and to the first sum's accumulator.
        beat = Mux(transposed, self._beat + BLOCK, array.blen)
        right = self._walk(m, "right", Const(spare))
        left = self._walk(m, "left", spare + beat)
        result = self._walk(m, "result", spare + beat + LEFT + sums)

        faults = [self._left(m, left)]
        rows = [
            ArrayRow(
                array.blen,
                self._lanes,
                self._activations,
                self._formats,
                self._bits,
                self._beat,
                min(K_BITS - 5, self._blocks.bit_length()),
                sums,
                rounds,
            )
            for _ in self._rows
        ]
        for name, row in zip(self._rows, rows, strict=True):
            m.submodules[f"array_{name}"] = row
            m.d.comb += [
                Cat(row.left.as_value()).eq(Cat(self._quantizer.parts.as_value())),
                Cat(row.left_scales.as_value()).eq(Cat(self._quantizer.scales.as_value())),
            ]
        faults.append(self._right(m, right, rows))
        faults.append(self._results(m, result, rows, rounds))

        empty = (held["m"] == 0) | (held["n"] == 0) | (held["k"] == 0)
        granule = self.machine.vector.granule - 1
        misaligned = ((held["a"] | held["dst"]) & granule).any()
        checking = Signal()
        m.d.sync += checking.eq(self.start)
        wrong = Mux(
            checking & empty,
            Fault.SIZE,
            Mux(
                checking & (held["format"] >= MATRIX_FORMATS),
                Fault.FORMAT,
                Mux(checking & misaligned, Fault.ALIGNMENT, Mux(Cat(faults).any(), Fault.ADDRESS, Fault.NONE)),
            ),
        )
        with m.If(self.stop):
            m.d.sync += self.fault.eq(Fault.NONE)
        with m.Elif(busy & (self.fault == Fault.NONE)):
            m.d.sync += self.fault.eq(wrong)
        final = result.last_chunk & (result.n_left <= self._width) & (result.m_left <= array.blen)
        done = delay(m, result.valid & final & (result.position == array.blen - 1), rounds, "done")
        m.d.comb += ends.eq(busy & done & ~self.stop & (self.fault == Fault.NONE))
        return m

    @property
    def _activations(self) -> Any:
        return mx.format_named(self.machine.formats.activations).element

    @property
    def _formats(self) -> list[Any]:
        found = [mx.format_named(name).element for name in self.machine.formats.stored[:MATRIX_FORMATS]]
        return found[:1] if found[0] == found[1] else found

    def _walk(self, m: Module, name: str, wait: Value) -> Walk:
        array, given = self.machine.matrix, self._given
        longest = self._slack + self._beat + BLOCK + LEFT + SUM_PLACES
        walk = m.submodules[f"{name}_walk"] = Walk(array.blen, array.mlen, array.rows, self._beat, longest)
        m.d.comb += [
            walk.start.eq(self.start),
            walk.stop.eq(self.stop | (self.fault != Fault.NONE)),
            walk.wait.eq(wait),
            walk.m.eq(given["m"]),
            walk.n.eq(given["n"]),
            walk.k.eq(given["k"]),
            walk.beat.eq(Mux(given["transposed"], self._beat, array.blen)),
        ]
        return walk

    def _far(self, name: str) -> Value:
        return self._held[name] >= self.machine.vector_elements

    def _element_bits(self) -> int:
        # An address is checked before the next stride is added, so one more stride must fit.
        return int(max(self.machine.vector_elements.bit_length(), STRIDE_BITS + STRIDE_UNIT.bit_length()) + 1)

    def _element_pointer(self, m: Module, walk: Walk, name: str, steps: dict[str, Value]) -> Value:
        blen = self.machine.matrix.blen
        stride = self._held[f"{name}_stride"] * STRIDE_UNIT
        return pointer(m, walk, self._given[name], {"row": stride, "tile": stride * blen, **steps}, self._element_bits(), name)

    def _left(self, m: Module, walk: Walk) -> Value:
        """Reads the left rows and quantizes them; a row outside the memory."""
        array = self.machine.matrix
        address = self._element_pointer(m, walk, "a", {"chunk": Const(array.mlen)})
        count = wire(m, Mux(walk.last_chunk, walk.k_left, array.mlen)[: array.mlen.bit_length()])
        m.submodules.quantizer = self._quantizer = quantizer = Quantizer(array.mlen, self._activations, QUANTIZER_PLACES)
        m.d.comb += [
            self.a.enable.eq(1),
            self.a.address.eq(address >> ceil_log2(self.machine.vector.granule)),
            quantizer.row.eq(self.a.data),
            quantizer.count.eq(delay(m, count, 1, "left_count")),
        ]
        inside = walk.valid & (walk.position < array.blen) & (walk.position < walk.m_left)
        return wire(m, inside & (self._far("a") | (address + count > self.machine.vector_elements)))

    def _right(self, m: Module, walk: Walk, rows: list[ArrayRow]) -> Value:
        """Reads the blocks of all rows of the array; one outside the memory."""
        array, held, lanes = self.machine.matrix, self._held, self._lanes
        transposed = held["transposed"]
        row_blocks = wire(m, (Mux(transposed, held["n"], held["k"]) + BLOCK - 1) >> 5)
        bits = max(self._blocks.bit_length(), K_BITS + (array.mlen * self._width).bit_length()) + 1
        slot, block_column = walk.position[:5], walk.position >> 5
        steps: dict[str, Value] = {
            "row": row_blocks,
            "chunk": Mux(transposed, row_blocks * array.mlen, lanes),
            "group": Mux(transposed, 0, row_blocks * self._width),
        }
        base = pointer(m, walk, self._given["b"], steps, bits, "b", again=transposed & (slot == BLOCK - 1))
        far = held["b"] >= self._blocks
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
                row.transposed.eq(transposed),
                row.format.eq(held["format"][0]),
                row.part.eq(delay(m, part, 1, f"part_{index}")),
                Cat(row.blocks.as_value()).eq(Cat(port.blocks.as_value())),
                Cat(row.scales.as_value()).eq(Cat(port.scales.as_value())),
            ]
        return Cat(outside).any()

    def _results(self, m: Module, walk: Walk, rows: list[ArrayRow], rounds: int) -> Value:
        """Adds up, and writes the rows of the result; one outside the memory."""
        array = self.machine.matrix
        address = self._element_pointer(m, walk, "dst", {"group": Const(self._width)})
        count = wire(m, Mux(walk.n_left < self._width, walk.n_left, self._width)[: self._width.bit_length()])
        add = wire(m, walk.valid & (walk.position < array.blen) & (walk.position < walk.m_left))
        writes = wire(m, add & walk.last_chunk)
        outside = wire(m, writes & (self._far("dst") | (address + count > self.machine.vector_elements)))
        mask = wire(m, Mux(writes & ~outside, (Const(1, self._width + 1) << count) - 1, 0)[: self._width])
        for row in rows:
            m.d.comb += [row.index.eq(walk.position), row.first.eq(walk.first_chunk), row.add.eq(add)]
        m.d.comb += [
            self.dst.address.eq(delay(m, address, rounds, "dst_address") >> ceil_log2(self.machine.vector.granule)),
            self.dst.mask.eq(Mux(self.fault == Fault.NONE, delay(m, mask, rounds, "dst_mask"), 0)),
            Cat(self.dst.data).eq(Cat(row.results.as_value() for row in rows)),
        ]
        return outside

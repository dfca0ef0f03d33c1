"""What a request of a DMA engine amounts to, worked out before the walk over its tile begins."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.utils import ceil_log2

from unmask.isa.table import BF16_BYTES, INT32_BYTES, STRIDE_UNIT
from unmask.numerics import mx
from unmask.rtl.bits import wire
from unmask.rtl.bus import ADDRESS_BITS
from unmask.rtl.dma import CHUNK, LIMIT_BITS, Kind, Shape
from unmask.rtl.faults import BITS as FAULT_BITS
from unmask.rtl.faults import Fault

PLACES = 3
"""Of `PreparedRequest.steps`: decoding, products, sizes."""
UNIT_BITS, STRIDE_BITS, RANGE_BITS = 34, 30, 36
_LOG_BLOCK, _LOG_CHUNK = ceil_log2(mx.BLOCK), ceil_log2(CHUNK)


def _common(shape: Shape) -> dict[str, Any]:
    """Fields that all steps leave: see `PreparedRequest`."""
    return {
        "sync": 1,
        "gather": 1,
        "is_mx": 1,
        "is_matrix": 1,
        "is_integer": 1,
        "kind": range(len(shape.kinds)),
        "cause": FAULT_BITS,
        "per_block": 6,
        "one_row": 1,
        "rows": 14,
        "sram": ADDRESS_BITS,
        "sram_stride": 17,
        "memory": ADDRESS_BITS,
        "scales": ADDRESS_BITS,
        "memory_stride": 24,
        "limit": LIMIT_BITS,
        "more": 1,
        "tag": shape.tag_bits,
    }


class PreparedRequest:
    """Requests of a shape, worked out in three steps.

    Fields of `layout`:
        sync, gather, is_mx, is_matrix, is_integer: what it moves; is_mx includes the matrix SRAM's blocks. kind: class of its elements.
        cause: a fault that the operands alone have. per_block: bytes of a block, or of an element.
        one_row: it is walked as one row: contiguous on both sides, or words; rows otherwise.
        units: blocks or elements of a row. last_chunk: a row is one chunk.
        elements_range, scales_range: bytes of a row's first range of either kind.
        sram, sram_end: of its row in the SRAM; beyond: it does not fit. sram_stride: of rows, in the SRAM's own units.
        memory, scales, stride, memory_stride: as of `unmask.rtl.dma.request_layout`; stride: of the elements, bytes.
        limit, more, tag: as there.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        common = _common(shape)
        self._decoded = data.StructLayout({**common, "merged": 1, "blocks": 16, "cols": 20})
        self._multiplied = data.StructLayout({**common, "units": UNIT_BITS, "stride": STRIDE_BITS, "merged": 1, "cols": 20})
        self.layout = data.StructLayout(
            {
                **common,
                "units": UNIT_BITS,
                "last_chunk": 1,
                "elements_range": RANGE_BITS,
                "scales_range": _LOG_CHUNK + 1,
                "stride": STRIDE_BITS,
                "sram_end": ADDRESS_BITS + 1,
                "beyond": 1,
            }
        )

    @property
    def steps(self) -> list[tuple[data.StructLayout, Any]]:
        """The result of each step, and what builds it: of a module and the result before, or at first a `Shape.request`."""
        return [(self._decoded, self.decode), (self._multiplied, self.multiply), (self.layout, self.size)]

    def all(self, m: Module, request: Any) -> Value:
        """All steps in one, of a `Shape.request`."""
        for layout, step in self.steps:
            request = data.View(layout, wire(m, step(m, request)))
        return Value.cast(request)

    def block_bytes(self, number: Value) -> Value:
        """Bytes of a block of the MX format of that number."""
        sizes = [mx.BLOCK * form.element.bits // 8 for form in self.shape.formats] or [mx.BLOCK]
        return Array(Const(size, 6) for size in sizes)[number]

    def decode(self, m: Module, request: Any) -> Value:
        """What it moves, whether its rows are one, and what is wrong with it by itself."""
        shape, result = self.shape, Signal(self._decoded, name="decoded")
        is_matrix = (request.kind == Kind.MATRIX) if shape.matrix_blocks else Const(0, 1)
        is_mx, is_integer = (request.kind == Kind.MX) | is_matrix, request.kind == Kind.INTEGER
        gather = request.kind == Kind.GATHER
        blocks = wire(m, ((request.cols + mx.BLOCK - 1) >> _LOG_BLOCK)[:16])
        merged = (
            (is_matrix | (request.sram_stride * STRIDE_UNIT == request.cols))
            & (request.memory_stride == Mux(is_mx, blocks, request.cols * BF16_BYTES))
            & ~is_integer
            & ~gather
        )
        formats = Mux(is_matrix, len(shape.matrix_kinds), len(shape.formats))
        m.d.comb += [
            Cat(result[name] for name in ("is_mx", "is_matrix", "is_integer", "gather")).eq(Cat(is_mx, is_matrix, is_integer, gather)),
            result.sync.eq(request.kind == Kind.SYNC),
            result.kind.eq(Mux(is_mx, request.format + Mux(is_matrix, shape.matrix_kinds.start, 2), Mux(is_integer, 1, 0))),
            result.per_block.eq(Mux(is_mx, self.block_bytes(request.format), Mux(is_integer, INT32_BYTES, BF16_BYTES))),
            result.merged.eq(merged),
            result.one_row.eq(merged | is_integer),
            result.blocks.eq(blocks),
            result.sram_stride.eq(Mux(is_matrix, blocks, request.sram_stride * STRIDE_UNIT)),
            *(
                result[name].eq(request[name])
                for name in ("rows", "cols", "sram", "memory", "scales", "memory_stride", "limit", "more", "tag")
            ),
        ]
        with m.If((request.cols == 0) | (~is_integer & (request.rows == 0))):
            m.d.comb += result.cause.eq(Fault.SIZE)
        with m.Elif(is_mx & (request.format >= formats)):
            m.d.comb += result.cause.eq(Fault.FORMAT)
        with m.Elif(~is_integer & ~is_matrix & (request.sram[: ceil_log2(shape.granule)] != 0)):
            m.d.comb += result.cause.eq(Fault.ALIGNMENT)
        return result.as_value()

    def multiply(self, m: Module, request: Any) -> Value:
        """Its units, and the stride of its elements."""
        result = Signal(self._multiplied, name="multiplied")
        m.d.comb += [
            *(result[name].eq(request[name]) for name in (*_common(self.shape), "merged", "cols")),
            result.units.eq(Mux(request.is_mx, request.blocks, request.cols) * Mux(request.merged, request.rows, 1)),
            result.stride.eq(Mux(request.is_mx, request.memory_stride * request.per_block, request.memory_stride)),
        ]
        return result.as_value()

    def size(self, m: Module, request: Any) -> Value:
        """Its first ranges, and where a row ends in the SRAM."""
        shape, result = self.shape, Signal(self.layout, name="sized")
        units, several = request.units, wire(m, request.units > CHUNK)
        blocks = wire(m, Mux(several, CHUNK, units[: _LOG_CHUNK + 1])[: _LOG_CHUNK + 1])
        row = Mux(request.is_mx, units << _LOG_BLOCK, units)
        capacity = Mux(request.is_matrix, shape.matrix_blocks, Mux(request.is_integer, shape.integer_words, shape.vector_elements))
        m.d.comb += [
            *(result[name].eq(request[name]) for name in (*_common(shape), "units", "stride")),
            result.last_chunk.eq(~request.is_mx | ~several),
            result.scales_range.eq(blocks),
            result.elements_range.eq(
                Mux(request.is_mx, blocks * request.per_block, units << Mux(request.is_integer, 2, 1)),
            ),
            result.sram_end.eq(request.sram + Mux(request.is_matrix, units, Mux(request.merged, row, request.cols))),
            result.beyond.eq(result.sram_end > capacity),
        ]
        return result.as_value()

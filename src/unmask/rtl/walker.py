"""The walk over a tile, burst by burst."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from unmask.isa.table import BF16_BYTES, INT32_BYTES, STRIDE_UNIT
from unmask.numerics import mx
from unmask.rtl.bus import ADDRESS_BITS
from unmask.rtl.dma import CHUNK, Kind, Shape
from unmask.rtl.faults import BITS as FAULT_BITS
from unmask.rtl.faults import Fault

ASKING = 2
"""Cycles from the start of an instruction to the request of its first burst on the bus."""


class Walker(wiring.Component):
    """From requests to bursts: a burst in the first cycle of as many as it has beats, beginning the cycle after the request was taken.

    A SYNC gives no burst and takes one cycle.

    Ports:
        request: taken in the last cycle of the one before, or later.
        burst: in the first cycle of a burst; the walk waits while it is not ready.
        beat: valid in every cycle of a burst, with what the beat holds; the walk waits while it is not ready.
        memory_bytes: size of the memory.
        fault, code, tag: the instruction of that tag cannot go on; stays until `clear`.
        clear: forget everything.
        busy: a request is being walked. midway: a burst has begun and is not over.
    """

    def __init__(self, shape: Shape, *, scales_first: bool) -> None:
        self._shape, self._scales_first = shape, scales_first
        super().__init__(
            {
                "request": In(stream.Signature(shape.request)),
                "burst": Out(stream.Signature(shape.burst)),
                "beat": Out(stream.Signature(shape.beat)),
                "memory_bytes": In(ADDRESS_BITS),
                "fault": Out(1),
                "code": Out(FAULT_BITS),
                "tag": Out(shape.tag_bits),
                "clear": In(1),
                "busy": Out(1),
                "midway": Out(1),
            }
        )

    def _block_bytes(self, number: Value) -> Value:
        sizes = [mx.BLOCK * form.element.bits // 8 for form in self._shape.formats] or [mx.BLOCK]
        return Array(Const(size, 6) for size in sizes)[number]

    def elaborate(self, platform: Any) -> Module:
        """One request in registers; each cycle walks one beat of it."""
        m, shape = Module(), self._shape
        request, burst_bytes = self.request.payload, shape.beat_bytes * shape.burst_beats
        is_matrix = (request.kind == Kind.MATRIX) if shape.matrix_blocks else Const(0, 1)
        is_mx = (request.kind == Kind.MX) | is_matrix
        is_integer = request.kind == Kind.INTEGER

        # What a request amounts to: the tile as one row, if it is contiguous on both sides; units are blocks, or elements.
        blocks, merged, units, length, stride = Signal(16), Signal(), Signal(34), Signal(34), Signal(30)
        m.d.comb += [
            blocks.eq((request.cols + mx.BLOCK - 1) >> ceil_log2(mx.BLOCK)),
            merged.eq(
                (is_matrix | (request.sram_stride * STRIDE_UNIT == request.cols))
                & (request.memory_stride == Mux(is_mx, blocks, request.cols * BF16_BYTES))
                & ~is_integer
            ),
            units.eq(Mux(is_mx, blocks, request.cols) * Mux(merged, request.rows, 1)),
            length.eq(Mux(is_matrix, units, Mux(merged, Mux(is_mx, units << ceil_log2(mx.BLOCK), units), request.cols))),
            stride.eq(Mux(is_mx, request.memory_stride * self._block_bytes(request.format), request.memory_stride)),
        ]

        # The instruction.
        active, is_blocks, by_block, kind = Signal(), Signal(), Signal(), Signal(range(len(shape.kinds)))
        per_block, cause, tag, more = Signal(6), Signal(FAULT_BITS), Signal(shape.tag_bits), Signal()
        row_units, row_stride, scale_stride, sram_stride = Signal(34), Signal(30), Signal(24), Signal(17)
        # Its row, its chunk, its range.
        rows_left, units_left = Signal(14), Signal(34)
        next_elements, next_scales = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS)
        row_sram, sram, sram_end = Signal(shape.address_bits), Signal(shape.address_bits), Signal(ADDRESS_BITS + 1)
        elements, scales = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS)
        address, left, in_scales = Signal(ADDRESS_BITS), Signal(36), Signal()
        first, count = Signal(), Signal(8)

        # The burst that `address` and `left` begin with.
        offset, span, within, end = address[: shape.burst_bits], Signal(37), Signal(), Signal(shape.burst_bits + 1)
        beats = Signal(9)
        m.d.comb += [
            span.eq(left + offset),
            within.eq(span <= burst_bytes),
            end.eq(Mux(within, span, burst_bytes)),
            beats.eq(((end + shape.beat_bytes - 1) >> shape.beat_bits) - (offset >> shape.beat_bits)),
        ]
        tail, high = end[: shape.beat_bits], Signal(shape.beat_bits + 1)
        last_chunk, chunk_done, last_row, last_range = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            high.eq(Mux(tail == 0, shape.beat_bytes, tail)),
            last_chunk.eq(~is_blocks | (units_left <= CHUNK)),
            chunk_done.eq(~is_blocks | (~in_scales if self._scales_first else in_scales)),
            last_row.eq(rows_left == 1),
            last_range.eq(chunk_done & last_chunk & last_row),
        ]

        memory_end = Signal(ADDRESS_BITS + 1)
        capacity = Mux(by_block, shape.matrix_blocks, Mux(kind == Kind.INTEGER, shape.integer_words, shape.vector_elements))
        beyond = sram_end > capacity
        starts, last_beat, go = Signal(), Signal(), Signal()
        m.d.comb += [
            memory_end.eq(address + left),
            self.fault.eq(active & first & ((cause != Fault.NONE) | (memory_end > self.memory_bytes) | beyond)),
            self.code.eq(Mux(cause != Fault.NONE, cause, Fault.ADDRESS)),
            self.tag.eq(tag),
            self.busy.eq(active),
            self.midway.eq(active & ~starts),
            starts.eq(count == 0),
            last_beat.eq(count == beats - 1),
            go.eq(active & ~self.fault & self.beat.ready & (self.burst.ready | ~starts)),
            self.request.ready.eq(~active | (go & last_beat & within & last_range)),
        ]
        burst, beat = self.burst.payload, self.beat.payload
        m.d.comb += [
            self.burst.valid.eq(active & ~self.fault & starts & self.beat.ready),
            burst.address.eq(Cat(Const(0, shape.beat_bits), address[shape.beat_bits :])),
            burst.len.eq(beats - 1),
            burst.low.eq(address),
            burst.high.eq(high),
            burst.first.eq(first),
            burst.last.eq(within & last_range & ~more),
            burst.kind.eq(Mux(in_scales, shape.scales, kind)),
            burst.sram.eq(sram),
            burst.sram_end.eq(sram_end),
            burst.tag.eq(tag),
            self.beat.valid.eq(active & ~self.fault & (self.burst.ready | ~starts)),
            beat.low.eq(Mux(starts, address[: shape.beat_bits], 0)),
            beat.high.eq(Mux(last_beat, high, shape.beat_bytes)),
            beat.first.eq(starts & first),
            beat.last.eq(last_beat),
        ]

        def enter(chunk_elements: Value, chunk_scales: Value, remaining: Value, size: Value, of_blocks: Value, second: bool) -> None:
            """The next range: of a chunk of blocks its first or its second, else the whole row."""
            to_scales = of_blocks & int(self._scales_first != second)
            blocks_of_chunk = Mux(remaining > CHUNK, CHUNK, remaining)[: CHUNK.bit_length()]
            whole = remaining << Mux(size == INT32_BYTES, 2, 1)
            m.d.sync += [
                address.eq(Mux(to_scales, chunk_scales, chunk_elements)),
                left.eq(Mux(to_scales, blocks_of_chunk, Mux(of_blocks, blocks_of_chunk * size, whole))),
                in_scales.eq(to_scales),
                first.eq(1),
            ]
            if not second:
                m.d.sync += [elements.eq(chunk_elements), scales.eq(chunk_scales), units_left.eq(remaining)]

        with m.If(go):
            m.d.sync += count.eq(Mux(last_beat, 0, count + 1))
            with m.If(last_beat & ~within):
                m.d.sync += [
                    address.eq((address[shape.burst_bits :] + 1) << shape.burst_bits),
                    left.eq(left - (burst_bytes - offset)),
                    first.eq(0),
                ]
            with m.Elif(last_beat & ~chunk_done):
                enter(elements, scales, units_left, per_block, is_blocks, second=True)
            with m.Elif(last_beat & ~last_chunk):
                chunk_bytes = per_block << ceil_log2(CHUNK)
                enter(elements + chunk_bytes, scales + CHUNK, units_left - CHUNK, per_block, is_blocks, second=False)
                m.d.sync += sram.eq(sram + Mux(by_block, CHUNK, CHUNK * mx.BLOCK))
            with m.Elif(last_beat & ~last_row):
                enter(next_elements, next_scales, row_units, per_block, is_blocks, second=False)
                m.d.sync += [
                    rows_left.eq(rows_left - 1),
                    next_elements.eq(next_elements + row_stride),
                    next_scales.eq(next_scales + scale_stride),
                    row_sram.eq(row_sram + sram_stride),
                    sram.eq(row_sram + sram_stride),
                    sram_end.eq(sram_end + sram_stride),
                ]
            with m.Elif(last_beat):
                m.d.sync += active.eq(0)

        with m.If(self.request.valid & self.request.ready & (request.kind != Kind.SYNC)):
            unit = Mux(is_mx, self._block_bytes(request.format), Mux(is_integer, INT32_BYTES, BF16_BYTES))
            enter(request.memory, request.scales, units, unit, is_mx, second=False)
            m.d.sync += [
                active.eq(1),
                is_blocks.eq(is_mx),
                by_block.eq(is_matrix),
                kind.eq(Mux(is_mx, request.format + Mux(is_matrix, shape.matrix_kinds.start, 2), Mux(is_integer, 1, 0))),
                per_block.eq(unit),
                tag.eq(request.tag),
                more.eq(request.more),
                row_units.eq(units),
                row_stride.eq(stride),
                scale_stride.eq(request.memory_stride),
                sram_stride.eq(Mux(is_matrix, blocks, request.sram_stride * STRIDE_UNIT)),
                rows_left.eq(Mux(merged | is_integer, 1, request.rows)),
                next_elements.eq(request.memory + stride),
                next_scales.eq(request.scales + request.memory_stride),
                row_sram.eq(request.sram),
                sram.eq(request.sram),
                sram_end.eq(request.sram + length),
                count.eq(0),
                cause.eq(Fault.NONE),
            ]
            with m.If((request.cols == 0) | (~is_integer & (request.rows == 0))):
                m.d.sync += cause.eq(Fault.SIZE)
            with m.Elif(is_mx & (request.format >= Mux(is_matrix, len(shape.matrix_kinds), len(shape.formats)))):
                m.d.sync += cause.eq(Fault.FORMAT)
            with m.Elif(~is_integer & ~is_matrix & (request.sram[: ceil_log2(shape.granule)] != 0)):
                m.d.sync += cause.eq(Fault.ALIGNMENT)
        with m.If(self.clear):
            m.d.sync += active.eq(0)
        return m

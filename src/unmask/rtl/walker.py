"""The walk over a tile, burst by burst."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from unmask.numerics import mx
from unmask.rtl.bits import wire
from unmask.rtl.bus import ADDRESS_BITS
from unmask.rtl.dma import CHUNK, Kind, Shape
from unmask.rtl.faults import BITS as FAULT_BITS
from unmask.rtl.faults import Fault
from unmask.rtl.request import RANGE_BITS, STRIDE_BITS, UNIT_BITS, PreparedRequest

ASKING = 2
"""Cycles from the start of an instruction to the request of its first burst on the bus."""
SPAN_BITS = RANGE_BITS + 1
_LOG_CHUNK = ceil_log2(CHUNK)
_CHUNK_BITS = _LOG_CHUNK + 6
"""Of the bytes of a chunk's elements."""


class Walker(wiring.Component):
    """From requests to bursts: a burst in the first cycle of as many as it has beats, beginning the cycle after the request was taken.

    A SYNC gives no burst and takes one cycle.

    Ports:
        request: of `PreparedRequest.layout`; taken in the last cycle of the one before, or later.
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
                "request": In(stream.Signature(PreparedRequest(shape).layout)),
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

    def elaborate(self, platform: Any) -> Module:
        """One request in registers; each cycle walks one beat of it, and works out what the next one is if it is another burst's."""
        m, shape, first_scales = Module(), self._shape, int(self._scales_first)
        request, burst_bytes = self.request.payload, shape.beat_bytes * shape.burst_beats

        # The instruction.
        active, is_blocks, by_block, kind = Signal(), Signal(), Signal(), Signal(range(len(shape.kinds)))
        per_block, cause, tag, more = Signal(6), Signal(FAULT_BITS), Signal(shape.tag_bits), Signal()
        row_units, row_stride, scale_stride, sram_stride = Signal(UNIT_BITS), Signal(STRIDE_BITS), Signal(24), Signal(17)
        row_range, row_second, row_last_chunk = Signal(RANGE_BITS), Signal(_CHUNK_BITS), Signal()
        # Its row, its chunk, its range.
        rows_left, last_row, units_left, last_chunk = Signal(14), Signal(), Signal(UNIT_BITS), Signal()
        next_elements, next_scales = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS)
        row_sram, sram, sram_end = Signal(shape.address_bits), Signal(shape.address_bits), Signal(ADDRESS_BITS + 1)
        elements, scales, second_range = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS), Signal(_CHUNK_BITS)
        in_scales, range_last, first, failed = Signal(), Signal(), Signal(), Signal()
        # Its burst and its beat. `span`: bytes from the beginning of the first beat to the end of the range.
        address, span = Signal(ADDRESS_BITS), Signal(SPAN_BITS)
        within, length, high = Signal(), Signal(8), Signal(shape.beat_bits + 1)
        starts, last_beat, ahead = Signal(), Signal(), Signal(8)

        chunk_done, go = Signal(), Signal()
        m.d.comb += [
            chunk_done.eq(~is_blocks | (~in_scales if self._scales_first else in_scales)),
            self.fault.eq(active & failed),
            self.code.eq(Mux(cause != Fault.NONE, cause, Fault.ADDRESS)),
            self.tag.eq(tag),
            self.busy.eq(active),
            self.midway.eq(active & ~starts),
            go.eq(active & ~failed & self.beat.ready & (self.burst.ready | ~starts)),
            self.request.ready.eq(~active | (go & last_beat & within & range_last)),
        ]
        burst, beat = self.burst.payload, self.beat.payload
        m.d.comb += [
            self.burst.valid.eq(active & ~failed & starts & self.beat.ready),
            burst.address.eq(Cat(Const(0, shape.beat_bits), address[shape.beat_bits :])),
            burst.len.eq(length),
            burst.low.eq(address),
            burst.high.eq(high),
            burst.first.eq(first),
            burst.last.eq(within & range_last & ~more),
            burst.kind.eq(Mux(in_scales, shape.scales, kind)),
            burst.sram.eq(sram),
            burst.sram_end.eq(sram_end),
            burst.tag.eq(tag),
            self.beat.valid.eq(active & ~failed & (self.burst.ready | ~starts)),
            beat.low.eq(Mux(starts, address[: shape.beat_bits], 0)),
            beat.high.eq(Mux(last_beat, high, shape.beat_bytes)),
            beat.first.eq(starts & first),
            beat.last.eq(last_beat),
        ]

        # The chunk after this one, known in time: a chunk has two ranges.
        chunk_elements, chunk_scales, chunk_units = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS), Signal(UNIT_BITS)
        chunk_first, chunk_second, chunk_last = Signal(_CHUNK_BITS), Signal(_CHUNK_BITS), Signal()
        several = units_left > 2 * CHUNK
        blocks = wire(m, Mux(several, CHUNK, units_left[: _LOG_CHUNK + 1] ^ CHUNK)[: _LOG_CHUNK + 1])
        its_elements = (blocks * per_block)[:_CHUNK_BITS]
        m.d.sync += [
            chunk_elements.eq(elements + (per_block << _LOG_CHUNK)),
            chunk_scales.eq(scales + CHUNK),
            chunk_units.eq(units_left - CHUNK),
            chunk_last.eq(~several),
            chunk_first.eq(blocks if self._scales_first else its_elements),
            chunk_second.eq(its_elements if self._scales_first else blocks),
        ]

        def burst_of(reach: Value, offset: Value) -> list[Any]:
            """A burst begins, `offset` bytes after a multiple of the longest, in a range that ends `reach` bytes after that."""
            inside = wire(m, reach <= burst_bytes)
            end = wire(m, Mux(inside, reach[: shape.burst_bits + 1], burst_bytes))
            tail = wire(m, end[: shape.beat_bits])
            whole = wire(m, tail == 0)
            beats = wire(m, (end[shape.beat_bits :] - offset[shape.beat_bits :] - whole)[:8])
            return [
                span.eq(reach),
                within.eq(inside),
                length.eq(beats),
                high.eq(Mux(whole, shape.beat_bytes, tail)),
                last_beat.eq(beats == 0),
                ahead.eq(beats),
            ]

        def entered(where: Value, size: Value, outside: Value) -> list[Any]:
            """A range begins: its burst, and whether it lies in its memories."""
            start, end = wire(m, where[: shape.burst_bits]), Signal(ADDRESS_BITS + 1)
            m.d.comb += end.eq(where + size)
            return [
                *burst_of(wire(m, (size + start)[:SPAN_BITS]), start),
                address.eq(where),
                first.eq(1),
                failed.eq((end > self.memory_bytes) | outside),
            ]

        # What comes after the burst: the range's next, the chunk's second range, the next chunk, the next row.
        new_row, new_chunk = wire(m, chunk_done & last_chunk), wire(m, chunk_done & ~last_chunk)
        row_start = Mux(is_blocks & first_scales, next_scales, next_elements)
        chunk_start, second_start = (chunk_scales, elements) if self._scales_first else (chunk_elements, scales)
        where = Mux(new_row, row_start, Mux(new_chunk, chunk_start, second_start))
        size = Mux(new_row, row_range, Mux(new_chunk, chunk_first, second_range))
        row_end = wire(m, (sram_end + sram_stride)[: ADDRESS_BITS + 1])
        capacity = Mux(by_block, shape.matrix_blocks, Mux(kind == Kind.INTEGER, shape.integer_words, shape.vector_elements))
        next_range = entered(wire(m, where), wire(m, size), new_row & (row_end > capacity))
        next_burst = burst_of(wire(m, (span - burst_bytes)[:SPAN_BITS]), Const(0, shape.burst_bits))
        with m.If(go):
            m.d.sync += [starts.eq(last_beat), ahead.eq(ahead - 1), last_beat.eq(ahead == 1)]
            with m.If(last_beat & ~within):
                m.d.sync += [*next_burst, address.eq((address[shape.burst_bits :] + 1) << shape.burst_bits), first.eq(0)]
            with m.Elif(last_beat & range_last):
                m.d.sync += active.eq(0)
            with m.Elif(last_beat):
                m.d.sync += [*next_range, in_scales.eq(is_blocks & (first_scales ^ ~chunk_done))]
                with m.If(new_row):
                    m.d.sync += [
                        rows_left.eq(rows_left - 1),
                        last_row.eq(rows_left == 2),
                        range_last.eq(~is_blocks & (rows_left == 2)),
                        next_elements.eq(next_elements + row_stride),
                        next_scales.eq(next_scales + scale_stride),
                        row_sram.eq(row_sram + sram_stride),
                        sram.eq(row_sram + sram_stride),
                        sram_end.eq(row_end),
                        elements.eq(next_elements),
                        scales.eq(next_scales),
                        units_left.eq(row_units),
                        last_chunk.eq(row_last_chunk),
                        second_range.eq(row_second),
                    ]
                with m.Elif(new_chunk):
                    m.d.sync += [
                        range_last.eq(0),
                        elements.eq(chunk_elements),
                        scales.eq(chunk_scales),
                        units_left.eq(chunk_units),
                        last_chunk.eq(chunk_last),
                        second_range.eq(chunk_second),
                        sram.eq(sram + Mux(by_block, CHUNK, CHUNK * mx.BLOCK)),
                    ]
                with m.Else():
                    m.d.sync += range_last.eq(last_chunk & last_row)

        to_scales = wire(m, request.is_mx & first_scales)
        begins = wire(m, Mux(to_scales, request.scales, request.memory))
        amount = wire(m, Mux(to_scales, request.scales_range, request.elements_range))
        one_row = wire(m, request.one_row | (request.rows == 1))
        loaded = entered(begins, amount, request.beyond | (request.cause != Fault.NONE))
        second = (request.elements_range if self._scales_first else request.scales_range)[:_CHUNK_BITS]
        with m.If(self.request.valid & self.request.ready & ~request.sync):
            m.d.sync += [
                *loaded,
                active.eq(1),
                is_blocks.eq(request.is_mx),
                by_block.eq(request.is_matrix),
                kind.eq(request.kind),
                per_block.eq(request.per_block),
                tag.eq(request.tag),
                more.eq(request.more),
                cause.eq(request.cause),
                row_units.eq(request.units),
                row_range.eq(amount),
                row_second.eq(second),
                row_last_chunk.eq(request.last_chunk),
                row_stride.eq(request.stride),
                scale_stride.eq(request.memory_stride),
                sram_stride.eq(request.sram_stride),
                rows_left.eq(Mux(request.one_row, 1, request.rows)),
                last_row.eq(one_row),
                next_elements.eq(request.memory + request.stride),
                next_scales.eq(request.scales + request.memory_stride),
                elements.eq(request.memory),
                scales.eq(request.scales),
                units_left.eq(request.units),
                last_chunk.eq(request.last_chunk),
                second_range.eq(second),
                in_scales.eq(to_scales),
                range_last.eq(~request.is_mx & one_row),
                row_sram.eq(request.sram),
                sram.eq(request.sram),
                sram_end.eq(request.sram_end),
                starts.eq(1),
            ]
        with m.If(self.clear):
            m.d.sync += active.eq(0)
        return m

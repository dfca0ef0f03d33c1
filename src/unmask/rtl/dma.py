"""What the load and the store engine are asked for, and their sizes."""

from __future__ import annotations

from enum import IntEnum

from amaranth.lib import data
from amaranth.utils import ceil_log2

from unmask.errors import UnmaskError
from unmask.isa.table import BF16_BYTES, INT32_BYTES, STRIDE_UNIT
from unmask.machine.config import MATRIX_FORMATS
from unmask.machine.dma import CHUNK_BLOCKS
from unmask.numerics import mx
from unmask.rtl.bus import ADDRESS_BITS

CHUNK = CHUNK_BLOCKS
"""MX blocks whose scales, and then whose elements, are moved together (for stores: elements first)."""
MAX_BURST_BYTES = 4096
LIMIT_BITS = 18


class Kind(IntEnum):
    """What a request moves."""

    VECTOR = 0
    INTEGER = 1
    MX = 2
    SYNC = 3
    MATRIX = 4
    """MX, kept as it is in the matrix SRAM."""
    GATHER = 5


def request_layout(tag_bits: int) -> data.StructLayout:
    """A request of a DMA engine, registers replaced by their values.

    Fields:
        kind: `Kind`. A SYNC has no other field but its tag.
        format: number of the MX format, of MX and MATRIX only.
        rows, cols: of the tile, elements; INTEGER: one row of cols words.
        sram, sram_stride: address, elements, words or, MATRIX, blocks; row stride in units of `STRIDE_UNIT` elements, of MATRIX none.
        memory, scales: byte addresses of the elements and, of MX and MATRIX only, of the scales; GATHER: of the table, and of the row
            numbers in the integer SRAM.
        memory_stride: row stride, bytes; MX and MATRIX: blocks.
        limit: of GATHER only, rows of the table.
        more: the instruction goes on with the next request.
        tag: comes back when the instruction retires or faults.
    """
    return data.StructLayout(
        {
            "kind": Kind,
            "format": 2,
            "rows": 14,
            "cols": 20,
            "sram": ADDRESS_BITS,
            "sram_stride": 12,
            "memory": ADDRESS_BITS,
            "scales": ADDRESS_BITS,
            "memory_stride": 24,
            "limit": LIMIT_BITS,
            "more": 1,
            "tag": tag_bits,
        }
    )


class Shape:
    """Sizes of a DMA engine.

    Attributes: as given, and
        kinds: bits of an element of each class of data: BF16, INT32, one per MX format, one per MX format of the matrix SRAM, if there is
            one; the scales come last, 8.
        units: how many elements the engine moves its SRAM address by at once, per class.
        address_bits: of an SRAM address, elements or words, one past the last included.
    """

    def __init__(
        self,
        *,
        beat_bytes: int,
        burst_beats: int,
        bursts: int,
        granule: int,
        lanes: int,
        vector_elements: int,
        integer_words: int,
        formats: tuple[mx.MxFormat, ...],
        tag_bits: int,
        matrix_blocks: int = 0,
        writes: int | None = None,
        instructions: int | None = None,
    ) -> None:
        """Describe one.

        Args:
            beat_bytes: of the memory's port, a power of two, at least 4.
            burst_beats: most beats of a burst, a power of two, at most 256; a burst has at most 4 KiB.
            bursts: most bursts under way; more than the memory's latency in cycles, and they never limit.
            granule: elements, 8 to 32.
            lanes: elements of the vector SRAM's port, at least those of a beat. Data at any byte address will do with a granule more,
                and, of MX that is stored, with a block more and whole blocks; with less, a beat that does not fit is an alignment
                fault. Words are stored at multiples of their size.
            vector_elements, integer_words: capacities.
            formats: the MX formats by number; may be empty.
            tag_bits: of an instruction's tag.
            matrix_blocks: capacity of the matrix SRAM; 0: there is none.
            writes: most bursts of the store engine under way; by default `bursts`.
            instructions: most instructions under way; by default `bursts`.

        Raises:
            UnmaskError: sizes that do not fit each other.
        """
        for what, value, least, most in (
            ("beat_bytes", beat_bytes, 4, MAX_BURST_BYTES),
            ("burst_beats", burst_beats, 1, min(256, MAX_BURST_BYTES // beat_bytes)),
            ("granule", granule, 8, STRIDE_UNIT),
        ):
            if not least <= value <= most or value & (value - 1):
                raise UnmaskError(f"{what} {value}: expected a power of two from {least} to {most}")
        self.beat_bytes, self.burst_beats, self.bursts, self.granule, self.lanes = beat_bytes, burst_beats, bursts, granule, lanes
        self.vector_elements, self.integer_words, self.formats, self.tag_bits = vector_elements, integer_words, formats, tag_bits
        self.writes, self.instructions = writes or bursts, instructions or bursts
        stored = [form.element.bits for form in formats]
        in_matrix = stored[:MATRIX_FORMATS] if matrix_blocks else []
        self.matrix_blocks, self.matrix_kinds = matrix_blocks, range(2 + len(stored), 2 + len(stored) + len(in_matrix))
        self.kinds = (8 * BF16_BYTES, 8 * INT32_BYTES, *stored, *in_matrix, 8)
        for bits in self.kinds:
            if bits != 8 * INT32_BYTES and 8 * beat_bytes // bits > lanes:
                raise UnmaskError(f"{lanes} lanes: expected those of a beat, {8 * beat_bytes // bits} of {bits} bits")
        self.words = beat_bytes // INT32_BYTES
        self.address_bits = max(vector_elements, integer_words, matrix_blocks).bit_length()
        self.request = request_layout(tag_bits)
        self.burst_bits, self.beat_bits = ceil_log2(beat_bytes * burst_beats), ceil_log2(beat_bytes)
        self.burst = data.StructLayout(
            {
                "address": ADDRESS_BITS,
                "len": 8,
                "low": self.beat_bits,
                "high": self.beat_bits + 1,
                "first": 1,
                "last": 1,
                "kind": range(len(self.kinds)),
                "sram": self.address_bits,
                "sram_end": self.address_bits,
                "tag": tag_bits,
            }
        )
        """A burst: its first beat's address and its beats - 1; the first byte wanted of its first beat and the end of those of its last;
        whether it starts a range and ends its instruction; the class of its data; where its range starts in the SRAM, and where its row
        ends there."""
        self.beat = data.StructLayout({"low": self.beat_bits, "high": self.beat_bits + 1, "first": 1, "last": 1})
        """A beat: the first byte wanted and the end of those wanted, whether it starts a range and ends its burst."""

    @property
    def matrix_bits(self) -> int:
        """Bits of an element in the matrix SRAM: of the widest format that it holds."""
        return max(self.kinds[kind] for kind in self.matrix_kinds)

    @property
    def matrix_lanes(self) -> int:
        """Blocks of the matrix SRAM that a beat may touch."""
        sizes = [mx.BLOCK * self.kinds[kind] // 8 for kind in self.matrix_kinds]
        return max(-(-(size - 1 + self.beat_bytes) // size) for size in sizes)

    @property
    def scales(self) -> int:
        """The class of data of the scales."""
        return len(self.kinds) - 1

"""The sizes of the engine's memories and of their ports."""

from __future__ import annotations

from amaranth.utils import ceil_log2

from unmask.errors import UnmaskError
from unmask.machine.config import MATRIX_FORMATS, Machine
from unmask.machine.memory import Ideal
from unmask.numerics import mx
from unmask.rtl.decode import SEMAPHORE_NAME_BITS
from unmask.rtl.dma import MAX_BURST_BYTES, Shape
from unmask.rtl.sram import Sram

INSTRUCTIONS_UNDER_WAY = 256
"""Of each DMA engine before DRAM; those that move data wait for bursts before, so that only so many SYNCs could meet it."""


def dma_shape(machine: Machine, pc_bits: int, *, matrix: bool = False) -> Shape:
    """The sizes of a machine's load and store engines.

    Args:
        matrix: the engine loads the matrix SRAM too.

    Raises:
        UnmaskError: the machine's memory has more than one port, or another width than its beats.
    """
    memory, vector = machine.hbm, machine.vector
    if isinstance(memory, Ideal):
        if memory.bytes_per_cycle != memory.beat_bytes:
            raise UnmaskError(f"machine {machine.name}: hbm.bytes_per_cycle {memory.bytes_per_cycle}: expected a beat, {memory.beat_bytes}")
        writes = instructions = None
        burst_beats, bursts = min(256, MAX_BURST_BYTES // memory.beat_bytes), 1 << ceil_log2(memory.latency + 2)
    else:
        if memory.ports != 1:
            raise UnmaskError(f"machine {machine.name}: hbm.ports {memory.ports}: expected 1, the one wide port of the hardware")
        burst_beats, bursts = memory.burst_beats, memory.outstanding_reads
        writes, instructions = memory.outstanding_writes, INSTRUCTIONS_UNDER_WAY
    formats = tuple(mx.format_named(name) for name in machine.formats.stored)
    most = 8 * memory.beat_bytes // min([16, *(form.element.bits for form in formats)])
    return Shape(
        beat_bytes=memory.beat_bytes,
        burst_beats=burst_beats,
        bursts=bursts,
        granule=vector.granule,
        # A store packs whole blocks, wherever in a beat they begin.
        lanes=-(-most // mx.BLOCK) * mx.BLOCK + mx.BLOCK,
        vector_elements=machine.vector_elements,
        integer_words=machine.sram.integer_words,
        formats=formats,
        tag_bits=pc_bits + 2 * SEMAPHORE_NAME_BITS,
        writes=writes,
        instructions=instructions,
        matrix_blocks=machine.matrix_blocks(max(form.element.bits for form in formats[:MATRIX_FORMATS])) if matrix else 0,
    )


def memories_of(machine: Machine, shape: Shape, *, matrix_port: bool, gathers: bool, black_box: bool) -> dict[str, Sram]:
    """The vector, float and integer SRAM of an engine.

    Args:
        shape: of its store engine.
        matrix_port: with ports for a matrix unit. gathers: with one for L_GATHER.
        black_box: leave them to macros.
    """
    vector, array, sram = machine.vector, machine.matrix, machine.sram
    reads = {"a": vector.vlen, "b": vector.vlen, "store": shape.lanes}
    writes = {"dst": vector.vlen, "load": shape.lanes}
    if matrix_port:
        reads["matrix_a"], writes["matrix_dst"] = array.mlen, array.rows * array.blen
    width = vector.granule << ceil_log2(-(-max(*reads.values(), *writes.values()) // vector.granule))
    words = max(vector.integer_lanes, shape.words)
    return {
        "vector": Sram(
            machine.vector_elements,
            16,
            granule=vector.granule,
            width=width,
            reads=reads,
            writes=writes,
            depth_banks=sram.vector_banks,
            black_box=black_box,
        ),
        "float": Sram(
            sram.float_words,
            32,
            reads={"first": 1, "second": 1},
            writes={"first_result": 1, "second_result": 1},
            depth_banks=sram.float_banks,
            black_box=black_box,
        ),
        "integer": Sram(
            sram.integer_words,
            32,
            width=1 << ceil_log2(words),
            reads={
                **dict.fromkeys(("first", "second", "third"), vector.integer_lanes),
                "store": shape.words,
                "sequencer": 1,
                **({"gather": 1} if gathers else {}),
            },
            writes={"result": vector.integer_lanes, "load": shape.words},
            depth_banks=sram.integer_banks,
            black_box=black_box,
        ),
    }

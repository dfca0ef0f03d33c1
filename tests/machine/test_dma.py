"""Ranges, beats and times of DMA instructions before an ideal memory, against values worked out by hand."""

import numpy as np
import pytest

from unmask.errors import UnmaskError
from unmask.isa.encoding import assemble, decode
from unmask.isa.program import Program
from unmask.machine.config import Machine
from unmask.machine.cycle import time_program
from unmask.machine.dma import GATHER_LEAD, transfer_of
from unmask.machine.memory import Ideal

NANO, SMALL = Machine.preset("nano"), Machine.preset("small")
MXFP6 = SMALL.model_copy(update={"formats": SMALL.formats.model_copy(update={"kv": "mxfp6_e2m3"})})
# A beat of 64 bytes and a bit per cycle.
UNEVEN = SMALL.model_copy(update={"hbm": Ideal(gib=1, bytes_per_cycle=70, latency=9, beat_bytes=64)})


def timed(text: str, machine: Machine, address: int, scales: int) -> tuple[int, int, int]:
    """Cycles until the engine is free, from then to the end, and bytes moved, of an instruction whose addresses are in r1 and r2."""
    words = assemble(f"S_LI rd=r1 value={address}\nS_LI rd=r2 value={scales}\n{text}\nHALT")
    trace = time_program(Program(words, ["all"] * len(words), 0, {}, {}, {}), machine, trace=True).trace
    assert trace is not None
    return int(trace.ready[2] - trace.start[2]), int(trace.end[2] - trace.ready[2]), int(trace.hbm_bytes[2])


@pytest.mark.parametrize(
    ("text", "machine", "address", "scales", "beats"),
    [
        # 3 rows of 100 bytes, 128 apart: 2 beats of 64 bytes each, or 3 where they do not begin with a beat.
        ("L_VEC dst=r0 src=r1 rows=3 cols=50 dst_stride=2 src_stride=128", SMALL, 128, 0, 6),
        ("L_VEC dst=r0 src=r1 rows=3 cols=50 dst_stride=2 src_stride=128", SMALL, 30, 0, 9),
        # Together in HBM, apart in the SRAM: bytes 0 to 99, 100 to 199, 200 to 299.
        ("L_VEC dst=r0 src=r1 rows=3 cols=50 dst_stride=2 src_stride=100", SMALL, 0, 0, 2 + 3 + 2),
        ("ST_VEC src=r0 dst=r1 rows=3 cols=50 src_stride=2 dst_stride=100", SMALL, 0, 0, 2 + 3 + 2),
        # Together in both: one row of 384 bytes.
        ("L_VEC dst=r0 src=r1 rows=3 cols=64 dst_stride=2 src_stride=128", SMALL, 32, 0, 7),
        ("ST_VEC src=r0 dst=r1 rows=3 cols=64 src_stride=2 dst_stride=128", SMALL, 64, 0, 6),
        # Apart in HBM, together in the SRAM.
        ("L_VEC dst=r0 src=r1 rows=3 cols=64 dst_stride=2 src_stride=160", SMALL, 32, 0, 3 + 2 + 3),
        # A single row, whatever its stride.
        ("L_VEC dst=r0 src=r1 rows=1 cols=10 dst_stride=2 src_stride=0", NANO, 0, 0, 1),
        # MXINT8, 2 rows of 2 blocks, 4 apart: of each 64 bytes of elements and 2 scales.
        ("L_MAT dst=r0 src=r1 scales=r2 rows=2 cols=33 src_stride=4 format=0", SMALL, 0, 0, 4),
        ("L_MAT dst=r0 src=r1 scales=r2 rows=2 cols=33 src_stride=4 format=0", SMALL, 32, 63, 2 + 2 + 2 + 1),
        # Together, as they always are in the matrix SRAM: 128 bytes and 4 scales.
        ("L_MAT dst=r0 src=r1 scales=r2 rows=2 cols=33 src_stride=2 format=0", SMALL, 0, 0, 2 + 1),
        # A row that does not fill its blocks is not together with the next in the vector SRAM; one that does is.
        ("ST_MX src=r0 dst=r1 scales=r2 rows=2 cols=33 src_stride=2 dst_stride=2 format=0", SMALL, 0, 0, 4),
        ("ST_MX src=r0 dst=r1 scales=r2 rows=2 cols=64 src_stride=2 dst_stride=2 format=0", SMALL, 0, 0, 2 + 1),
        ("L_MX dst=r0 src=r1 scales=r2 rows=2 cols=64 dst_stride=2 src_stride=2 format=0", SMALL, 0, 0, 2 + 1),
        ("L_MX dst=r0 src=r1 scales=r2 rows=2 cols=64 dst_stride=3 src_stride=2 format=0", SMALL, 0, 0, 4),
        # 6-bit elements: 24 bytes a block; 8 rows of 1 block together are 192 bytes and 8 scales.
        ("L_MAT dst=r0 src=r1 scales=r2 rows=8 cols=32 src_stride=1 format=1", MXFP6, 0, 0, 3 + 1),
        # 257 blocks: 256 scales and 8192 bytes, then 1 and 32. From byte 32 on, the scales' last is one with its first.
        ("L_MAT dst=r0 src=r1 scales=r2 rows=1 cols=8224 src_stride=300 format=0", SMALL, 0, 0, 4 + 128 + 1 + 1),
        ("ST_MX src=r0 dst=r1 scales=r2 rows=1 cols=8224 src_stride=300 dst_stride=300 format=0", SMALL, 32, 32, 129 + 5 + 1 + 1),
        ("L_INT dst=r0 src=r1 count=17", SMALL, 0, 0, 2),
        ("ST_INT src=r0 dst=r1 count=16", SMALL, 4, 0, 2),
    ],
)
def test_hand_computed(text, machine, address, scales, beats):
    memory = machine.hbm
    per_beat = memory.beat_bytes // memory.bytes_per_cycle
    assert timed(text, machine, address, scales) == (beats * per_beat, memory.latency, beats * memory.beat_bytes)


@pytest.mark.parametrize(
    ("sizes", "address", "beats"),
    [
        ("rows=5 cols=256 dst_stride=8 table_stride=512 limit=4096", 0, 40),
        ("rows=5 cols=256 dst_stride=8 table_stride=512 limit=4096", 2, 45),
        ("rows=5 cols=8 dst_stride=1 table_stride=16 limit=4096", 0, 5),
    ],
)
def test_rows_of_a_table_come_after_a_number_of_theirs(sizes, address, beats):
    memory = SMALL.hbm
    per_beat = memory.beat_bytes // memory.bytes_per_cycle
    found = timed(f"L_GATHER dst=r0 table=r1 ids=r2 {sizes}", SMALL, address, 0)
    assert found == (GATHER_LEAD + beats * per_beat, memory.latency, beats * memory.beat_bytes)


def gathered(rows: list[int]) -> int:
    """Beats of a program that gathers two rows of half a beat, a half and a quarter apart, twice in a loop."""
    text = "LOOP count=2\nL_GATHER dst=r0 table=r0 ids=r0 rows=2 cols=16 dst_stride=1 table_stride=48 limit=4\nEND\nHALT"
    words = assemble(text)
    timing = time_program(Program(words, ["all"] * len(words), 0, {}, {}, {}), SMALL, gathered=np.array(rows))
    assert timing.skipped == 0
    return timing.hbm_bytes["load"] // SMALL.hbm.beat_bytes


def test_rows_that_are_known_are_timed_where_they_are():
    # Bytes 0 to 31, 48 to 79, 96 to 127, 144 to 175.
    assert gathered([0, 2, 3, 0]) == 4
    assert gathered([1, 2, 1, 1]) == 7
    with pytest.raises(UnmaskError, match="instruction 1: chooses rows that are not among those given"):
        gathered([0, 1, 2])


def test_a_range_takes_whole_cycles():
    # 3 rows of 2 beats: each 128 bytes at 70 a cycle; together 384 bytes would take 6.
    assert timed("L_VEC dst=r0 src=r1 rows=3 cols=50 dst_stride=2 src_stride=128", UNEVEN, 0, 0) == (6, 9, 384)
    assert timed("L_VEC dst=r0 src=r1 rows=4 cols=64 dst_stride=2 src_stride=128", UNEVEN, 0, 0) == (8, 9, 512)
    assert timed("L_VEC dst=r0 src=r1 rows=16 cols=64 dst_stride=2 src_stride=128", UNEVEN, 0, 0) == (30, 9, 2048)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("L_INT dst=r0 src=r0 count=0", "L_INT: count is 0"),
        ("L_MAT dst=r0 src=r0 scales=r0 rows=2 cols=33 src_stride=4 format=2", "format 2: expected 0"),
    ],
)
def test_nothing_to_do_is_an_error(text, message):
    with pytest.raises(UnmaskError, match=message):
        transfer_of(decode(assemble(text))[0], SMALL)

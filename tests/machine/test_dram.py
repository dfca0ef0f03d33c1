"""DRAM: the compiled kernel against a model of single bursts, and both against the figures of the data sheets."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from unmask.errors import UnmaskError
from unmask.isa.encoding import assemble
from unmask.isa.program import Program
from unmask.machine import _kernels as kernels
from unmask.machine.config import Machine, presets
from unmask.machine.costs import cost_of
from unmask.machine.cycle import time_program
from unmask.machine.dma import Transfer
from unmask.machine.dram import parameters, parameters_of
from unmask.machine.memory import Dram, Ideal, devices

from .dram_reference import TICKS, SlowDma, SlowDram

DRAM_PRESETS = [name for name in presets() if Machine.preset(name).hbm.device != "ideal"]


def dram(device: str = "hbm2e", **fields) -> Dram:
    base = {"devices": 1, "interleave_bytes": 256, "refresh": "bank", "latency": 40, "ports": 4, "beat_bytes": 32}
    axi = {"burst_beats": 16, "outstanding_reads": 4, "outstanding_writes": 3}
    return Dram.model_validate({"device": device} | base | axi | fields)


@st.composite
def memories(draw) -> Dram:
    """Memories so small and so often refreshed that every rule is met within a few requests."""
    burst, pieces, per_row = draw(st.sampled_from([8, 32])), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    figures = {
        "burst_bytes": burst,
        "row_bytes": burst * pieces * per_row,
        "banks": draw(st.integers(1, 3)),
        "channels": draw(st.integers(1, 3)),
        "pin_gbps": draw(st.sampled_from([0.7, 3.2, 16])),
        "trefi": draw(st.sampled_from([3000, 7000])),
    }
    for name, most in {"trcd": 20, "trp": 20, "tcl": 20, "tras": 60, "twr": 20, "twtr": 10, "trrd": 10, "tccd": 4, "trfc": 200}.items():
        figures[name] = draw(st.integers(1, most)) * 0.7
    figures["trfc_bank"] = figures["trfc"] / 2
    return dram(
        interleave_bytes=burst * pieces,
        refresh=draw(st.sampled_from(["bank", "all"])),
        devices=draw(st.integers(1, 2)),
        latency=draw(st.integers(1, 30)),
        ports=draw(st.integers(1, 5)),
        beat_bytes=draw(st.sampled_from([8, 24, 32])),
        burst_beats=draw(st.integers(1, 9)),
        outstanding_reads=draw(st.integers(1, 4)),
        outstanding_writes=draw(st.integers(1, 3)),
        overrides=figures,
    )


REQUESTS = st.lists(
    st.tuples(st.integers(0, 4000), st.integers(1, 700), st.booleans(), st.one_of(st.integers(0, 40), st.integers(0, 40000))),
    min_size=1,
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(memories(), st.sampled_from([0.5, 1.0, 1.7]), REQUESTS)
def test_the_kernel_equals_single_bursts(hbm, clock, requests):
    slow, t, at = SlowDram(hbm, clock), parameters(hbm, clock), 0
    memory = kernels.idle(t)
    for address, size, write, gap in requests:
        at += gap * TICKS // 3
        assert kernels.serve(t, memory, address, size, write, at) == slow.serve(address, size, write, at)


IDEAL = st.builds(
    Ideal, gib=st.just(1), bytes_per_cycle=st.integers(1, 90), latency=st.integers(1, 30), beat_bytes=st.sampled_from([8, 24, 64])
)


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(memories(), IDEAL),
    st.lists(st.tuples(st.integers(0, 4000), st.integers(1, 5), st.integers(0, 7), st.integers(1, 300), st.integers(0, 900)), max_size=20),
    st.data(),
)
def test_dma_equals_single_ranges(hbm, instructions, data):
    machine = Machine.preset("small").model_copy(update={"hbm": hbm})
    slow, t, start = SlowDma(hbm, 1.0), parameters_of(machine), 1
    state, unknown = kernels.idle(t), np.zeros(0, np.int64)
    for address, rows, blocks, size, stride in instructions:
        write = data.draw(st.booleans())
        start += data.draw(st.sampled_from([0, 1, 30, 5000]))
        op = np.zeros(kernels.COLUMNS, np.int64)
        # No scales, or blocks of `size` bytes, of which a range takes three.
        whole = (size, 0, stride, 0, size, 0) if blocks == 0 else (blocks * size, blocks, stride, stride // 9, 3 * size, 3)
        op[kernels.ADDRESS0 : kernels.LEAD + 1] = Transfer(0, 0, rows, *whole, 0)
        ranges = []
        for row in range(rows):
            one, two = address + row * stride, address + 5000 + row * (stride // 9)
            if blocks == 0:
                ranges.append((one, size))
            for first in range(0, blocks, 3):
                count = min(3, blocks - first)
                part = [(two + first, count), (one + first * size, count * size)]
                ranges += part[::-1] if write else part
        assert kernels.transfer(t, state, op, address, address + 5000, write, start, unknown) == slow.transfer(ranges, write, start)


@settings(max_examples=100, deadline=None)
@given(memories(), REQUESTS)
def test_bursts_never_share_a_bus(hbm, requests):
    slow, at = SlowDram(hbm, 1.0), 0
    for address, size, write, gap in requests:
        at += gap * TICKS
        slow.serve(address, size, write, at)
    for channel in slow.channels:
        assert all(first[1] <= second[0] for first, second in zip(channel.log, channel.log[1:], strict=False))


@pytest.mark.parametrize("device", devices())
def test_no_two_pieces_share_a_place(device):
    hbm = dram(device, devices=3)
    figures = hbm.figures
    pieces = 3 * figures.channels * figures.banks * figures.row_bytes // hbm.interleave_bytes
    slow = SlowDram(hbm, 1.0)
    places = Counter(slow.place(piece * hbm.interleave_bytes) for piece in range(2 * pieces))
    assert set(places.values()) == {figures.row_bytes // hbm.interleave_bytes}
    assert len({(bank, row) for _, bank, row in places}) == 2 * figures.banks


@pytest.mark.parametrize("stride", [512, 2048, 4096, 8192, 1 << 16, 1 << 20])
def test_no_stride_stays_in_one_channel(stride):
    slow = SlowDram(dram(devices=2), 1.0)
    assert len({slow.place(row * stride)[0] for row in range(1024)}) >= 8


@pytest.mark.parametrize("device", devices())
def test_a_random_access_takes_what_the_data_sheet_says(device):
    hbm = dram(device)
    f, t = hbm.figures, parameters(hbm, 1.0)
    memory = kernels.idle(t)
    data = 64 / f.burst_bytes * max(f.burst_bytes / f.channel_gbps, f.tccd)
    rounds = f.channels * f.row_bytes  # bytes until the next row of a channel

    def nanoseconds(address: int, at: int, write: bool = False) -> float:
        return kernels.serve(t, memory, address, 64, write, at * TICKS)[0] / TICKS - at

    far = pytest.approx
    assert nanoseconds(0, 100) == far(f.trcd + f.tcl + data, abs=0.02), "a closed bank: activate, column, data"
    assert nanoseconds(64, 300) == far(f.tcl + data, abs=0.02), "an open row: column, data"
    # The row of the same bank that lies in the same channel: precharge first.
    slow = SlowDram(hbm, 1.0)
    same = next(a for a in range(rounds, 1 << 26, 256) if slow.place(a)[:2] == slow.place(0)[:2])
    assert nanoseconds(same, 600) == far(f.trp + f.trcd + f.tcl + data, abs=0.02), "another row: precharge, activate, column, data"
    # At once after an activate, the row stays open for tras.
    assert nanoseconds(0, 1000) == far(f.trp + f.trcd + f.tcl + data, abs=0.02)
    opened = f.trp
    closable = max(opened + f.tras, f.trp + f.trcd + f.tcl + data)
    assert nanoseconds(same, 1001) == far(closable - 1 + f.trp + f.trcd + f.tcl + data, abs=0.03)


def streaming(machine: Machine, mib: int) -> float:
    """GB/s of loads that follow each other through memory."""
    size, count = 1 << 18, mib * 4
    text = f"""S_LI rd=r1 value=0
LOOP count={count}
L_VEC dst=r0 src=r1 rows=1 cols={size // 2} dst_stride=0 src_stride=0
S_ADDI rd=r1 rs=r1 value={size}
END
HALT"""
    words = assemble(text)
    timing = time_program(Program(words, ["all"] * len(words), 0, {}, {}, {}), machine)
    assert timing.hbm_bytes["load"] == size * count
    return size * count / timing.cycles * machine.clock_ghz


@pytest.mark.parametrize("name", DRAM_PRESETS)
def test_a_stream_gets_the_data_sheets_bandwidth(name):
    machine = Machine.preset(name)
    figures = machine.hbm.figures
    assert 0.95 < streaming(machine, 64) / machine.memory_gbps <= 1
    every = machine.model_copy(update={"hbm": machine.hbm.model_copy(update={"refresh": "all"})})
    left = 1 - (figures.trfc + figures.trp) / figures.trefi
    assert 0.95 * left < streaming(every, 64) / machine.memory_gbps <= left + 0.005


def test_published_bandwidths():
    for name, gbps in {"published-2048": 819, "a6000-class": 768, "h100-class": 3350, "edge": 51.2}.items():
        assert Machine.preset(name).memory_gbps == pytest.approx(gbps, rel=0.001)


def test_presets_are_what_is_published():
    assert Machine.preset("edge").sram.vector_kib * 1024 < 64_000
    for vlen, floats in {512: 256, 1024: 512, 2048: 1024}.items():
        machine = Machine.preset(f"published-{vlen}")
        assert (machine.vector.vlen, machine.clock_ghz, machine.formats.logits) == (vlen, 1.0, "mxfp8")
        assert (machine.sram.vector_kib, machine.sram.float_words, machine.sram.integer_words) == (8192, floats, 2048)
        assert (machine.hbm.beat_bytes, machine.hbm.burst_beats) == (32, 128)
        assert (machine.hbm.outstanding_reads, machine.hbm.outstanding_writes) == (4, 3)
    for name, figures in {"a6000-class": (154.8, 768, 628, 300), "h100-class": (989, 3350, 814, 700)}.items():
        machine = Machine.preset(name)
        assert machine.gpu is not None
        assert (machine.gpu.bf16_tflops, machine.gpu.memory_gbps, machine.gpu.area_mm2, machine.gpu.power_w) == figures
        assert machine.peak_tops > machine.gpu.bf16_tflops


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"device": "sdram"}, "unknown memory device 'sdram': expected one of ideal, gddr6, hbm2e, hbm3, lpddr5"),
        ({"overrides": {"tfoo": 1}}, "unknown figure 'tfoo'"),
        ({"overrides": {"trcd": -1}}, "overrides: trcd"),
        ({"overrides": {"trefi": 100}}, "trefi leaves no time"),
        ({"interleave_bytes": 100}, "interleave_bytes 100: expected a multiple of 32 dividing 1024"),
        ({"bytes_per_cycle": 64}, "bytes_per_cycle"),
    ],
)
def test_mistakes_are_named(fields, message):
    with pytest.raises(ValidationError, match=message):
        dram(**fields)


def test_addresses_come_from_the_integer_parameters():
    words = assemble("S_LD rd=r1 a=r0\nL_VEC dst=r0 src=r1 rows=1 cols=32 dst_stride=1 src_stride=0\nHALT")
    load = Program(words, ["all"] * 3, 0, {}, {}, {})
    machine = Machine.preset("edge")
    # 64 bytes within a piece are one row's; over a border they are two channels' at once, with half the bursts each.
    aligned, astride = (time_program(load, machine, parameters={0: address}).cycles for address in (64, 224))
    assert time_program(load, machine).cycles == aligned
    assert astride < aligned


@pytest.mark.parametrize("name", ["small", "edge"])
def test_the_cost_of_a_load_needs_addresses(name):
    machine = Machine.preset(name)
    [op] = Program(assemble("HALT"), ["x"], 0, {}, {}, {}).ops
    assert cost_of(op, machine).occupancy == 1
    load = Program(assemble("L_INT dst=r0 src=r0 count=1\nHALT"), ["x"] * 2, 0, {}, {}, {}).ops[0]
    with pytest.raises(UnmaskError, match="L_INT: its cycles depend on its addresses"):
        cost_of(load, machine)

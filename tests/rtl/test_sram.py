"""The SRAMs: what is written at any granule is read at any other, by ports of any width."""

import numpy as np
import pytest
from amaranth.back import rtlil
from amaranth.sim import Simulator

from unmask.errors import UnmaskError
from unmask.rtl.sram import Sram


def words_of(value, lanes, bits):
    """Words of a port's data."""
    return np.array([value >> bits * lane & (1 << bits) - 1 for lane in range(lanes)], object)


@pytest.mark.parametrize(
    ("granule", "width", "reads", "writes", "bits", "words", "depth_banks"),
    [
        (4, 16, {"a": 16, "b": 8, "c": 4}, {"d": 16, "e": 12}, 16, 128, 1),
        (4, 16, {"a": 16, "b": 8, "c": 4}, {"d": 16, "e": 12}, 16, 128, 2),
        (4, 16, {"a": 16, "b": 8, "c": 4}, {"d": 16, "e": 12}, 16, 176, 4),
        (8, 8, {"a": 8}, {"d": 8}, 16, 128, 1),
        (1, 8, {"a": 8, "b": 1, "c": 5}, {"d": 8, "e": 1}, 32, 128, 1),
        (1, 1, {"a": 1, "b": 1}, {"d": 1}, 32, 128, 1),
        (1, 1, {"a": 1, "b": 1}, {"d": 1}, 32, 128, 8),
    ],
)
def test_every_port_reads_what_any_port_wrote(granule, width, reads, writes, bits, words, depth_banks):
    rng = np.random.default_rng(1)
    sram = Sram(words, bits, granule=granule, width=width, reads=reads, writes=writes, depth_banks=depth_banks)
    memory = np.zeros(words, object)

    async def bench(ctx):
        for _ in range(300):
            busy = set()
            for name, lanes in writes.items():
                port, address = getattr(sram, name), int(rng.integers(0, (words - lanes) // granule + 1))
                span = range(address * granule, address * granule + lanes)
                mask = 0 if busy & set(span) else int(rng.integers(0, 1 << lanes))
                busy |= set(span) if mask else set()
                data = [int(word) for word in rng.integers(0, 1 << bits, lanes)]
                ctx.set(port.address, address)
                ctx.set(port.mask, mask)
                ctx.set(port.data.as_value(), sum(word << bits * lane for lane, word in enumerate(data)))
                for lane, word in enumerate(data):
                    if mask >> lane & 1:
                        memory[span[lane]] = word
            await ctx.tick()
            for name in writes:
                ctx.set(getattr(sram, name).mask, 0)
            wanted = {}
            for name, lanes in reads.items():
                address = int(rng.integers(0, (words - lanes) // granule + 1))
                ctx.set(getattr(sram, name).address, address)
                ctx.set(getattr(sram, name).enable, 1)
                wanted[name] = memory[address * granule : address * granule + lanes]
            await ctx.tick()
            for name in reads:
                ctx.set(getattr(sram, name).enable, 0)
                ctx.set(getattr(sram, name).address, 0)
            await ctx.tick()
            for name, lanes in reads.items():
                got = words_of(ctx.get(getattr(sram, name).data.as_value()), lanes, bits)
                assert (got == wanted[name]).all(), "what was read stays while the port is not enabled"

    simulator = Simulator(sram)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def test_macros_take_the_place_of_inferred_memories():
    sram = Sram(256, 16, granule=4, width=16, reads={"a": 16}, writes={"d": 16}, black_box=True)
    text = rtlil.convert(sram)
    assert text.count("cell \\unmask_sram_16x64_1r1w") == 4
    assert "memory " not in text


def test_depth_is_split_into_smaller_macros():
    # 20 rows: of 8, 8 and 4.
    sram = Sram(320, 16, granule=4, width=16, reads={"a": 16}, writes={"d": 16}, depth_banks=4, black_box=True)
    text = rtlil.convert(sram)
    assert text.count("cell \\unmask_sram_8x64_1r1w") == 8
    assert text.count("cell \\unmask_sram_4x64_1r1w") == 4
    with pytest.raises(UnmaskError, match="32 depth banks of 20 rows"):
        Sram(320, 16, granule=4, width=16, reads={"a": 16}, writes={"d": 16}, depth_banks=32)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(UnmaskError, match="24 words wide in banks of 8"):
        Sram(96, 16, granule=8, width=24, reads={}, writes={})
    with pytest.raises(UnmaskError, match="port a of 32 words"):
        Sram(96, 16, granule=8, width=16, reads={"a": 32}, writes={})

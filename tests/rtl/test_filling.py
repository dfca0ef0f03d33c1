"""MX blocks on their way into the matrix SRAM: packed elements of any width, from any byte address."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from amaranth.sim import Simulator

from unmask.numerics import mx
from unmask.rtl.dma import Shape
from unmask.rtl.unpacking import Unpacking

BEAT = 16
FORMATS = ("mxfp4", "mxfp6_e2m3")
SHAPE = Shape(
    beat_bytes=BEAT,
    burst_beats=8,
    bursts=4,
    granule=8,
    lanes=64,
    vector_elements=256,
    integer_words=64,
    formats=tuple(mx.FORMATS[name] for name in FORMATS),
    tag_bits=4,
    matrix_blocks=64,
)


def beats(content: np.ndarray, offset: int) -> Iterator[dict[str, int]]:
    """The beats of a range of bytes that starts at this byte of its first beat; what lies around is not 0."""
    end = offset + len(content)
    count = -(-end // BEAT)
    raw = np.full(count * BEAT, 0xA5, np.uint8)
    raw[offset:end] = content
    for index in range(count):
        data = int.from_bytes(raw[index * BEAT : (index + 1) * BEAT].tobytes(), "little")
        low, high = (offset if index == 0 else 0), min(BEAT, end - index * BEAT)
        yield {"data": data, "low": low, "high": high, "first": int(index == 0), "last": int(index == count - 1)}


@pytest.mark.parametrize("form", range(len(FORMATS)), ids=FORMATS)
def test_blocks_arrive_with_their_scales(form):
    unit, rng = Unpacking(SHAPE), np.random.default_rng(form)
    bits = SHAPE.kinds[SHAPE.matrix_kinds[form]]
    codes: dict[int, int] = {}
    scales: dict[int, int] = {}

    def see(ctx) -> None:
        port = unit.matrix
        address, mask, scale_mask = (ctx.get(value) for value in (port.address, port.mask, port.scale_mask))
        codes.update({address * mx.BLOCK + i: ctx.get(port.data[i]) for i in range(len(port.mask)) if mask >> i & 1})
        scales.update({address + i: ctx.get(port.scales[i]) for i in range(len(port.scale_mask)) if scale_mask >> i & 1})

    async def bench(ctx) -> None:
        for blocks in (1, 2, 5, 7):
            codes.clear()
            scales.clear()
            elements = rng.integers(0, 256, blocks * mx.BLOCK * bits // 8).astype(np.uint8)
            wanted = rng.integers(0, 256, blocks).astype(np.uint8)
            first = int(rng.integers(0, 64 - blocks))
            ctx.set(unit.sram, first)
            ctx.set(unit.sram_end, first + blocks)
            ctx.set(unit.valid, 1)
            for kind, content in ((SHAPE.scales, wanted), (SHAPE.matrix_kinds[form], elements)):
                for beat in beats(content, int(rng.integers(0, BEAT))):
                    for name, value in {**beat, "kind": kind, "last": beat["last"] & (kind != SHAPE.scales)}.items():
                        ctx.set(getattr(unit, name), value)
                    await ctx.tick()
                    see(ctx)
            ctx.set(unit.valid, 0)
            for _ in range(8):
                await ctx.tick()
                see(ctx)
            unpacked = mx.unpack(elements[None], wanted[None], mx.FORMATS[FORMATS[form]], blocks * mx.BLOCK).codes[0]
            assert codes == {first * mx.BLOCK + i: int(code) for i, code in enumerate(unpacked)}
            assert scales == {first + i: int(scale) for i, scale in enumerate(wanted)}

    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()

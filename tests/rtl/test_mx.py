"""MX elements in hardware are those of `unmask.numerics`: every code, every scale, every rounding."""

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator

from unmask.numerics import bf16, mx
from unmask.rtl.mx import Coding, decode, encode, largest_exponent, scale_of, scaled

FORMATS = list(mx.FORMATS.values())
EDGES = [0, 1, 2, 8, 16, 100, 126, 127, 128, 200, 238, 239, 240, 247, 253, 254, 255]


def evaluate(m, inputs, outputs, rows):
    """The outputs of a combinational module for each row of inputs."""
    results = []

    async def bench(ctx):
        for row in rows:
            for signal, value in zip(inputs, row, strict=True):
                ctx.set(signal, int(value))
            results.append([ctx.get(output) for output in outputs])

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
    return np.array(results)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_every_element_times_a_scale_is_rounded_as_the_numerics_say(form):
    m, code, scale = Module(), Signal(8), Signal(8)
    result = scaled(m, decode(m, code, form.element, "small"), scale, "result")
    codes = np.arange(1 << form.element.bits)
    rows = [(c, s) for s in EDGES for c in codes]
    got = evaluate(m, [code, scale], [result], rows)[:, 0].reshape(len(EDGES), -1)
    blocks = np.zeros((len(EDGES), mx.padded(len(codes))), np.uint8)
    blocks[:, : len(codes)] = codes
    scales = np.repeat(np.array(EDGES, np.uint8)[:, None], blocks.shape[1] // 32, axis=1)
    wanted = bf16.to_bits(bf16.round(mx.dequantize(mx.MxTensor(blocks, scales, form, len(codes)))))
    assert (got == wanted).all()


def blocks_of_edges(rng):
    """BF16 blocks [n, 32] whose magnitudes spread over few and many binades, subnormals, zeros, infinities and NaN among them."""
    blocks = []
    for base in (0, 1, 2, 3, 7, 20, 127, 200, 250, 254):
        for spread in (0, 2, 8, 30):
            field = np.clip(base - rng.integers(0, spread + 1, 32), 0, 255)
            blocks.append(field << 7 | rng.integers(0, 128, 32) | rng.integers(0, 2, 32) << 15)
    blocks += [np.zeros(32, int), np.full(32, 0x8000), np.full(32, 0x0001), np.where(np.arange(32) == 7, 0x7F80, 0x3F80)]
    blocks += [np.where(np.arange(32) == 31, 0xFFC1, 0xBF80), np.full(32, 0x7F7F), np.where(np.arange(32) % 2 == 0, 0, 0x007F)]
    return np.array(blocks)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_blocks_are_quantized_as_the_numerics_say(form):
    m, number, pattern, scale, top = Module(), Signal(3), Signal(16), Signal(8), Signal(8)
    coding = Coding.choose(m, [f.element for f in FORMATS], number, "coding")
    code, chosen = encode(m, pattern, scale, coding, "code"), scale_of(top, coding)
    blocks = blocks_of_edges(np.random.default_rng(5))
    wanted = mx.quantize_bf16(blocks.astype(np.uint16), form)
    tops = (blocks >> 7 & 255).max(axis=1)
    index = FORMATS.index(form)
    scales = evaluate(m, [number, top], [chosen], [(index, t) for t in tops])[:, 0]
    assert (scales == wanted.scales[:, 0]).all()
    rows = [(index, p, s) for block, s in zip(blocks, scales, strict=True) for p in block]
    codes = evaluate(m, [number, pattern, scale], [code], rows)[:, 0].reshape(blocks.shape)
    assert ((codes & (1 << form.element.bits) - 1) == wanted.codes).all()


def test_the_largest_exponent_of_a_block_is_found_wherever_it_is():
    m, patterns = Module(), [Signal(16, name=f"p{i}") for i in range(32)]
    top = largest_exponent(m, patterns)
    rows = [np.where(np.arange(32) == i, 0xFF80 - 128 * i, 0x0100) for i in range(32)]
    assert (evaluate(m, patterns, [top], rows)[:, 0] == 255 - np.arange(32)).all()

"""Elements as the multipliers take them, and as a transposed block rounds them, are those of `unmask.numerics`."""

import numpy as np
import pytest
from amaranth.hdl import Module, Signal

from unmask.numerics import formats, mx
from unmask.rtl.largest import largest
from unmask.rtl.matrix.parts import decode, lowered, part_layout, whole

from .test_mx import evaluate

FORMATS = list(mx.FORMATS.values())


def significands(rows):
    """mantissa * 2^shift of each row's first two columns."""
    return rows[:, 0] * 2.0 ** rows[:, 1]


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_a_part_is_the_significand_of_its_code(form):
    element = form.element
    layout = part_layout([element, formats.INT8])
    m, code = Module(), Signal(8)
    decoded = decode(m, code, element)
    part = whole(m, decoded, layout)
    codes = np.arange(1 << element.bits).astype(np.uint8)
    got = evaluate(m, [code], [part.mantissa, part.shift, decoded.nan | decoded.infinite], [(c,) for c in codes])
    special = formats.is_special(codes, element)
    assert (got[:, 2] == special).all()
    assert (significands(got) == formats.significand(codes, element))[~special].all()


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_a_lowered_part_is_the_element_rounded_to_the_larger_scale(form):
    element = form.element
    layout = part_layout([element])
    m, code, down = Module(), Signal(8), Signal(8)
    decoded = decode(m, code, element)
    part = lowered(m, decoded, down, element, layout)
    codes = np.arange(1 << element.bits).astype(np.uint8)
    downs = [0, 1, 2, 3, 5, 8, 16, 31, 63, 64, 200, 255]
    rows = [(c, d) for d in downs for c in codes]
    got = evaluate(m, [code, down], [part.mantissa, part.shift, decoded.nan], rows)
    # A tile of two rows that count: the one to be rounded, and one of the larger scale.
    for index, d in enumerate(downs):
        tile = np.zeros((2, mx.padded(len(codes))), np.uint8)
        tile[0, : len(codes)], tile[1] = codes, 1
        blocks = tile.shape[1] // mx.BLOCK
        scales = np.array([[0] * blocks, [min(d, 254)] * blocks], np.uint8)
        turned = mx.reblock_transposed(mx.MxTensor(tile, scales, form, len(codes)))
        mine = got[index * len(codes) : (index + 1) * len(codes)]
        nan = formats.is_special(turned.codes[:, 0], element)
        assert (mine[:, 2] == nan).all()
        assert (significands(mine) == formats.significand(turned.codes[:, 0], element))[~nan].all(), d


@pytest.mark.parametrize(("bits", "count"), [(8, 32), (6, 5), (3, 4)])
def test_the_largest_of_values_is_found_digit_by_digit(bits, count):
    rng = np.random.default_rng(bits)
    m, values = Module(), [Signal(bits, name=f"value_{i}") for i in range(count)]
    rows = [rng.integers(0, 1 << int(rng.integers(1, bits + 1)), count) for _ in range(200)]
    rows += [np.where(np.arange(count) == i % count, (1 << bits) - 1 - i % (1 << bits), 0) for i in range(40)]
    got = evaluate(m, values, [largest(m, values)], rows)[:, 0]
    assert (got == np.max(rows, axis=1)).all()

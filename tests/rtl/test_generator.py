"""The steps of an instruction: row after row, or down the rows of a step of columns before the next."""

import numpy as np
import pytest

from unmask.isa.row import STRIDE_UNIT
from unmask.rtl.generator import Generator

from .streaming import stream

ELEMENTS, GRANULE, LANES = 1 << 12, 8, 8


def walked(given: dict[str, int], *, columns: bool, cycles: int) -> list[dict[str, int]]:
    """The steps of one instruction."""
    unit = Generator(ELEMENTS, GRANULE, LANES, 1, columns=columns)
    start = np.zeros(cycles, np.uint8)
    start[0] = 1
    inputs = {name: np.full(cycles, value) for name, value in {"step": LANES, "interval": 1, **given}.items()}
    found = stream(unit, {"start": start, **inputs}, 0)
    words = found["now"]
    whole = [int.from_bytes(row.astype("<u4").tobytes(), "little") for row in words]
    places = {name: (field.offset, field.width) for name, field in unit.layout}
    return [
        {name: value >> low & (1 << width) - 1 for name, (low, width) in places.items()}
        for value, valid in zip(whole, found["valid"], strict=True)
        if valid
    ]


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (1, 8), (3, 7), (4, 24), (2, 33)])
@pytest.mark.parametrize("down", [0, 1])
def test_every_element_once_in_order(rows: int, cols: int, down: int, columns: bool) -> None:
    if down and not columns:
        pytest.skip("it is not built")
    given = {"a_base": 64, "a_stride": 2, "a_used": 1, "dst_base": 1024, "dst_stride": 0 if down else 3, "dst_used": 1}
    steps = walked({**given, "rows": rows, "columns": cols, "down": down}, columns=columns, cycles=rows * 6 + 4)
    chunks = range(0, cols, LANES)
    order = [(row, column) for column in chunks for row in range(rows)] if down else [(r, c) for r in range(rows) for c in chunks]
    assert [(step["row"], step["column"]) for step in steps] == order
    for step in steps:
        row, column = step["row"], step["column"]
        assert step["count"] == min(LANES, cols - column)
        assert step["a"] == 64 + row * 2 * STRIDE_UNIT + column
        assert step["dst"] == 1024 + (0 if down else row * 3 * STRIDE_UNIT) + column
        assert step["first"] == (row == 0 if down else column == 0)
        assert step["last_of_row"] == (row == rows - 1 if down else column + LANES >= cols)
        assert step["last"] == ((row, column) == order[-1])

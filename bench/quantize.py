"""How fast MX tensors are made and read: every format, one thread.

Prints MB/s of processor time (other work may share the core), always of the tensor's bytes in BF16 (two an element) whatever type the
input has: the median of seven runs over a matrix of 34 MB. `of a copy` relates `quantize + pack` to a plain copy of the BF16 matrix.
Beside it, the same for ml_dtypes where it defines the element type: only a conversion to that type and back to FP32, without blocks,
scales or packing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import ml_dtypes
import numpy as np

from unmask.numerics import bf16, mx

ROWS, COLUMNS, REPEATS = 4096, 4096, 7
NEEDED = 200
"""MB/s of BF16 input per core: 16 GB, an 8-billion-parameter checkpoint, in 80 seconds."""

ML_DTYPES = {
    "mxfp8": ml_dtypes.float8_e4m3fn,
    "mxfp8_e5m2": ml_dtypes.float8_e5m2,
    "mxfp6_e2m3": ml_dtypes.float6_e2m3fn,
    "mxfp6_e3m2": ml_dtypes.float6_e3m2fn,
    "mxfp4": ml_dtypes.float4_e2m1fn,
}


def speed(run: Callable[[], object]) -> float:
    """MB/s of BF16, from the median processor time of `REPEATS` runs after one that does not count."""
    run()
    times = []
    for _ in range(REPEATS):
        started = time.process_time()
        run()
        times.append(time.process_time() - started)
    return 2 * ROWS * COLUMNS / 1e6 / statistics.median(times)


def main() -> None:
    """Measure and print."""
    x = bf16.round(np.random.default_rng(0).normal(size=(ROWS, COLUMNS)).astype(np.float32))
    bits = bf16.to_bits(x)
    copy = speed(bits.copy)
    columns = ("quantize", "+ pack", "from FP32", "+ pack", "unpack + dequantize", "of a copy", "ml_dtypes to", "back")
    print("MB/s of BF16".ljust(14) + "".join(f"{column:>{len(column) + 3}}" for column in columns))
    slowest = copy
    for name, form in mx.FORMATS.items():
        t = mx.quantize_bf16(bits, name)
        elements = mx.pack(t)
        figures = [
            speed(lambda name=name: mx.quantize_bf16(bits, name)),
            speed(lambda name=name: mx.pack(mx.quantize_bf16(bits, name))),
            speed(lambda name=name: mx.quantize(x, name)),
            speed(lambda name=name: mx.pack(mx.quantize(x, name))),
            speed(lambda t=t, form=form, elements=elements: mx.dequantize(mx.unpack(elements, t.scales, form, COLUMNS))),
        ]
        slowest = min(slowest, *figures[:4])
        cells = [f"{figure:,.0f}" for figure in figures] + [f"{figures[1] / copy:.2f} x"]
        if name in ML_DTYPES:
            coded = x.astype(ML_DTYPES[name])
            cells += [f"{speed(lambda name=name: x.astype(ML_DTYPES[name])):,.0f}", f"{speed(lambda c=coded: c.astype(np.float32)):,.0f}"]
        else:
            cells += ["-", "-"]
        print(name.ljust(14) + "".join(f"{cell:>{len(column) + 3}}" for cell, column in zip(cells, columns, strict=True)))
    print(f"copy of BF16 {copy:,.0f}; slowest quantization {slowest:,.0f}, {slowest / NEEDED:.1f} x the {NEEDED} that are needed")


if __name__ == "__main__":
    main()

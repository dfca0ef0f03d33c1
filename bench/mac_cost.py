"""Area and energy of a multiplier of the matrix engine and of what follows it, in a cell library, by the formats of its operands.

`python bench/mac_cost.py --liberty asap7` prints what `src/unmask/silicon/cost/costs.toml` has of the matrix engine: one line of JSON per
pair of formats and one for the tail. A multiplier takes a code of either side per cycle, passes both on to its neighbours, adds the exact
product of their significands to a sum of at most 32, and hands that over when a block ends. A tail shifts such sums by their scales to the
grid of the 64-bit accumulator and adds them up. No layout, no wires, a clock without a tree.
"""

from __future__ import annotations

import argparse
import json
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from unmask.numerics import mx
from unmask.numerics.formats import ElementFormat
from unmask.silicon.gates import Gates
from unmask.silicon.kits import library_named
from unmask.silicon.synthesis import synthesize
from unmask.silicon.timing import analyse

BLOCK_BITS, ACCUMULATOR_BITS, SHIFT_BITS = 5, 64, 6
CYCLES, WARM_UP, RESET = 1024, 64, 4


def parts(code: Value, form: ElementFormat) -> tuple[Value, Value]:
    """Of a code: its signed significand without the exponent, and how far the exponent shifts it to the left."""
    if form.kind == "int":
        return code.as_signed(), Const(0, 1)
    fraction, exponent = code[: form.mantissa_bits], code[form.mantissa_bits : -1]
    magnitude = Cat(fraction, exponent.any())
    return Mux(code[-1], -magnitude, magnitude), Mux(exponent.any(), exponent - 1, 0)[: form.exponent_bits]


class Multiplier(wiring.Component):
    """A multiplier with the sum of a block, and what it passes on.

    Ports:
        a, b: codes; a_on, b_on: the same, a cycle later.
        last: the products of this cycle are the last of their block.
        total: of the block that ended before, signed.
    """

    def __init__(self, a: ElementFormat, b: ElementFormat) -> None:
        self.forms = a, b
        self.bits = a.significand_bits + b.significand_bits + BLOCK_BITS + 1
        ports: dict[str, Any] = {"a": In(a.bits), "b": In(b.bits), "a_on": Out(a.bits), "b_on": Out(b.bits), "last": In(1)}
        super().__init__({**ports, "total": Out(Shape(self.bits, signed=True))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        a, b, last = Signal(self.forms[0].bits), Signal(self.forms[1].bits), Signal(2)
        m.d.sync += [a.eq(self.a), b.eq(self.b), last.eq(Cat(self.last, last[0]))]
        m.d.comb += [self.a_on.eq(a), self.b_on.eq(b)]
        (x, by_a), (y, by_b) = parts(a, self.forms[0]), parts(b, self.forms[1])
        product = Signal(Shape(self.bits, signed=True))
        m.d.sync += product.eq((x * y) << (by_a + by_b))
        running = Signal.like(product)
        added = Signal.like(product)
        m.d.comb += added.eq(running + product)
        m.d.sync += running.eq(added)
        with m.If(last[1]):
            m.d.sync += [running.eq(0), self.total.eq(added)]
        return m


class Tail(wiring.Component):
    """A sum of a block shifted to the accumulator's grid, and added.

    Ports:
        total: signed. shift: to the left; what leaves at the top is lost. first: of a row of sums.
        sum: a cycle after the shifted one, which is a cycle after `total`.
    """

    def __init__(self, bits: int) -> None:
        super().__init__(
            {
                "total": In(Shape(bits, signed=True)),
                "shift": In(SHIFT_BITS),
                "first": In(1),
                "sum": Out(Shape(ACCUMULATOR_BITS, signed=True)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shifted = Signal(Shape(ACCUMULATOR_BITS, signed=True))
        first = Signal()
        m.d.sync += [shifted.eq(self.total << self.shift), first.eq(self.first), self.sum.eq(Mux(first, 0, self.sum) + shifted)]
        return m


def codes(form: ElementFormat, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Codes of normally distributed numbers in MX blocks."""
    name = next(name for name, known in mx.FORMATS.items() if known.element is form)
    return mx.quantize(rng.normal(0, 1, (1, CYCLES)).astype(np.float32), name).codes[0].astype(np.int64)


def measured(component: wiring.Component, name: str, values: dict[str, Any], args: argparse.Namespace, cache: Path) -> dict[str, Any]:
    """Area in um2, slack in ps, leakage in nW and energy per cycle in fJ; `idle_fj` at inputs that do not change."""
    netlist = synthesize(component, name, library_named(args.liberty, cache), args.clock_ps, cache, flat=True)
    gates = Gates(netlist)

    def energy(busy: bool) -> Any:
        stimulus = np.zeros((CYCLES, sum(len(port.nets) for port in gates.inputs)), np.uint8)
        start = 0
        for port in gates.inputs:
            width = len(port.nets)
            given = np.arange(CYCLES) < RESET if port.name == "rst" else values[port.name] * busy
            stimulus[:, start : start + width] = (np.asarray(given)[:, None] >> np.arange(width)) & 1
            start += width
        _, toggles = gates.run(stimulus, skip=WARM_UP)
        folder = netlist.folder / ("busy" if busy else "idle")
        return analyse(netlist, gates, args.clock_ps, folder, toggles / (CYCLES - WARM_UP - 1))

    busy, idle = energy(True), energy(False)
    return {
        "name": name,
        "area_um2": netlist.area,
        "slack_ps": busy.critical.slack_ps,
        "leakage_nw": busy.power.leakage_mw * 1e6,
        "dynamic_fj": (busy.power.total_mw - busy.power.leakage_mw) * args.clock_ps,
        "idle_fj": (idle.power.total_mw - idle.power.leakage_mw) * args.clock_ps,
    }


def main() -> None:
    """Print a line of JSON per pair of formats."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--liberty", default="asap7")
    parser.add_argument("--clock-ps", type=float, default=1000)
    parser.add_argument("--cache", type=Path, default=Path("build/silicon"))
    parser.add_argument("--formats", nargs="+", default=["mxfp4", "mxint4", "mxint8", "mxfp8"])
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    last = (np.arange(CYCLES) % mx.BLOCK == mx.BLOCK - 1).astype(np.int64)
    widest = 0
    for first, second in combinations_with_replacement(args.formats, 2):
        a, b = mx.FORMATS[first].element, mx.FORMATS[second].element
        unit = Multiplier(a, b)
        widest = max(widest, unit.bits)
        values = {"a": codes(a, rng), "b": codes(b, rng), "last": last}
        print(json.dumps(measured(unit, f"mac_{first}_{second}", values, args, args.cache)), flush=True)
    values = {
        "total": rng.normal(0, 2.0 ** (widest - 8), CYCLES).astype(np.int64),
        "shift": rng.integers(8, 16, CYCLES),
        "first": last,
    }
    print(json.dumps(measured(Tail(widest), "tail", values, args, args.cache)), flush=True)


if __name__ == "__main__":
    main()

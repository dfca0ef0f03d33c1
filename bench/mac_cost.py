"""Area and energy of the matrix engine's products in a cell library, by the formats of its operands.

`python bench/mac_cost.py --liberty asap7` prints what `src/unmask/silicon/cost/costs.toml` has of the matrix engine: one line of JSON per
pair of formats, one for a tail and one for a rounding. A product is a 32nd of the RTL's own unit, `unmask.rtl.matrix.dot.BlockDot`: 32
multipliers, the two elements of the right operand that each keeps (one is multiplied, one is collected meanwhile), the tree that adds them
up, and the shift of their sum to the grid of the accumulator, with all its registers. A left block comes every cycle, a right one every
32; in every other cycle a block passes on its way to another column. The registers of the right elements are written once in 32 cycles,
and the mapping stops their clocks in the others. `wire_fj` is that of the left element's way over the block's side, by `wires.bit_mm_fj`:
every block of a column sees the same left row. The tail adds such a sum to those of the other blocks and to the accumulator; the rounding
makes BF16 of an accumulator. No layout, a clock without a tree.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from numpy.typing import NDArray

from unmask.numerics import mx
from unmask.numerics.accumulator import MATRIX_FRACTION
from unmask.numerics.formats import ElementFormat
from unmask.numerics.mx import BLOCK
from unmask.rtl.matrix import rounding
from unmask.rtl.matrix.dot import PLACES, WIDTH, BlockDot
from unmask.rtl.matrix.parts import part_layout
from unmask.rtl.pipeline import Pipeline
from unmask.silicon.cost.table import load_costs
from unmask.silicon.gates import Gates
from unmask.silicon.kits import library_named
from unmask.silicon.synthesis import synthesize
from unmask.silicon.timing import analyse

CYCLES, WARM_UP, RESET = 320, 64, 4
PAIRS = (
    "mxint8:mxfp4",
    "mxint8:mxint8",
    "mxint8:mxint4",
    "mxint4:mxint4",
    "mxfp8:mxfp4",
    "mxfp8:mxint4",
    "mxfp8:mxint8",
    "mxfp8:mxfp8",
    "mxfp4:mxfp4",
)
Bits = NDArray[np.uint8]


class Sum(wiring.Component):
    """What a block's sum meets: an adder of the tree over blocks, and one of the accumulator.

    Ports:
        value: signed. first: of a row of sums. sum: of the others and of what came before.
    """

    def __init__(self) -> None:
        super().__init__({"value": In(Shape(WIDTH, signed=True)), "first": In(1), "sum": Out(Shape(WIDTH, signed=True))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        value, first = Signal(Shape(WIDTH, signed=True)), Signal()
        m.d.sync += [value.eq(self.value), first.eq(self.first), self.sum.eq(Mux(first, 0, self.sum) + value)]
        return m


class Rounding(wiring.Component):
    """An accumulator's sum on its way to BF16: `unmask.rtl.matrix.rounding`, with all its places.

    Ports:
        value: signed. result: BF16 bits.
    """

    def __init__(self) -> None:
        super().__init__({"value": In(Shape(WIDTH, signed=True)), "result": Out(16)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        p = Pipeline(m, rounding.PLACES, rounding.PLACES, "round")
        m.d.comb += self.result.eq(rounding.rounded_sum(p, Cat(self.value), Const(0, 1), WIDTH, MATRIX_FRACTION))
        p.done()
        return m


def blocks_of(name: str, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Codes [CYCLES, 32] and scales [CYCLES] of normally distributed numbers."""
    packed = mx.quantize(rng.normal(0, 1, (CYCLES, BLOCK)).astype(np.float32), name)
    return packed.codes.astype(np.int64), packed.scales[:, 0].astype(np.int64)


def bits_of(values: Any, width: int) -> Bits:
    """[cycles, width], the lowest first."""
    return ((np.asarray(values)[:, None] >> np.arange(width)) & 1).astype(np.uint8)


def parts(codes: NDArray[np.int64], form: ElementFormat, layout: Any) -> Bits:
    """Elements as `part_layout` has them, [cycles, 32 x bits]."""
    shape = codes.shape
    codes = codes.reshape(-1)
    if form.kind == "int":
        mantissa, shift = np.where(codes >> (form.bits - 1), codes - (1 << form.bits), codes), np.zeros_like(codes)
    else:
        fraction, exponent = codes & ((1 << form.mantissa_bits) - 1), (codes >> form.mantissa_bits) & ((1 << form.exponent_bits) - 1)
        magnitude = fraction | ((exponent > 0).astype(np.int64) << form.mantissa_bits)
        mantissa, shift = np.where(codes >> (form.bits - 1), -magnitude, magnitude), np.maximum(exponent - 1, 0)
    low = layout["mantissa"].width
    joined = (mantissa & ((1 << low) - 1)) | (shift << low)
    return bits_of(joined, layout.size).reshape(shape[0], -1)


def dot_inputs(left: str, right: str, rights: tuple[str, ...], rng: np.random.Generator) -> dict[str, Bits]:
    """A left block every cycle, a right one every 32."""
    forms = {name: mx.FORMATS[name].element for name in (left, *rights)}
    (codes, scales), (others, other_scales) = blocks_of(left, rng), blocks_of(right, rng)
    beat = np.arange(CYCLES) % BLOCK
    # On the way to the other columns.
    others, other_scales = others[np.arange(CYCLES) // 2], other_scales[np.arange(CYCLES) // 2]
    return {
        "left": parts(codes, forms[left], part_layout([forms[left]])),
        "left_scale": bits_of(scales, 8),
        "row": parts(others, forms[right], part_layout([forms[name] for name in rights])),
        "scale": bits_of(other_scales, 8),
        "by_row": bits_of(beat == 8, 1),
        "exchange": bits_of(beat == BLOCK - 1, 1),
        "format": bits_of(np.full(CYCLES, rights.index(right)), 1),
    }


def measured(component: wiring.Component, name: str, inputs: dict[str, Bits], args: argparse.Namespace) -> dict[str, Any]:
    """Area in um2, slack in ps, leakage in nW, flip-flops, and energy per cycle in fJ; `idle_fj` at inputs that do not change."""
    netlist = synthesize(component, name, library_named(args.liberty, args.cache), args.clock_ps, args.cache, flat=True)
    gates = Gates(netlist)

    def run(busy: bool) -> Any:
        columns = []
        for port in gates.inputs:
            if port.name == "rst":
                columns.append(bits_of(np.arange(CYCLES) < RESET, 1))
            elif port.name in inputs and busy:
                columns.append(inputs[port.name])
            else:
                columns.append(np.zeros((CYCLES, len(port.nets)), np.uint8))
        _, toggles = gates.run(np.concatenate(columns, axis=1), skip=WARM_UP)
        return analyse(netlist, gates, args.clock_ps, netlist.folder / ("busy" if busy else "idle"), toggles / (CYCLES - WARM_UP - 1))

    busy, idle = run(True), run(False)
    return {
        "name": name,
        "area_um2": netlist.area,
        "slack_ps": busy.critical.slack_ps,
        "leakage_nw": busy.power.leakage_mw * 1e6,
        "flip_flops": sum(1 for _, kind, _ in gates.instances if gates.library.cells[kind].state),
        "dynamic_fj": (busy.power.total_mw - busy.power.leakage_mw) * args.clock_ps,
        "idle_fj": (idle.power.total_mw - idle.power.leakage_mw) * args.clock_ps,
    }


def product(pair: str, args: argparse.Namespace, rng: np.random.Generator) -> dict[str, Any]:
    """Figures of one product of a pair, LEFT:RIGHT, or LEFT:RIGHT+OTHER in a unit that also takes OTHER."""
    left, all_rights = pair.split(":")
    rights = tuple(all_rights.split("+"))
    forms = [mx.FORMATS[name].element for name in rights]
    unit = BlockDot(mx.FORMATS[left].element, forms, PLACES)
    found = measured(unit, f"dot_{pair.replace(':', '_').replace('+', '_')}", dot_inputs(left, rights[0], rights, rng), args)
    costs = load_costs()
    side = (found["area_um2"] / costs.layout.utilization) ** 0.5 / 1000
    return {
        "pair": pair,
        "energy_fj": found["dynamic_fj"] / BLOCK,
        "wire_fj": (mx.FORMATS[left].element.bits + 8 / BLOCK) * side * costs.wires.bit_mm_fj,
        "idle_fj": found["idle_fj"] / BLOCK,
        "area_um2": found["area_um2"] / BLOCK,
        "slack_ps": found["slack_ps"],
        "leakage_nw_um2": found["leakage_nw"] / found["area_um2"],
        "flip_flops": found["flip_flops"],
    }


def main() -> None:
    """Print a line of JSON per pair of formats."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--liberty", default="asap7")
    parser.add_argument("--clock-ps", type=float, default=1000)
    parser.add_argument("--cache", type=Path, default=Path("build/silicon"))
    parser.add_argument("--pairs", nargs="*", default=list(PAIRS), metavar="LEFT:RIGHT[+OTHER]", help="the right operand is of RIGHT")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    for pair in args.pairs:
        print(json.dumps(product(pair, args, rng)), flush=True)
    values = rng.normal(0, 2.0**40, CYCLES).astype(np.int64)
    inputs = {"value": bits_of(values, WIDTH), "first": bits_of(np.arange(CYCLES) % BLOCK == BLOCK - 1, 1)}
    print(json.dumps({**measured(Sum(), "tail", inputs, args), "name": "tail"}), flush=True)
    print(json.dumps({**measured(Rounding(), "round", {"value": inputs["value"]}, args), "name": "round"}), flush=True)


if __name__ == "__main__":
    main()

"""Area and energy per cycle of small units of the RTL in a cell library, for `src/unmask/silicon/cost/costs.toml`.

`python bench/unit_cost.py --liberty asap7 [--unit lane ...]` prints one line of JSON per unit and, of a lane, per operation. Operands are
normally distributed BF16 or FP32 numbers. No layout, no wires, a clock without a tree. Registers that load when they are told to have clock
gates: they load in every cycle of an operation, and in none of an idle unit. The scalar unit is that of the sampling engine; an operation's
energy is that of the whole unit, whose other functions see its operands too. `sum` is the tree of 8 lanes. The sequencer runs an
instruction a cycle with random operands, of its own (S_ADDI) or for a queue (V_ADD), or waits for one that is full.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.hdl import Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from unmask.isa.encoding import Op, encode
from unmask.numerics import bf16
from unmask.numerics.mx import FORMATS, SCALE_BIAS
from unmask.rtl import lane, mx, scalar, topk, window
from unmask.rtl.speed import machine_of
from unmask.silicon.gates import Gates, places_of
from unmask.silicon.kits import library_named
from unmask.silicon.synthesis import synthesize
from unmask.silicon.timing import Power, power_of
from unmask.silicon.units import unit_named

CYCLES, WARM_UP, RESET = 512, 64, 4
SORTER, LANES = 64, 8
FORMAT = "mxfp8"


class Element(wiring.Component):
    """An element on its way through the DMA engines, a register before and after: packed to `FORMAT`, or unpacked from it."""

    def __init__(self, packs: bool) -> None:
        self.packs = packs
        code = FORMATS[FORMAT].element.bits
        super().__init__({"value": In(16 if packs else code), "scale": In(8), "result": Out(code if packs else 16)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        held, held_scale = Signal(len(self.value), name="held"), Signal(8, name="held_scale")
        element = FORMATS[FORMAT].element
        m.d.sync += [held.eq(self.value), held_scale.eq(self.scale)]
        if self.packs:
            coding = mx.Coding.choose(m, [element], Const(0, 1), "coding")
            m.d.sync += self.result.eq(mx.encode(m, held, held_scale, coding, "code"))
        else:
            m.d.sync += self.result.eq(mx.scaled(m, mx.decode(m, held, element, "small"), held_scale, "bits"))
        return m


def fp32(x: Any) -> Any:
    """Bit patterns."""
    return np.asarray(x, np.float32).view(np.uint32).astype(np.int64)


def bf16_bits(x: Any) -> Any:
    """Bit patterns."""
    return bf16.to_bits(bf16.round(np.asarray(x, np.float32))).astype(np.int64)


def _side_by_side(words: Any) -> Any:
    """[words, cycles] of 16 bits as a port has them, the first word lowest: [cycles] of Python's integers."""
    return sum(word.astype(object) << 16 * index for index, word in enumerate(words))


def _strides(draw: Callable[[int], int]) -> dict[str, int]:
    return {f"{name}_stride": draw(256) for name in ("dst", "a", "b")}


def _words(ops: list[Op]) -> Any:
    """[cycles] instruction words as Python's integers."""
    return np.array([int.from_bytes(np.asarray(encode([op]), "<u8").tobytes(), "little") for op in ops], object)


def power(gates: Gates, netlist: Any, clock_ps: float, values: Mapping[str, Any]) -> Power:
    """At inputs by name, 0 where none is given; the registers load if any is."""
    stimulus = np.zeros((CYCLES, sum(len(port.nets) for port in gates.inputs)), np.uint8)
    for name, place in places_of(gates.inputs).items():
        width = place.stop - place.start
        loads = -1 if values and name.endswith("loads") else 0
        given = np.arange(CYCLES) < RESET if name == "rst" else values.get(name, loads)
        # Ports of more than 64 bits come as Python's integers.
        places = np.arange(width, dtype=object if np.asarray(given).dtype == object else np.int64)
        stimulus[:, place] = (np.broadcast_to(given, CYCLES)[:, None] >> places) & 1
    _, toggles = gates.run(stimulus, skip=WARM_UP)
    return power_of(netlist, gates, clock_ps, netlist.folder / "unit_cost", toggles / (CYCLES - WARM_UP - 1))


def units(rng: np.random.Generator) -> dict[str, tuple[wiring.Component, dict[str, dict[str, Any]]]]:
    """Components, and their inputs by operation."""

    others = np.random.default_rng(1)

    def draw(below: int) -> int:
        return int(others.integers(0, below))

    normal, negative = rng.normal(0, 4, CYCLES), -np.abs(rng.normal(0, 4, CYCLES))
    below = {"V_EXP", "V_EXP_WIN"}
    of_lane = {
        name: {
            "op": int(lane.LaneOp[name]),
            "a": bf16_bits(negative if name in below else normal),
            "b": bf16_bits(rng.normal(0, 4, CYCLES)),
            "key": bf16_bits(2.0),
        }
        for name in (*lane.SHORT, *lane.LONG)
    }
    of_scalar = {
        name: {
            "op": int(scalar.ScalarOp[name]),
            "a": fp32(np.abs(normal)),
            "b": fp32(rng.normal(0, 4, CYCLES)),
            "random": rng.integers(0, 1 << 32, CYCLES),
        }
        for name in ("F_MUL", "F_RECIP")
    }
    turn = np.arange(CYCLES) % (2 * SORTER)
    of_sorter = {
        "valid": (turn < SORTER).astype(np.int64),
        "first": (turn == 0).astype(np.int64),
        "last": (turn == SORTER - 1).astype(np.int64),
        "score": fp32(rng.random(CYCLES)),
        "eligible": 1,
        "kind": int(topk.Mask.TOPK),
        "k": SORTER // 4,
    }
    of_sum = {"kind": int(window.Sum.FIXED), "mask": -1, "values": _side_by_side(bf16_bits(others.normal(0, 4, (LANES, CYCLES))))}
    element = {"value": bf16_bits(rng.normal(0, 1, CYCLES)), "scale": SCALE_BIAS}
    code = {"value": rng.integers(0, 0x78, CYCLES) | rng.integers(0, 2, CYCLES) << 7, "scale": SCALE_BIAS}
    begun = {"start": (np.arange(CYCLES) == 2 * RESET).astype(np.int64), "ready": 1}
    own = [Op("S_ADDI", {"rd": draw(16), "rs": draw(16), "value": draw(1 << 16)}) for _ in range(CYCLES)]
    handed = [
        Op("V_ADD", {name: draw(16) for name in ("dst", "a", "b")} | {"rows": 1 + draw(64), "cols": 8 + draw(512)} | _strides(draw))
        for _ in range(CYCLES)
    ]
    of_sequencer = {
        "waiting": {**begun, "program__r0_data": _words(handed[:1] * CYCLES)},
        "S_ADDI": {**begun, "program__r0_data": _words(own)},
        "V_ADD": {**begun, "program__r0_data": _words(handed), "vector_room": 1},
    }
    places = lane.Lane(0, 0).function_places
    return {
        "lane": (lane.Lane(lane.SHORT_PLACES, places), of_lane),
        "scalar": (unit_named("scalar").build(machine_of("sampler", LANES)), of_scalar),
        "sorter": (topk.MaskUnit(SORTER, SORTER), {"V_TOPK_MASK": of_sorter}),
        "sum": (window.WindowTree(LANES, window.WindowTree.places(LANES)), {"V_RED_SUM": of_sum}),
        "sequencer": (unit_named("sequencer").build(machine_of("sampler", LANES)), of_sequencer),
        "pack": (Element(True), {FORMAT: element}),
        "unpack": (Element(False), {FORMAT: code}),
    }


def main() -> None:
    """Print the figures of the units that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--liberty", default="asap7")
    parser.add_argument("--clock-ps", type=float, default=1000)
    parser.add_argument("--cache", type=Path, default=Path("build/silicon"))
    parser.add_argument("--unit", nargs="+", default=["lane", "scalar", "sorter", "sum", "sequencer", "pack", "unpack"])
    args = parser.parse_args()
    for name, (component, operations) in units(np.random.default_rng(0)).items():
        if name not in args.unit:
            continue
        netlist = synthesize(component, name, library_named(args.liberty, args.cache), args.clock_ps, args.cache, flat=True)
        gates = Gates(netlist)
        idle = power(gates, netlist, args.clock_ps, {})
        figures = {
            "area_um2": netlist.area,
            "leakage_nw": idle.leakage_mw * 1e6,
            "idle_fj": (idle.total_mw - idle.leakage_mw) * args.clock_ps,
        }
        print(json.dumps({"unit": name, **figures}), flush=True)
        for operation, values in operations.items():
            busy = power(gates, netlist, args.clock_ps, values)
            energy = (busy.total_mw - busy.leakage_mw) * args.clock_ps
            print(json.dumps({"unit": name, "operation": operation, "fj_per_cycle": energy}), flush=True)


if __name__ == "__main__":
    main()

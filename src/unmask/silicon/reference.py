"""What a unit's RTL does with given inputs, cycle by cycle, in Amaranth's own simulator: nothing of the synthesis flow takes part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from amaranth.hdl import Value
from amaranth.lib import wiring
from amaranth.sim import Simulator

from unmask.errors import UnmaskError
from unmask.silicon.gates import Bits, Port


def rtl_outputs(component: wiring.Component, inputs: Sequence[Port], outputs: Sequence[Port], stimulus: Bits) -> Bits:
    """Outputs of a component from its reset state.

    Args:
        component: without macros; not elaborated before.
        inputs, outputs: ports of its netlist, whose order the bits have; the reset is ignored.
        stimulus: [cycles, bits].

    Returns:
        [cycles, bits], the outputs at the end of each cycle.

    Raises:
        UnmaskError: the netlist has a port that the component has not.
    """
    signals = {"__".join(str(part) for part in path): Value.cast(value) for path, _, value in component.signature.flatten(component)}
    if unknown := {port.name for port in (*inputs, *outputs)} - signals.keys() - {"rst"}:
        raise UnmaskError(f"ports {', '.join(sorted(unknown))} of the netlist are none of the component: it cannot be simulated by itself")
    driven = [(signals.get(port.name), len(port.nets)) for port in inputs]
    shown = [(signals[port.name], len(port.nets)) for port in outputs]
    values = [_numbers(bits) for bits in np.split(stimulus, np.cumsum([width for _, width in driven])[:-1], axis=1)]
    results: list[list[int]] = []

    async def bench(context: Any) -> None:
        for cycle in range(len(stimulus)):
            for (signal, _), numbers in zip(driven, values, strict=True):
                if signal is not None:
                    context.set(signal.as_unsigned() if signal.shape().signed else signal, numbers[cycle])
            results.append([context.get(signal.as_unsigned()) for signal, _ in shown])
            await context.tick()

    simulator = Simulator(component)
    simulator.add_clock(1e-9)
    simulator.add_testbench(bench)
    simulator.run()
    columns = [_bits([row[index] for row in results], width) for index, (_, width) in enumerate(shown)]
    return np.concatenate(columns, axis=1)


def _numbers(bits: Bits) -> list[int]:
    """[n, width] bits, lowest first, as n integers."""
    packed = np.packbits(bits, axis=1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in packed]


def _bits(numbers: list[int], width: int) -> Bits:
    """The inverse of `_numbers`."""
    size = -(-width // 8)
    packed = np.frombuffer(b"".join(number.to_bytes(size, "little") for number in numbers), np.uint8).reshape(len(numbers), size)
    return np.unpackbits(packed, axis=1, bitorder="little")[:, :width]

"""A datapath function as a unit of its own: `apply(function, places, registers, a=(values, bits), ...)` gives its results, unsigned."""

from collections.abc import Callable
from typing import Any

import numpy as np
from amaranth.hdl import Module, Shape, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from numpy.typing import NDArray

from unmask.rtl.pipeline import Pipeline

from .streaming import stream


class Applied(wiring.Component):
    """`function(pipeline, *inputs)` with inputs of the given shapes; outputs out0, out1, ..."""

    def __init__(self, function: Callable[..., Any], places: int, registers: int, shapes: dict[str, Shape], out: int) -> None:
        super().__init__({**{name: In(shape) for name, shape in shapes.items()}, **{f"out{index}": Out(64) for index in range(out)}})
        self._function, self._places, self._registers, self._names = function, places, registers, list(shapes)

    def elaborate(self, _: object) -> Module:
        m = Module()
        pipeline = Pipeline(m, self._places, self._registers)
        results = self._function(pipeline, *(getattr(self, name) for name in self._names))
        for index, result in enumerate([results] if isinstance(results, Value) else results):
            m.d.comb += getattr(self, f"out{index}").eq(result)
        pipeline.done()
        return m


def apply(
    function: Callable[..., Any], places: int, registers: int, out: int = 1, **inputs: tuple[NDArray[Any], Any]
) -> list[NDArray[np.int64]]:
    """The results for inputs of (values, shape), each int64 (signed ones sign-extended)."""
    unit = Applied(function, places, registers, {name: Shape.cast(shape) for name, (_, shape) in inputs.items()}, out)
    results = stream(unit, {name: values for name, (values, _) in inputs.items()}, registers)
    return [results[f"out{index}"].view(np.int64) for index in range(out)]

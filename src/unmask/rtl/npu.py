"""The whole NPU: the engine, a matrix engine at its matrix port, and the matrix SRAM."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import Flow, Out, connect, flipped

from unmask.machine.config import Machine
from unmask.rtl.engine import VECTOR_INSTRUCTIONS, SamplingEngine
from unmask.rtl.matrix.engine import MatrixEngine
from unmask.rtl.matrix.port import PREFIX
from unmask.rtl.matrix.sram import MatrixSram

_TRACED = {"matrix_codes": ("address", "mask", "data"), "matrix_scales": ("address", "scale_mask", "scales")}
"""Traces of what is written to the matrix SRAM, by the members of its port."""


class Npu(wiring.Component):
    """The NPU of a machine.

    Ports: those of `unmask.rtl.engine.SamplingEngine` without the matrix port's, and
        trace_matrix_codes_*, trace_matrix_scales_*: with `trace`, writes to the matrix SRAM: block, mask, data.
    """

    def __init__(self, machine: Machine, *, trace: bool = False, black_box: bool = False) -> None:
        """Size it.

        Args:
            machine: with one memory port, and an array that `unmask.rtl.matrix.timing.slack` takes.
            trace: add the ports that a test bench looks at.
            black_box: leave the SRAMs to macros.

        Raises:
            UnmaskError: the machine asks for what no hardware of this design has; names the field.
        """
        self.engine = engine = SamplingEngine(machine, instructions=VECTOR_INSTRUCTIONS, matrix_port=True, trace=trace, black_box=black_box)
        self.engines, self.shape = engine.engines, engine.shape
        self.array = MatrixEngine(machine, engine.pc_bits)
        self.matrix_sram = MatrixSram(machine, engine.load_shape.matrix_lanes, black_box=black_box)
        self._trace = trace
        self._shared = {name: member for name, member in engine.signature.members.items() if not name.startswith(PREFIX)}
        super().__init__(self._shared | ({name: Out(value.shape()) for name, value in self._traces().items()} if trace else {}))

    @property
    def places(self) -> dict[str, tuple[str, ...]]:
        """Where its engines are, by their names: names of submodules, from here."""
        return {name: ("engine", *path) for name, path in self.engine.places.items()} | {"matrix": ("array",)}

    def _traces(self) -> dict[str, Value]:
        return {
            f"trace_{name}_{end}": Value.cast(getattr(self.matrix_sram.load, member))
            for name, members in _TRACED.items()
            for end, member in zip(("address", "mask", "data"), members, strict=True)
        }

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.engine, m.submodules.array, m.submodules.matrix_sram = engine, array, memory = (
            self.engine,
            self.array,
            self.matrix_sram,
        )
        for name, member in self._shared.items():
            outer, inner = getattr(self, name), getattr(engine, name)
            if member.is_signature:
                connect(m, flipped(outer), inner)
            else:
                m.d.comb += inner.eq(outer) if member.flow is Flow.In else outer.eq(inner)
        instruction = engine.matrix_instruction
        m.d.comb += [
            array.start.eq(instruction.valid & instruction.ready),
            array.entry.eq(instruction.payload),
            instruction.ready.eq(array.ready),
            array.stop.eq(engine.matrix_stop),
            engine.matrix_retire.eq(array.retire),
            engine.matrix_fault.eq(array.fault),
        ]
        connect(m, array.a, engine.matrix_a)
        connect(m, array.dst, engine.matrix_dst)
        connect(m, engine.matrix_load, memory.load)
        for index in range(array.machine.matrix.rows):
            connect(m, getattr(array, f"row{index}"), getattr(memory, f"row{index}"))
        if self._trace:
            m.d.comb += [getattr(self, name).eq(value) for name, value in self._traces().items()]
        return m

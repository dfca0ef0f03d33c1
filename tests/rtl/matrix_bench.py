"""The matrix engine between its two memories, and instructions run on it one after the other."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from amaranth.hdl import Cat, Module, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect
from amaranth.utils import ceil_log2
from numpy.typing import NDArray

from unmask.isa.encoding import Op, encode_op
from unmask.machine.config import Machine
from unmask.machine.costs import matrix_cycles
from unmask.machine.semantics import SEMANTICS
from unmask.machine.state import State
from unmask.numerics import bf16
from unmask.rtl.faults import BITS as FAULT_BITS
from unmask.rtl.matrix.engine import MatrixEngine
from unmask.rtl.matrix.sram import MatrixSram
from unmask.rtl.sram import Sram

from .streaming import Simulation

REGISTERS = ("dst", "a", "b")


def machine_of(blen: int, mlen: int, rows: int, *, granule: int = 4, latency: int = 6, **formats: str) -> Machine:
    """A machine with small memories: 4096 elements, and 8 KiB of MX blocks."""
    nano = Machine.preset("nano").with_formats(**formats)
    return nano.model_copy(
        update={
            "matrix": nano.matrix.model_copy(update={"blen": blen, "mlen": mlen, "rows": rows, "latency": latency}),
            "vector": nano.vector.model_copy(update={"granule": granule}),
            "sram": nano.sram.model_copy(update={"vector_kib": 8, "matrix_kib": 8}),
        }
    )


class Bench(wiring.Component):
    """Engine and memories; ports to fill these, to start an instruction, and to see what it writes."""

    def __init__(self, machine: Machine) -> None:
        self.engine = MatrixEngine(machine, 8)
        granule, array = machine.vector.granule, machine.matrix
        width = granule << ceil_log2(-(-max(array.mlen, array.rows * array.blen) // granule))
        self.vector = Sram(
            machine.vector_elements,
            16,
            granule=granule,
            width=width,
            reads={"a": array.mlen},
            writes={"dst": array.rows * array.blen, "load": array.mlen},
        )
        self.matrix = MatrixSram(machine, 1)
        self._rows = [f"row{i}" for i in range(array.rows)]
        super().__init__(
            {
                **{f"load_{name}": In(Value.cast(value).shape()) for name, value in self._members(self.vector.load).items()},
                **{f"block_{name}": In(Value.cast(value).shape()) for name, value in self._members(self.matrix.load).items()},
                "start": In(1),
                "word": In(128),
                **dict.fromkeys(REGISTERS, In(48)),
                "stop": In(1),
                "ready": Out(1),
                "retire": Out(1),
                "fault": Out(FAULT_BITS),
                "dst_address": Out(32),
                "dst_mask": Out(array.rows * array.blen),
                "dst_data": Out(array.rows * array.blen * 16),
            }
        )

    @staticmethod
    def _members(port: Any) -> dict[str, Any]:
        return {name: getattr(port, name) for name in port.signature.members}

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.engine, m.submodules.vector, m.submodules.matrix = engine, vector, matrix = self.engine, self.vector, self.matrix
        connect(m, engine.a, vector.a)
        connect(m, engine.dst, vector.dst)
        for name in self._rows:
            connect(m, getattr(engine, name), getattr(matrix, name))
        for prefix, port in (("load", vector.load), ("block", matrix.load)):
            for name, value in self._members(port).items():
                m.d.comb += Value.cast(value).eq(getattr(self, f"{prefix}_{name}"))
        m.d.comb += [
            engine.start.eq(self.start),
            engine.stop.eq(self.stop),
            engine.entry.word.eq(self.word),
            *(engine.entry.registers[i].eq(getattr(self, name)) for i, name in enumerate(REGISTERS)),
            self.ready.eq(engine.ready),
            self.retire.eq(engine.retire),
            self.fault.eq(engine.fault),
            self.dst_address.eq(engine.dst.address),
            self.dst_mask.eq(engine.dst.mask),
            self.dst_data.eq(Cat(engine.dst.data.as_value())),
        ]
        return m


def packed(values: NDArray[Any], bits: int) -> NDArray[np.uint32]:
    """Rows of unsigned numbers of `bits` bits as words of 32, lowest first."""
    spread = (values.astype(np.uint64)[:, :, None] >> np.arange(bits, dtype=np.uint64)) & np.uint64(1)
    flat = spread.reshape(len(values), -1).astype(np.uint8)
    flat = np.pad(flat, ((0, 0), (0, -flat.shape[1] % 32)))
    return np.packbits(flat, axis=1, bitorder="little").view(np.uint32)


class Run:
    """What a machine's engine did with instructions, each started when it may be by the cycle count; the last cycle stops it.

    Attributes:
        starts, ends, costs: of the instructions, by the timing. out: the bench's outputs, of every cycle.
        vector: BF16 patterns of the vector SRAM after all writes. written: the cycles with writes.
    """

    def __init__(self, simulation: Simulation, machine: Machine, state: State, programs: list[dict[str, int]]) -> None:
        array, granule = machine.matrix, machine.vector.granule
        width = array.rows * array.blen
        loads = len(state.vector) // array.mlen
        filled = max(loads, len(state.scales))
        self.costs = costs = [matrix_cycles(p["m"], p["n"], p["k"], bool(p["transposed"]), machine) for p in programs]
        waits = [c.occupancy + (c.gap if c.gap > after.gap else 0) for c, after in pairwise(costs)]
        self.starts = filled + np.cumsum([0, *waits])
        self.ends = self.starts + [c.occupancy + c.latency for c in costs]
        total = int(self.ends[-1]) + 8
        bits = max(form.element.bits for form in state.formats[:2])

        def held(values: NDArray[Any]) -> NDArray[Any]:
            return np.concatenate([values, np.zeros((total - len(values), *values.shape[1:]), values.dtype)])

        inputs: dict[str, NDArray[Any]] = {
            "load_address": held(np.arange(loads) * array.mlen // granule),
            "load_mask": held(np.full(loads, (1 << array.mlen) - 1, np.uint64)),
            "load_data": held(packed(bf16.to_bits(state.vector).reshape(loads, -1), 16)),
            "block_address": held(np.arange(len(state.scales))),
            "block_mask": held(np.full(len(state.scales), 2**32 - 1)),
            "block_data": held(packed(state.codes, bits)),
            "block_scale_mask": held(np.ones(len(state.scales), int)),
            "block_scales": held(state.scales),
            "start": np.zeros(total, int),
            "stop": (np.arange(total) == total - 1).astype(int),
            "word": np.zeros((total, 4), np.uint32),
            **{name: np.zeros(total, np.int64) for name in REGISTERS},
        }
        for program, start in zip(programs, self.starts, strict=True):
            inputs["start"][start] = 1
            word = encode_op(Op("M_MM", program | dict.fromkeys(REGISTERS, 0)))
            inputs["word"][start] = [word >> 32 * i & 0xFFFFFFFF for i in range(4)]
            for name in REGISTERS:
                inputs[name][start] = program[name]
        self.out = out = simulation.run(inputs, total)
        self.vector = bf16.to_bits(state.vector).copy()
        lanes = np.arange(width)
        masks = (out["dst_mask"][:, None] >> lanes.astype(np.uint64) & np.uint64(1)).astype(bool)
        self.written = np.flatnonzero(masks.any(axis=1))
        data = out["dst_data"].view(np.uint16).reshape(total, -1)
        for cycle in self.written:
            self.vector[int(out["dst_address"][cycle]) * granule + lanes[masks[cycle]]] = data[cycle, :width][masks[cycle]]
        self._state, self._programs = state, programs

    def wanted(self) -> NDArray[np.uint16]:
        """BF16 patterns of the vector SRAM after the same instructions in the functional reading; a format reads its low bits of a code."""
        state, codes = self._state, self._state.codes.copy()
        for program in self._programs:
            if program["format"] < 2:
                state.codes[:] = codes & ((1 << state.formats[program["format"]].element.bits) - 1)
            SEMANTICS["M_MM"](state, **program)
        state.codes[:] = codes
        return bf16.to_bits(state.vector)

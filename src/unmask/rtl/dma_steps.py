"""How an instruction of a DMA engine becomes a request, on its way through the engine's queue."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import data

from unmask.isa.row import Engine
from unmask.isa.table import BY_NAME
from unmask.rtl.decode import WAITS, Operands
from unmask.rtl.dma import Kind, Shape
from unmask.rtl.queue import Step
from unmask.rtl.request import PreparedRequest

_KINDS = {"L_VEC": Kind.VECTOR, "ST_VEC": Kind.VECTOR, "L_INT": Kind.INTEGER, "ST_INT": Kind.INTEGER, "L_MX": Kind.MX, "ST_MX": Kind.MX}
_KINDS |= {"L_MAT": Kind.MATRIX, "L_GATHER": Kind.GATHER}


class DmaSteps:
    """The steps of a DMA engine's queue, whose items are of `unmask.rtl.decode.dispatch_layout`.

    The head's fields: word, with wait0 and wait1; request, of `PreparedRequest.layout`, whose tag is the instruction's program counter,
    signal0 and signal1.
    """

    def __init__(self, engine: Engine, names: Iterable[str], shape: Shape) -> None:
        """Of load or store, for some instructions."""
        self._names, self._shape = sorted(names), shape
        self._sram, self._memory = ("dst", "src") if engine is Engine.LOAD else ("src", "dst")

    @property
    def steps(self) -> list[Step]:
        """Decoding, and the steps of a `PreparedRequest`."""
        steps = []
        for index, (layout, work) in enumerate(PreparedRequest(self._shape).steps):
            item_work = partial(self._later if index else self._first, work)
            steps.append(Step(data.StructLayout({"word": WAITS, "request": layout}), item_work))
        return steps

    @staticmethod
    def _later(work: Any, m: Module, item: Any) -> Value:
        return Cat(item.word, work(m, item.request))

    def _first(self, work: Any, m: Module, item: Any) -> Value:
        return Cat(item.word.wait0, item.word.wait1, work(m, self._request(m, item)))

    def _request(self, m: Module, item: Any) -> Any:
        """An instruction as a request, of `Shape.request`."""
        request, operands, word = Signal(self._shape.request, name="request"), Operands(m, item, self._names), item.word

        def operand(key: str) -> Value:
            """An operand; 0 for the instructions that have none of that name."""
            return operands.values.get(key, Value.cast(0))

        m.d.comb += [
            request.kind.eq(Kind.SYNC),
            request.format.eq(operand("format")),
            request.rows.eq(operand("rows")),
            request.cols.eq(operand("cols")),
            request.sram.eq(operand(self._sram)),
            request.sram_stride.eq(operand(f"{self._sram}_stride")),
            request.memory.eq(operand(self._memory) | operand("table")),
            request.scales.eq(operand("scales") | operand("ids")),
            request.memory_stride.eq(operand(f"{self._memory}_stride") | operand("table_stride")),
            request.limit.eq(operand("limit")),
            request.tag.eq(Cat(item.pc, word.signal0, word.signal1)),
        ]
        with m.Switch(word.opcode):
            for key in self._names:
                with m.Case(BY_NAME[key].opcode):
                    m.d.comb += request.kind.eq(_KINDS[key])
                    if _KINDS[key] is Kind.INTEGER:
                        m.d.comb += request.cols.eq(operand("count"))
        return request

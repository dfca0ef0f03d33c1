"""The integer unit: several words of the integer SRAM per cycle."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Mux
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from unmask.isa.table import BY_NAME
from unmask.rtl.decode import OPCODE_BITS
from unmask.rtl.pipeline import delay

OPERATIONS = ("I_EQ_I", "I_FILL", "V_SELECT_INT")


class IntegerUnit(wiring.Component):
    """Element-wise operations on INT32 words.

    Ports:
        opcode: one of `OPERATIONS`. value: the constant compared with or written.
        first, second, third: words of the operands in the order of their read ports: a of I_EQ_I; mask, a and b of V_SELECT_INT.
        result: `registers` cycles later.
    """

    def __init__(self, lanes: int, registers: int) -> None:
        words = data.ArrayLayout(32, lanes)
        self._lanes, self._registers = lanes, registers
        super().__init__(
            {
                "opcode": In(OPCODE_BITS),
                "value": In(32),
                "first": In(words),
                "second": In(words),
                "third": In(words),
                "result": Out(words),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        for lane in range(self._lanes):
            result = Mux(
                self.opcode == BY_NAME["V_SELECT_INT"].opcode,
                Mux(self.first[lane] != 0, self.second[lane], self.third[lane]),
                Mux(self.opcode == BY_NAME["I_EQ_I"].opcode, self.first[lane] == self.value, self.value),
            )
            m.d.comb += self.result[lane].eq(delay(m, result[:32], self._registers, f"result_{lane}"))
        return m

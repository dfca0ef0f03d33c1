"""What a host sees of the engine: a few registers, the instruction memory, and the integer SRAM for parameters and results."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from unmask.rtl.decode import WORD_BITS
from unmask.rtl.faults import BITS as FAULT_BITS
from unmask.rtl.faults import Fault

ADDRESS_BITS = 24
"""Bytes of the memory map."""
WINDOW_BITS = 20
BUS_BITS = 32
_PARTS = WORD_BITS // BUS_BITS


class Register(IntEnum):
    """Byte addresses of the registers; each has 32 bits."""

    CONTROL = 0x00
    STATUS = 0x04
    ENTRY = 0x08
    FAULT_PC = 0x0C
    CYCLES = 0x10


MEANING = {
    Register.CONTROL: "write 1: start at ENTRY",
    Register.STATUS: "bit 0: busy; bit 1: the last run ended in HALT; bits 15:8: its fault, or 0",
    Register.ENTRY: "number of the first instruction",
    Register.FAULT_PC: "number of the instruction that the fault belongs to",
    Register.CYCLES: "cycles of the last run, from its first instruction to the end of its last, modulo 2^32",
}


PROGRAM = 1 << WINDOW_BITS
"""Byte address of the instruction memory: 16 bytes an instruction, low word first; the last of the four words written stores it."""
INTEGERS = 2 << WINDOW_BITS
"""Byte address of the integer SRAM."""


class Host(wiring.Component):
    """A 32-bit slave without wait states; addresses are bytes, multiples of 4.

    Ports of the bus:
        address, write, write_data: a word is written at the end of the cycle. read_data: of the address of the cycle before.

    Ports of the engine:
        start: strobe; entry. idle: nothing is under way. fault, fault_pc: strobe, a cycle after the fault, that of `idle` at the latest.
        program_address, program_word, program_write: to the sequencer.
        integer_address, integer_write, integer_write_data, integer_read_data: to the integer SRAM; meaningful only while idle.
    """

    def __init__(self, pc_bits: int, integer_words: int) -> None:
        self._pc_bits = pc_bits
        super().__init__(
            {
                "address": In(ADDRESS_BITS),
                "write": In(1),
                "write_data": In(BUS_BITS),
                "read_data": Out(BUS_BITS),
                "start": Out(1),
                "entry": Out(pc_bits),
                "busy": Out(1),
                "idle": In(1),
                "fault": In(FAULT_BITS),
                "fault_pc": In(pc_bits),
                "program_address": Out(pc_bits),
                "program_word": Out(WORD_BITS),
                "program_write": Out(1),
                "integer_address": Out(range(integer_words)),
                "integer_write": Out(1),
                "integer_write_data": Out(BUS_BITS),
                "integer_read_data": In(BUS_BITS),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        window, offset = self.address[WINDOW_BITS:], self.address[:WINDOW_BITS]
        free = self.write & ~self.busy
        done, fault, fault_pc, cycles = Signal(), Signal(FAULT_BITS), Signal(self._pc_bits), Signal(BUS_BITS)
        started = Signal()
        low = Signal(WORD_BITS - BUS_BITS)
        part = offset[2:4]
        m.d.comb += [
            self.start.eq(free & (self.address == Register.CONTROL) & self.write_data[0]),
            self.program_address.eq(offset[4:]),
            self.program_word.eq(Cat(low, self.write_data)),
            self.program_write.eq(free & (window == PROGRAM >> WINDOW_BITS) & (part == _PARTS - 1)),
            self.integer_address.eq(offset[2:]),
            self.integer_write.eq(free & (window == INTEGERS >> WINDOW_BITS)),
            self.integer_write_data.eq(self.write_data),
        ]
        with m.If(self.write & (window == PROGRAM >> WINDOW_BITS) & (part != _PARTS - 1)):
            m.d.sync += low.word_select(part, BUS_BITS).eq(self.write_data)
        with m.If(free & (self.address == Register.ENTRY)):
            m.d.sync += self.entry.eq(self.write_data)
        with m.If(self.start):
            m.d.sync += [self.busy.eq(1), started.eq(0), done.eq(0), fault.eq(Fault.NONE), cycles.eq(0)]
        with m.Elif(self.busy):
            m.d.sync += started.eq(1)
            with m.If((self.fault != Fault.NONE) & (fault == Fault.NONE)):
                m.d.sync += [fault.eq(self.fault), fault_pc.eq(self.fault_pc)]
            with m.If(started & self.idle):
                m.d.sync += [self.busy.eq(0), done.eq((fault == Fault.NONE) & (self.fault == Fault.NONE))]
            with m.Else():
                m.d.sync += cycles.eq(cycles + 1)
        registers = {
            Register.STATUS: Cat(self.busy, done, Const(0, 6), fault),
            Register.ENTRY: self.entry,
            Register.FAULT_PC: fault_pc,
            Register.CYCLES: cycles,
        }
        selected, in_integers = Signal(BUS_BITS), Signal()
        m.d.sync += [selected.eq(0), in_integers.eq(window == INTEGERS >> WINDOW_BITS)]
        with m.Switch(self.address):
            for register, value in registers.items():
                with m.Case(register):
                    m.d.sync += selected.eq(value)
        m.d.comb += self.read_data.eq(Mux(in_integers, self.integer_read_data, selected))
        return m

"""The matrix SRAM: MX blocks, elements and scales beside each other."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, Signature
from amaranth.utils import ceil_log2

from unmask.errors import UnmaskError
from unmask.machine.config import MATRIX_FORMATS, Machine
from unmask.numerics import mx
from unmask.numerics.mx import BLOCK

PART = 8
"""Elements that are written together: as many of any width are whole bytes."""


def code_bits(machine: Machine) -> int:
    """Bits of an element in the matrix SRAM: of the widest format that it holds."""
    return max(mx.format_named(name).element.bits for name in machine.formats.stored[:MATRIX_FORMATS])


class MatrixRead(Signature):
    """A port that reads a block in each of its lanes, wherever it is.

    Members:
        address: a block per lane.
        blocks, scales: one cycle later: the codes of its elements, each in the low bits, and its scale.
    """

    def __init__(self, address_bits: int, bits: int, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(
            {
                "address": Out(data.ArrayLayout(unsigned(address_bits), lanes)),
                "blocks": In(data.ArrayLayout(data.ArrayLayout(unsigned(bits), BLOCK), lanes)),
                "scales": In(data.ArrayLayout(unsigned(8), lanes)),
            }
        )


class MatrixWrite(Signature):
    """A port that writes a block, or some of it.

    Members:
        address: the block.
        mask: its groups of `PART` elements that are written. data: their codes, each in the low bits.
        scale_mask: whether its scale is. scale: of the block.
    """

    def __init__(self, address_bits: int, bits: int) -> None:
        super().__init__(
            {
                "address": Out(address_bits),
                "mask": Out(BLOCK // PART),
                "data": Out(data.ArrayLayout(unsigned(bits), BLOCK)),
                "scale_mask": Out(1),
                "scale": Out(8),
            }
        )


class MatrixSram(wiring.Component):
    """As many MX blocks as a machine has.

    Reading what is written in the same cycle gives the old value; no legal program does it. Addresses are not checked here.

    Ports:
        row0, ...: of the rows of the array, a block per lane. load0, ...: of the load engine, a block each; different ones.
    """

    def __init__(self, machine: Machine, loads: int) -> None:
        """Size it.

        Args:
            loads: blocks that a beat of the memory may touch.

        Raises:
            UnmaskError: it has no port to load it.
        """
        if loads < 1:
            raise UnmaskError(f"a matrix SRAM with {loads} write ports: expected at least 1")
        array = machine.matrix
        self.bits, self.blocks = code_bits(machine), machine.matrix_blocks(code_bits(machine))
        self.address_bits = ceil_log2(self.blocks)
        self._rows, self._loads = [f"row{i}" for i in range(array.rows)], [f"load{i}" for i in range(loads)]
        read, write = MatrixRead(self.address_bits, self.bits, array.mlen // BLOCK), MatrixWrite(self.address_bits, self.bits)
        super().__init__({**dict.fromkeys(self._rows, In(read)), **dict.fromkeys(self._loads, In(write))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.elements = elements = Memory(shape=unsigned(BLOCK * self.bits), depth=self.blocks, init=[])
        m.submodules.scales = scales = Memory(shape=unsigned(8), depth=self.blocks, init=[])
        for name in self._rows:
            port = getattr(self, name)
            for lane in range(port.signature.lanes):
                codes, scale = elements.read_port(), scales.read_port()
                m.d.comb += [
                    *(read.addr.eq(port.address[lane]) for read in (codes, scale)),
                    *(read.en.eq(1) for read in (codes, scale)),
                    Cat(port.blocks[lane].as_value()).eq(codes.data),
                    port.scales[lane].eq(scale.data),
                ]
        for name in self._loads:
            port = getattr(self, name)
            codes, scale = elements.write_port(granularity=PART * self.bits), scales.write_port()
            m.d.comb += [
                codes.addr.eq(port.address),
                codes.data.eq(port.data.as_value()),
                codes.en.eq(port.mask),
                scale.addr.eq(port.address),
                scale.data.eq(port.scale),
                scale.en.eq(port.scale_mask),
            ]
        return m

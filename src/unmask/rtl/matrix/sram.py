"""The matrix SRAM: MX blocks, elements and scales beside each other."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out, Signature
from amaranth.utils import ceil_log2

from unmask.errors import UnmaskError
from unmask.machine.config import MATRIX_FORMATS, Machine
from unmask.numerics import mx
from unmask.numerics.mx import BLOCK
from unmask.rtl.dma import Shape
from unmask.rtl.sram import Sram


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
    """A port that writes neighbouring blocks, or some of their elements.

    Members:
        address: of the first block.
        mask: a bit per element. data: their codes, each in the low bits.
        scale_mask: a bit per block. scales: theirs.
    """

    def __init__(self, address_bits: int, bits: int, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(
            {
                "address": Out(address_bits),
                "mask": Out(lanes * BLOCK),
                "data": Out(data.ArrayLayout(unsigned(bits), lanes * BLOCK)),
                "scale_mask": Out(lanes),
                "scales": Out(data.ArrayLayout(unsigned(8), lanes)),
            }
        )

    @classmethod
    def of(cls, shape: Shape) -> MatrixWrite:
        """The load engine's port."""
        return cls(ceil_log2(shape.matrix_blocks), shape.matrix_bits, shape.matrix_lanes)


class MatrixSram(wiring.Component):
    """As many MX blocks as a machine has.

    Reading what is written in the same cycle gives the old value; no legal program does it. Addresses are not checked here.

    Ports:
        row0, ...: of the rows of the array, a block per lane. load: of the load engine.
    """

    def __init__(self, machine: Machine, loads: int, *, black_box: bool = False) -> None:
        """Size it.

        Args:
            loads: blocks that are written at once.
            black_box: leave the memory to macros (`unmask.rtl.sram.Sram`).

        Raises:
            UnmaskError: it cannot be loaded.
        """
        if loads < 1:
            raise UnmaskError(f"a matrix SRAM that loads {loads} blocks: expected at least 1")
        array = machine.matrix
        self.bits, self.blocks = code_bits(machine), machine.matrix_blocks(code_bits(machine))
        self.address_bits = ceil_log2(self.blocks)
        self._rows, self._lanes, banks = [f"row{i}" for i in range(array.rows)], array.mlen // BLOCK, 1 << ceil_log2(loads)
        ports = [f"{row}_{lane}" for row in self._rows for lane in range(self._lanes)]
        self.elements, self.scales = (
            Sram(
                self.blocks * words,
                bits,
                granule=words,
                width=words * banks,
                reads=dict.fromkeys(ports, words),
                writes={"load": words * loads},
                depth_banks=machine.sram.matrix_banks,
                black_box=black_box,
            )
            for words, bits in ((BLOCK, self.bits), (1, 8))
        )
        read, write = MatrixRead(self.address_bits, self.bits, self._lanes), MatrixWrite(self.address_bits, self.bits, loads)
        super().__init__({**dict.fromkeys(self._rows, In(read)), "load": In(write)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.elements, m.submodules.scales = elements, scales = self.elements, self.scales
        for name in self._rows:
            port = getattr(self, name)
            for lane in range(self._lanes):
                codes, scale = (getattr(memory, f"{name}_{lane}") for memory in (elements, scales))
                m.d.comb += [
                    *(read.address.eq(port.address[lane]) for read in (codes, scale)),
                    *(read.enable.eq(1) for read in (codes, scale)),
                    Cat(port.blocks[lane].as_value()).eq(codes.data.as_value()),
                    port.scales[lane].eq(scale.data[0]),
                ]
        m.d.comb += [
            elements.load.address.eq(self.load.address),
            elements.load.mask.eq(self.load.mask),
            elements.load.data.eq(self.load.data),
            scales.load.address.eq(self.load.address),
            scales.load.mask.eq(self.load.scale_mask),
            scales.load.data.eq(self.load.scales),
        ]
        return m

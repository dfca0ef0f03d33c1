"""From beats of MX blocks to the matrix SRAM: elements as they are."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Signal, Value
from amaranth.lib import data

from unmask.numerics.mx import BLOCK
from unmask.rtl.dma import Shape


class Filling:
    """The matrix SRAM's part of `unmask.rtl.unpacking.Unpacking`, built into its module.

    Attributes:
        codes, mask: one cycle later, of as many blocks as a beat may touch: elements, and which of them are written.
    """

    def __init__(self, m: Module, shape: Shape, position: Any, window: Value) -> None:
        """Build it.

        Args:
            position: of a beat, in `window`, whose first byte is the first of a block.
        """
        lanes = shape.matrix_lanes * BLOCK
        self.codes = Signal(data.ArrayLayout(shape.matrix_bits, lanes), name="matrix_codes")
        self.mask = Signal(lanes, name="matrix_mask")
        m.d.sync += self.mask.eq(0)
        with m.Switch(position.kind):
            for kind in shape.matrix_kinds:
                bits = shape.kinds[kind]
                with m.Case(kind):
                    for lane in range(min(lanes, len(window) // bits)):
                        last_byte = ((lane + 1) * bits - 1) // 8
                        inside = (position.start <= last_byte) & (position.end > last_byte)
                        m.d.sync += [
                            self.codes[lane].eq(window[lane * bits : (lane + 1) * bits]),
                            self.mask[lane].eq(position.valid & inside),
                        ]

"""What a machine holds: registers, on-chip memories, HBM; and bounds-checked windows into them."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from unmask.errors import UnmaskError
from unmask.isa.table import REGISTER_COUNT, STRIDE_UNIT
from unmask.machine.config import MATRIX_FORMATS, Machine
from unmask.numerics import bf16, mx, window

F32 = NDArray[np.float32]


class MachineFault(UnmaskError):
    """The machine stops: an address, an operand or a value that no program may produce."""


_Scalar = TypeVar("_Scalar", bound=np.generic)


def _window(memory: NDArray[_Scalar], start: int, rows: int, cols: int, row_stride: int, what: str) -> NDArray[_Scalar]:
    last = start + (rows - 1) * row_stride + cols
    if start < 0 or rows < 1 or cols < 1 or last > memory.shape[0]:
        raise MachineFault(f"{what}: {rows} x {cols} at {start} (row stride {row_stride}) leaves its {memory.shape[0]} entries")
    step = memory.strides[0]
    return as_strided(memory[start:], shape=(rows, cols, *memory.shape[1:]), strides=(row_stride * step, step, *memory.strides[1:]))


def check_hbm(size: int, machine: Machine) -> None:
    """Raise UnmaskError if the machine's HBM is smaller than `size` bytes."""
    if size > machine.hbm.gib * 2**30:
        raise UnmaskError(f"the program needs {size} bytes of HBM; machine {machine.name} has {machine.hbm.gib} GiB")


class State:
    """Registers and memories of one machine, all zero at the start.

    Attributes:
        registers: 32 integers.
        formats: the MX formats by number: weights, KV cache and, unless they are BF16, logits.
        vector: float32 [elements], BF16 values.
        codes, scales: matrix SRAM, uint8 [blocks, 32] element codes and uint8 [blocks] E8M0 scales.
        floats: float32 [words]; integers: int32 [words].
        accumulators: int64 [rows], and `invalid`, the rows whose sum met a NaN or an infinity.
        windows: int64 [rows, 3], window sums of `unmask.numerics.window`; they share `invalid`.
        best, picked: float32 [rows], and candidates, int32 [rows]: what the sampler keeps of each row.
        hbm: uint8 [bytes].
        gathered: the rows that each L_GATHER of the last run has chosen, int64, in the order of execution.
    """

    def __init__(self, machine: Machine, hbm_bytes: int) -> None:
        check_hbm(hbm_bytes, machine)
        self.machine = machine
        self.formats = tuple(mx.format_named(name) for name in machine.formats.stored)
        self.activations = mx.format_named(machine.formats.activations)
        blocks = machine.matrix_blocks(max(form.element.bits for form in self.formats[:MATRIX_FORMATS]))
        self.registers = [0] * REGISTER_COUNT
        self.vector = np.zeros(machine.vector_elements, np.float32)
        self.codes = np.zeros((blocks, mx.BLOCK), np.uint8)
        self.scales = np.zeros(blocks, np.uint8)
        self.floats = np.zeros(machine.sram.float_words, np.float32)
        self.integers = np.zeros(machine.sram.integer_words, np.int32)
        self.accumulators = np.zeros(machine.vector.accumulators, np.int64)
        self.invalid = np.zeros(machine.vector.accumulators, bool)
        self.windows = window.empty(machine.vector.accumulators)
        self.best, self.picked = (np.zeros(machine.vector.accumulators, np.float32) for _ in range(2))
        self.candidates = np.zeros(machine.vector.accumulators, np.int32)
        self.hbm = np.zeros(hbm_bytes, np.uint8)
        self.gathered: list[NDArray[np.int64]] = []

    def tile(self, start: int, rows: int, cols: int, stride: int) -> F32:
        """A [rows, cols] view of the vector SRAM; `stride` in units of 32 elements.

        Raises:
            MachineFault: it leaves the memory, or does not start at a multiple of the machine's granule.
        """
        if start % self.machine.vector.granule:
            raise MachineFault(f"vector SRAM address {start}: expected a multiple of {self.machine.vector.granule} (vector.granule)")
        return _window(self.vector, start, rows, cols, stride * STRIDE_UNIT, "vector SRAM")

    def scalars(self, start: int, count: int) -> F32:
        """A view of `count` words of the float SRAM."""
        return _window(self.floats, start, 1, count, count, "float SRAM").reshape(count)

    def check_sorter(self, count: int) -> None:
        """Raise MachineFault if the top-k unit has fewer than `count` entries."""
        if count > self.machine.vector.sorter:
            raise MachineFault(f"{count} scores exceed the {self.machine.vector.sorter} entries of the top-k unit (vector.sorter)")

    def words(self, start: int, count: int) -> NDArray[np.int32]:
        """A view of `count` words of the integer SRAM."""
        return _window(self.integers, start, 1, count, count, "integer SRAM").reshape(count)

    def blocks(self, start: int, rows: int, cols: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Views of `rows` rows of `cols` MX blocks of the matrix SRAM: codes [rows, cols, 32], scales [rows, cols]."""
        codes = _window(self.codes, start, rows, cols, cols, "matrix SRAM")
        return codes, _window(self.scales, start, rows, cols, cols, "matrix SRAM")

    def bytes(self, address: int, rows: int, cols: int, stride: int) -> NDArray[np.uint8]:
        """A [rows, cols] view of HBM, all in bytes."""
        return _window(self.hbm, address, rows, cols, stride, "HBM")

    def row_accumulators(self, rows: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Views of the first `rows` row accumulators and their invalid flags."""
        if rows > self.accumulators.shape[0]:
            raise MachineFault(f"a reduction of {rows} rows exceeds the {self.accumulators.shape[0]} row accumulators")
        part = self.accumulator_rows(0, rows)
        return self.accumulators[part], self.invalid[part]

    def accumulator_rows(self, first: int, rows: int) -> slice:
        """Rows of the accumulators, as an index into those arrays."""
        last = first + rows
        if first < 0 or last > self.accumulators.shape[0]:
            raise MachineFault(f"a reduction of {last} rows exceeds the {self.accumulators.shape[0]} row accumulators")
        return slice(first, last)


def read_bf16(window: NDArray[np.uint8]) -> F32:
    """BF16 values of little-endian bytes [rows, 2 * cols], as float32 [rows, cols]."""
    return bf16.from_bits(np.ascontiguousarray(window).view("<u2"))


def to_bytes(values: F32) -> NDArray[np.uint8]:
    """Little-endian bytes [rows, 2 * cols] of BF16 values [rows, cols]."""
    return np.ascontiguousarray(bf16.to_bits(values).astype("<u2")).view(np.uint8)

"""Logits of the active block in HBM, and their way into the vector SRAM: chunk after chunk of the vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from unmask.compiler.context import Context, Tile
from unmask.compiler.emitter import Address, Ring, Value, Var, address
from unmask.compiler.memory import SramOverflow, ceil_to
from unmask.isa.table import BF16_BYTES, STRIDE_UNIT, Engine
from unmask.numerics import mx

_CHUNKS = 4
"""How many chunks a stream has at least, where they still fill the lanes: the vector engine waits for the first one only."""
LOGITS_FORMAT = 2
"""The operand `format` of loads and stores of logits."""

Body = Callable[[Tile, Var, bool], None]
"""Works on a chunk: its tile, a register with the vocabulary index of its first column, and whether an earlier chunk came before it."""


@dataclass(frozen=True)
class Logits:
    """Logits of the active block of every sequence, in HBM; the row of sequence b, position r of the block is b * length + r.

    Attributes:
        at: address of row 0: BF16 values, or MX elements.
        scales: address of row 0's scales; unused for BF16.
        row_bytes: bytes between rows of `at`; whole blocks in an MX format, whose scales are then as many bytes apart as blocks.
        vocabulary: columns.
        form: None for BF16, else MX blocks of 32 along the vocabulary.
    """

    at: int
    scales: int
    row_bytes: int
    vocabulary: int
    form: mx.MxFormat | None

    @property
    def row_blocks(self) -> int:
        """MX blocks between rows."""
        return self.row_bytes // self._unit_bytes

    def bytes_of(self, columns: int) -> int:
        """Bytes of `columns` values of a row; whole blocks in an MX format."""
        return columns * BF16_BYTES if self.form is None else columns // mx.BLOCK * self._unit_bytes

    @property
    def _unit_bytes(self) -> int:
        return BF16_BYTES if self.form is None else mx.BLOCK * self.form.element.bits // 8


@dataclass(frozen=True)
class Rows:
    """Some rows of one sequence's block.

    Attributes:
        row: register: the first row, counted over all sequences.
        position: register: its canvas position.
        confidence: register: the float SRAM address of its confidence.
        count: how many.
    """

    row: Var
    position: Var
    confidence: Var
    count: int


class LogitStream:
    """Brings logits into the vector SRAM, loads one chunk ahead of the vector engine; chunks arrive guided and without excluded tokens.

    Guidance is three BF16 operations: unconditional + factor * (conditional - unconditional).
    """

    def __init__(
        self,
        c: Context,
        logits: Logits,
        unconditional: Logits | None,
        factor: float,
        length: int,
        scratch: bool,
        float_words: int,
        integer_words: int,
    ) -> None:
        """Choose the height of a tile of rows and the width of a chunk, and take their buffers.

        A tile is as tall as leaves room for chunks that fill the lanes.

        Args:
            c: keeps the buffers until its current scope of the vector SRAM ends.
            logits: the conditional ones.
            unconditional: under guidance, of the same layout.
            factor: of the guidance, in BF16.
            length: rows of a sequence.
            scratch: whether a body works in a further tile of a chunk's size.
            float_words, integer_words: how much of the other SRAMs is needed per row of a tile.

        Raises:
            SramOverflow: not even one row fits.
        """
        self._c, self._logits, self._unconditional, self._factor = c, logits, unconditional, factor
        loads = 1 if unconditional is None else 2
        buffers = 2 * loads + scratch
        least = min(ceil_to(logits.vocabulary, STRIDE_UNIT), ceil_to(c.machine.vector.vlen, STRIDE_UNIT))
        tallest = min(length, c.machine.vector.accumulators, c.vector.free // (buffers * least))
        if tallest < 1:
            raise SramOverflow(
                f"the vector SRAM cannot hold {buffers} chunks of {least} logits of one row: {c.vector.free} elements are left"
            )
        for sram, words, what in ((c.floats, float_words, "float"), (c.integers, integer_words, "integer")):
            if words:
                tallest = min(tallest, sram.free // words)
                if tallest < 1:
                    raise SramOverflow(f"the {what} SRAM cannot hold {words} words for a row of logits: {sram.free} are left")
        self.rows = -(-length // -(-length // tallest))
        fit, wanted = c.vector.free // (buffers * self.rows) // least * least, ceil_to(-(-logits.vocabulary // _CHUNKS), least)
        self.width = min(logits.vocabulary, fit, wanted)
        self.stride = -(-self.width // STRIDE_UNIT)
        self._size = self.rows * self.stride * STRIDE_UNIT
        purpose = f"chunks of logits of {self.rows} rows"
        slot = loads * self._size
        self._ring = Ring(c.e, Engine.LOAD, Engine.VECTOR, c.vector.take(2 * slot, f"two {purpose}"), slot)
        self._scratch = c.vector.take(self._size, purpose) if scratch else 0
        self._excluded: list[int] = []
        c.e.order(Engine.VECTOR, Engine.LOAD)

    def exclude(self, words: list[int]) -> None:
        """Set the integer SRAM addresses of the excluded tokens, one word per row each."""
        self._excluded = words

    def scratch(self, chunk: Tile) -> Tile:
        """The further tile, in the chunk's shape."""
        return chunk.moved(self._scratch)

    def scratch_row(self) -> Tile:
        """One row of the further tile, as wide as a chunk."""
        return Tile(address(self._scratch), 1, self.width, self.stride)

    def release(self) -> None:
        """Give the registers back."""
        self._ring.release()

    def each(self, rows: Rows, body: Body) -> None:
        """Run `body` on chunk after chunk of some rows."""
        c, logits, width = self._c, self._logits, self.width
        element, token = c.e.multiply_add(rows.row, logits.row_bytes, 0), c.e.var(0)
        strides = {element: logits.bytes_of(width), token: width}
        scale = None
        if logits.form is not None:
            scale = c.e.multiply_add(rows.row, logits.row_blocks, 0)
            strides[scale] = width // mx.BLOCK

        def chunk(count: int, running: bool) -> None:
            self._load(rows.count, count, element, scale)
            with self._ring.consume() as (slot, full, free):
                c.e.sync(Engine.VECTOR, wait=full)
                tile = Tile(Address(slot, 0), rows.count, count, self.stride)
                self._prepare(tile, token)
                body(tile, token, running)
                c.e.sync(Engine.VECTOR, signal=free)

        chunk(width, False)
        for var, step in strides.items():
            c.e.advance(var, step)
        c.e.tiles(logits.vocabulary - width, width, strides, lambda count: chunk(count, True))
        c.e.release(*strides)

    def _load(self, rows: int, cols: int, element: Var, scale: Var | None) -> None:
        c, sources = self._c, [self._logits, *([] if self._unconditional is None else [self._unconditional])]
        with self._ring.produce() as (slot, free, full):
            for number, source in enumerate(sources):
                operands: dict[str, Any] = {
                    "dst": Address(slot, number * self._size),
                    "src": Address(element, source.at),
                    "rows": rows,
                    "cols": cols,
                    "dst_stride": self.stride,
                    "wait": free if number == 0 else (),
                    "signal": full if source is sources[-1] else (),
                }
                if scale is None:
                    c.e.emit("L_VEC", src_stride=source.row_bytes, **operands)
                else:
                    place = Address(scale, source.scales)
                    c.e.emit("L_MX", scales=place, src_stride=source.row_blocks, format=LOGITS_FORMAT, **operands)

    def _prepare(self, tile: Tile, token: Var) -> None:
        c = self._c
        if self._unconditional is not None:
            base = tile.moved(tile.at + self._size)
            c.binary("V_SUB", tile, tile, base)
            c.unary("V_MUL_I", tile, tile, value=self._factor)
            c.binary("V_ADD", tile, base, tile)
        for index in self._excluded:
            drop(c, tile, index, token)


def drop(c: Context, tile: Tile, index: Value, token: Var, wait: tuple[int, ...] = ()) -> None:
    """Set one column of each row to minus infinity, that of the vocabulary index in the row's word at `index`, less that of column 0."""
    c.e.emit("V_DROP", dst=tile.at, index=index, base=token, rows=tile.rows, cols=tile.cols, dst_stride=tile.stride, wait=wait)


def choose(
    c: Context,
    scores: Tile,
    companion: Tile,
    token: Var,
    running: bool,
    best: Value,
    index: Value,
    picked: Value,
    wait: tuple[int, ...] = (),
) -> None:
    """Keep the highest score of each row, its vocabulary index and the companion's value there, in the float and the integer SRAM."""
    c.e.emit(
        "V_RED_MAX_IDX",
        dst=best,
        index=index,
        picked=picked,
        a=scores.at,
        b=companion.at,
        base=token,
        rows=scores.rows,
        cols=scores.cols,
        a_stride=scores.stride,
        b_stride=companion.stride,
        running=int(running),
        wait=wait,
    )

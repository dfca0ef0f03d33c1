"""Where the matrix engine is in an instruction: row of a tile, chunk of K, columns, row of tiles; and addresses that follow."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from unmask.isa.table import BY_NAME
from unmask.rtl.decode import places

_PLACES = places(BY_NAME["M_MM"])
M_BITS, N_BITS, K_BITS, STRIDE_BITS = (_PLACES[name].stop - _PLACES[name].start for name in ("m", "n", "k", "dst_stride"))


class Walk(wiring.Component):
    """A beat per chunk of K, the chunks of a group of columns, the groups of a row of tiles, the rows of tiles.

    Ports:
        start: load m, n, k, and begin in the next cycle, whatever is left of an instruction before. beat: cycles per chunk.
        valid: a step. position: cycle of the beat. first_ending: the last step but one of the first beat. m_left, n_left, k_left: of the
            result, from this row of tiles, group and chunk on.
        column: first of the group. first_chunk, last_chunk: of K. last: the last step.
        next_row, next_chunk, next_group, next_tile: what the next step moves on to: one of them, in a step that is not the last.
        stop: forget the instruction.
    """

    def __init__(self, blen: int, mlen: int, rows: int, longest_beat: int) -> None:
        self._blen, self._mlen, self._rows = blen, mlen, rows
        super().__init__(
            {
                "start": In(1),
                "m": In(M_BITS),
                "n": In(N_BITS),
                "k": In(K_BITS),
                "beat": In(range(longest_beat + 1)),
                "stop": In(1),
                "valid": Out(1),
                "position": Out(range(max(longest_beat, 2))),
                "m_left": Out(M_BITS),
                "n_left": Out(N_BITS),
                "k_left": Out(K_BITS),
                "column": Out(N_BITS),
                "first_chunk": Out(1),
                "last_chunk": Out(1),
                "first_ending": Out(1),
                "last": Out(1),
                **dict.fromkeys(("next_row", "next_chunk", "next_group", "next_tile"), Out(1)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        first_beat = Signal()
        n, k, beat = Signal(N_BITS), Signal(K_BITS), Signal.like(self.beat)
        width = self._blen * self._rows
        ends, last_group, last_tile = Signal(), Signal(), Signal()
        m.d.comb += [
            self.first_ending.eq(self.valid & (self.position + 2 == beat) & first_beat),
            ends.eq(self.position + 1 == beat),
            self.last_chunk.eq(self.k_left <= self._mlen),
            last_group.eq(self.n_left <= width),
            last_tile.eq(self.m_left <= self._blen),
            self.last.eq(self.valid & ends & self.last_chunk & last_group & last_tile),
            self.next_row.eq(self.valid & ~ends),
            self.next_chunk.eq(self.valid & ends & ~self.last_chunk),
            self.next_group.eq(self.valid & ends & self.last_chunk & ~last_group),
            self.next_tile.eq(self.valid & ends & self.last_chunk & last_group & ~last_tile),
        ]
        with m.If(self.valid):
            m.d.sync += [self.position.eq(Mux(ends, 0, self.position + 1)), self.valid.eq(~self.last), first_beat.eq(first_beat & ~ends)]
        with m.If(self.next_chunk):
            m.d.sync += [self.k_left.eq(self.k_left - self._mlen), self.first_chunk.eq(0)]
        with m.If(self.next_group | self.next_tile):
            m.d.sync += [
                self.k_left.eq(k),
                self.first_chunk.eq(1),
                self.n_left.eq(Mux(self.next_tile, n, self.n_left - width)),
                self.column.eq(Mux(self.next_tile, 0, self.column + width)),
            ]
        with m.If(self.next_tile):
            m.d.sync += self.m_left.eq(self.m_left - self._blen)
        with m.If(self.start):
            m.d.sync += [
                self.valid.eq(1),
                first_beat.eq(1),
                beat.eq(self.beat),
                n.eq(self.n),
                k.eq(self.k),
                self.position.eq(0),
                self.m_left.eq(self.m),
                self.n_left.eq(self.n),
                self.k_left.eq(self.k),
                self.column.eq(0),
                self.first_chunk.eq(1),
            ]
        with m.If(self.stop):
            m.d.sync += self.valid.eq(0)
        return m


def pointer(m: Module, walk: Walk, base: Value, steps: dict[str, Value], bits: int, name: str, again: Value | int = 0) -> Signal:
    """An address that follows a walk: what `steps` adds with the next row, chunk, group or tile, from where the one before began.

    Args:
        base: loaded with `walk.start`.
        steps: "row", "chunk", "group", "tile", each 0 where it is not named.
        bits: of the address; more wrap.
        again: the next row is the chunk's first one.
    """
    names = ("tile", "group", "chunk", "row")
    starts = {level: Signal(bits, name=f"{name}_{level}") for level in names}
    for index, level in enumerate(names):
        follows = Signal(bits, name=f"{name}_next_{level}")
        step = steps.get(level)
        m.d.comb += follows.eq(starts[level] if step is None else starts[level] + step)
        with m.If(getattr(walk, f"next_{level}")):
            m.d.sync += [starts[lower].eq(follows) for lower in names[index:]]
            if level == "row":
                with m.If(again):
                    m.d.sync += starts["row"].eq(starts["chunk"])
    with m.If(walk.start):
        m.d.sync += [register.eq(base) for register in starts.values()]
    return starts["row"]

"""Random requests of the DMA engines, what they do to the memories by the functional reading, and when, by the contract's rules."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np

from unmask.machine.dma import GATHER_LEAD
from unmask.machine.semantics import SEMANTICS
from unmask.machine.state import State
from unmask.numerics import mx
from unmask.rtl.dma import CHUNK, Kind, Shape

LOADS = {Kind.VECTOR: "L_VEC", Kind.INTEGER: "L_INT", Kind.MX: "L_MX", Kind.GATHER: "L_GATHER"}
STORES = {Kind.VECTOR: "ST_VEC", Kind.INTEGER: "ST_INT", Kind.MX: "ST_MX"}
HBM_BYTES = 1 << 16
SCALES = HBM_BYTES * 7 // 8


@dataclass
class Request:
    """A request, by the fields of `unmask.rtl.dma.request_layout`; of a GATHER also the row numbers at `scales`."""

    kind: Kind
    tag: int
    rows: int = 1
    cols: int = 1
    sram: int = 0
    sram_stride: int = 0
    memory: int = 0
    scales: int = 0
    memory_stride: int = 0
    format: int = 0
    limit: int = 0
    numbers: tuple[int, ...] = ()

    @property
    def fields(self) -> dict[str, int]:
        """Of the layout."""
        return {name: value for name, value in vars(self).items() if name != "numbers"}


def bare_state(shape: Shape, rng: np.random.Generator) -> State:
    """A machine's memories with anything in them; only what the DMA engines touch."""
    state = State.__new__(State)
    state.formats = shape.formats
    state.machine = SimpleNamespace(vector=SimpleNamespace(granule=shape.granule))
    bits = rng.integers(0, 1 << 16, shape.vector_elements).astype(np.uint16)
    # Many small exponents, so that blocks have more than one binade; and some zeros.
    bits = np.where(rng.random(len(bits)) < 0.9, (bits & 0x81FF) | 0x3C00, bits)
    bits[rng.random(len(bits)) < 0.05] = 0
    state.vector = (bits.astype(np.uint32) << 16).view(np.float32)
    state.integers = rng.integers(-(2**31), 2**31, shape.integer_words).astype(np.int32)
    state.hbm = rng.integers(0, 256, HBM_BYTES).astype(np.uint8)
    state.gathered = []
    return state


def execute(state: State, request: Request, names: dict[Kind, str]) -> None:
    """The functional reading of a request."""
    if request.kind is Kind.SYNC:
        return
    r, load = request, names is LOADS
    on_chip, in_memory = ("dst", "src") if load else ("src", "dst")
    operands = {on_chip: r.sram, in_memory: r.memory}
    if r.kind is Kind.INTEGER:
        operands["count"] = r.cols
    else:
        operands |= {"rows": r.rows, "cols": r.cols, f"{on_chip}_stride": r.sram_stride, f"{in_memory}_stride": r.memory_stride}
    if r.kind is Kind.GATHER:
        operands = {"dst": r.sram, "table": r.memory, "ids": r.scales, "rows": r.rows, "cols": r.cols, "limit": r.limit}
        operands |= {"dst_stride": r.sram_stride, "table_stride": r.memory_stride}
    if r.kind is Kind.MX:
        operands |= {"scales": r.scales, "format": r.format}
    SEMANTICS[names[r.kind]](state, **operands)


def ranges(r: Request, shape: Shape, scales_first: bool) -> list[tuple[int, int]]:
    """Address and bytes of each range, in order."""
    rows, cols = r.rows, r.cols
    if r.kind is Kind.INTEGER:
        return [(r.memory, 4 * cols)]
    if r.kind is Kind.GATHER:
        return [(r.memory + number * r.memory_stride, 2 * cols) for number in r.numbers]
    if r.kind is Kind.VECTOR:
        if r.memory_stride == 2 * cols and r.sram_stride * 32 == cols:
            rows, cols = 1, rows * cols
        return [(r.memory + row * r.memory_stride, 2 * cols) for row in range(rows)]
    blocks, size = -(-cols // mx.BLOCK), mx.BLOCK * shape.formats[r.format].element.bits // 8
    if r.memory_stride == blocks and r.sram_stride * 32 == cols:
        rows, blocks = 1, rows * blocks
    result = []
    for row in range(rows):
        for first in range(0, blocks, CHUNK):
            count, at = min(CHUNK, blocks - first), row * r.memory_stride + first
            pair = [(r.scales + at, count), (r.memory + at * size, count * size)]
            result += pair if scales_first else pair[::-1]
    return result


def bursts(r: Request, shape: Shape, scales_first: bool) -> list[tuple[int, int]]:
    """Beat-aligned address and beats of each burst, in order."""
    result, step = [], shape.beat_bytes * shape.burst_beats
    for address, size in [] if r.kind is Kind.SYNC else ranges(r, shape, scales_first):
        end = address + size
        while address < end:
            upto = min(end, (address // step + 1) * step)
            first = address // shape.beat_bytes
            result.append((first * shape.beat_bytes, -(-upto // shape.beat_bytes) - first))
            address = upto
    return result


@dataclass
class Times:
    """When an engine that is always asked starts requests and ends them, by the contract."""

    shape: Shape
    scales_first: bool
    latency: int
    ready: int = 0
    last_end: int = -1
    ends: list[int] = field(default_factory=list)
    asked: list[tuple[int, int, int]] = field(default_factory=list)

    def start(self, request: Request, at: int) -> int:
        """Start a request no earlier than `at`; the cycle in which it starts."""
        now = start = max(at, self.ready)
        end = start + 1
        now += GATHER_LEAD * (request.kind is Kind.GATHER)
        for address, beats in bursts(request, self.shape, self.scales_first):
            self.asked.append((now, address, beats))
            now += beats
            end = now + self.latency
        self.ready = max(now, start + 1)
        self.last_end = max(end, self.last_end + 1)
        self.ends.append(self.last_end)
        return start


def random_request(rng: np.random.Generator, shape: Shape, tag: int, *, aligned: bool = False) -> Request:
    """A legal request of any kind; with `aligned`, whatever lies in memory begins with a beat."""
    kind = Kind(rng.choice([Kind.VECTOR, Kind.INTEGER, Kind.SYNC] + [Kind.MX] * (2 if shape.formats else 0)))
    unit = shape.beat_bytes if aligned else int(rng.choice([1, 2, 4, shape.beat_bytes]))

    def somewhere(size: int, start: int = 0) -> int:
        return start + int(rng.integers(0, (HBM_BYTES - start - size) // unit + 1)) * unit

    if kind is Kind.SYNC:
        return Request(kind, tag)
    if kind is Kind.INTEGER:
        cols = int(rng.choice([1, 2, shape.words, rng.integers(1, 200)]))
        return Request(kind, tag, cols=cols, sram=int(rng.integers(0, shape.integer_words - cols + 1)), memory=somewhere(4 * cols))
    rows, cols = int(rng.choice([1, 1, 2, 5])), int(rng.choice([1, 7, 32, 33, 64, 96, rng.integers(1, 400)]))
    sram_stride = -(-cols // 32) + int(rng.integers(0, 2))
    room = shape.vector_elements - (rows - 1) * 32 * sram_stride - cols
    sram = int(rng.integers(0, room // shape.granule + 1)) * shape.granule
    if kind is Kind.VECTOR:
        stride = 2 * cols + (int(rng.integers(0, 3)) * unit if cols % 32 else 0)
        if aligned:
            stride = -(-stride // unit) * unit
        return Request(kind, tag, rows, cols, sram, sram_stride, somewhere(rows * stride), memory_stride=stride)
    number = int(rng.integers(0, len(shape.formats)))
    blocks, size = -(-cols // 32), shape.formats[number].element.bits * 4
    stride = blocks + int(rng.integers(0, 2))
    if aligned:
        stride = -(-stride // shape.beat_bytes) * shape.beat_bytes
    # Scales lie apart, or a store would write one place twice.
    elements = int(rng.integers(0, (SCALES - rows * stride * size) // unit + 1)) * unit
    return Request(kind, tag, rows, cols, sram, sram_stride, elements, somewhere(rows * stride, SCALES), stride, number)

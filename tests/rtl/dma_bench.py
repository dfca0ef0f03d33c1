"""A DMA engine between its memory and its SRAMs, in Verilator, a cycle at a time."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
from amaranth.hdl import Const, Module, ResetInserter, Value
from amaranth.lib import wiring
from tests.rtl.dma_cases import HBM_BYTES, LOADS, STORES, Request, execute
from tests.rtl.memory import ReadMemory, WriteMemory
from tests.rtl.streaming import Simulation

from unmask.machine.state import State
from unmask.numerics import bf16
from unmask.rtl.dma import Shape
from unmask.rtl.faults import Fault
from unmask.rtl.load import Load
from unmask.rtl.request import PreparedRequest
from unmask.rtl.store import Store


class GatheringLoad(Load):
    """A load engine with everything."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape, gathers=True)


Engine = type[Load] | type[Store]
READ = {"arvalid", "araddr", "arlen", "rready"}
WRITE = {"awvalid", "awaddr", "awlen", "wvalid", "wdata", "wstrb", "wlast", "bready"}


def payload(shape: Shape, request: Request) -> int:
    """Bits of a request."""
    return int(Const.cast(shape.request.const(request.fields)).value)


def pack(words, bits: int) -> int:
    """Words to the bits of a port."""
    return sum(int(word) << bits * lane for lane, word in enumerate(words))


class Flat(wiring.Component):
    """An engine that is handed requests as instructions have them, with ports of single underscores, as Verilator mangles double ones, and
    one more: `restart`."""

    def __init__(self, engine: Load | Store, shape: Shape) -> None:
        self._engine, self._shape = engine, shape
        self._ports = [("_".join(map(str, path)), member, value) for path, member, value in engine.signature.flatten(engine)]
        self._ports = [
            (name, wiring.In(shape.request) if name == "request_payload" else member, value) for name, member, value in self._ports
        ]
        super().__init__({name: member for name, member, _ in self._ports} | {"restart": wiring.In(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.engine = ResetInserter(self.restart)(self._engine)
        for name, member, value in self._ports:
            port, value = getattr(self, name), Value.cast(value)
            port = PreparedRequest(self._shape).all(m, port) if name == "request_payload" else Value.cast(port)
            m.d.comb += value.eq(port) if member.flow is wiring.In else port.eq(value)
        return m


@cache
def simulation(engine: Engine, shape: Shape) -> Simulation:
    """Compiled once for all benches."""
    return Simulation(Flat(engine(shape), shape))


class Surroundings:
    """The memories around an engine, and what it did to them.

    Attributes:
        vector: uint16 bits, integers: uint32 words, hbm: bytes, as the engine leaves them.
        starts, ends: cycles by tag. fault: (code, tag) once there is one. cycle: the current one.
    """

    def __init__(
        self, engine: type[Load] | type[Store], shape: Shape, state: State, latency: int, rng: np.random.Generator | None = None
    ) -> None:
        self.shape, self.hbm = shape, state.hbm.copy()
        self.vector = bf16.to_bits(state.vector)
        self.integers = state.integers.view(np.uint32).copy()
        self._loads, self._gathers, self._number = issubclass(engine, Load), engine is GatheringLoad, 0
        self.memory = (ReadMemory if self._loads else WriteMemory)(self.hbm, shape.beat_bytes, latency, rng)
        self._rng, self._read = rng, {"vector_data": 0, "integer_data": 0}
        self.starts: dict[int, int] = {}
        self.ends: dict[int, int] = {}
        self.fault: tuple[Fault, int] | None = None
        self.cycle = 0

    def inputs(self, **inputs: int) -> dict[str, int]:
        """What the engine sees in this cycle."""
        driven = {"memory_bytes": HBM_BYTES, **inputs, **{f"bus_{name}": value for name, value in self.memory.outputs.items()}}
        if self._gathers:
            driven["ids_data"] = self._number
        return driven if self._loads else driven | self._read

    def observe(self, seen: Mapping[str, int]) -> None:
        """What the engine drove in this cycle, which ends."""
        if self._gathers and seen["ids_enable"]:
            self._number = int(self.integers[seen["ids_address"] % len(self.integers)])
        if self._loads:
            _write(self.vector, seen["vector_mask"], seen["vector_address"] * self.shape.granule, seen["vector_data"], 16)
            _write(self.integers, seen["integer_mask"], seen["integer_address"], seen["integer_data"], 32)
        else:
            for name, memory, unit, lanes, bits in (
                ("vector", self.vector, self.shape.granule, self.shape.lanes, 16),
                ("integer", self.integers, 1, self.shape.words, 32),
            ):
                if seen[f"{name}_enable"]:
                    first = seen[f"{name}_address"] * unit
                    self._read[f"{name}_data"] = pack(memory[first : first + lanes], bits)
        self.memory.step(**{name: seen[f"bus_{name}"] for name in (READ if self._loads else WRITE)})
        if seen["retire"]:
            self.ends[seen["retired"]] = self.cycle + 1
        if seen["fault"]:
            self.fault = (Fault(seen["code"]), seen["tag"])
        self.cycle += 1

    def request(self, requests: list[Request], pending: Request | None) -> tuple[Request | None, dict[str, int]]:
        """The request that is offered in this cycle, `pending` or now and then the next one, and the inputs that say so."""
        if pending is None and requests and (self._rng is None or self._rng.random() < 0.5):
            pending = requests.pop(0)
        return pending, {} if pending is None else {"request_valid": 1, "request_payload": payload(self.shape, pending)}

    def check(self, state: State, requests: list[Request]) -> None:
        """All retired in order, and the memories are as the functional reading leaves them."""
        for request in requests:
            execute(state, request, LOADS if self._loads else STORES)
        assert list(self.ends) == [request.tag for request in requests]
        assert np.flatnonzero(self.integers.view(np.int32) != state.integers).size == 0
        assert np.flatnonzero(self.vector != bf16.to_bits(state.vector)).size == 0
        assert np.flatnonzero(self.hbm != state.hbm).size == 0


class Bench(Surroundings):
    """An engine in Verilator that is handed requests as fast as it takes them."""

    def __init__(self, engine: Engine, shape: Shape, state: State, latency: int, rng: np.random.Generator | None = None) -> None:
        super().__init__(engine, shape, state, latency, rng)
        self._bits = {"request_payload": shape.request.size, "bus_rdata": 8 * shape.beat_bytes}
        self._bits |= {"vector_data": 16 * shape.lanes, "integer_data": 32 * shape.words}
        self._model = simulation(engine, shape)
        self._model.run({"restart": np.ones(1, np.uint8)})

    def step(self, **inputs: int) -> dict[str, int]:
        """One cycle: the engine's outputs."""
        driven = {name: self._input(name, value) for name, value in self.inputs(**inputs).items()}
        seen = {name: _number(values[0]) for name, values in self._model.run(driven, 1).items()}
        self.observe(seen)
        return seen

    def _input(self, name: str, value: int) -> np.ndarray:
        bits = self._bits.get(name, 0)
        if bits <= 64:
            return np.array([value], np.uint64)
        return np.frombuffer(value.to_bytes(-(-bits // 32) * 4, "little"), np.uint32)[None]

    def run(self, requests: list[Request], limit: int = 100_000) -> Bench:
        """Until all have retired, or the engine has stopped and is quiet."""
        requests, pending, wanted = list(requests), None, len(self.ends) + len(requests)
        while len(self.ends) < wanted:
            assert self.cycle < limit, "the engine hangs"
            pending, given = self.request(requests, pending)
            seen = self.step(**given)
            if pending is not None and seen["request_ready"]:
                self.starts[pending.tag] = self.cycle - 1
                pending = None
            if seen["fault"] and seen["quiet"]:
                break
        return self


@cache
def _mask(bits: int) -> int:
    return (1 << bits) - 1


def _number(value: np.ndarray) -> int:
    return int(value) if value.ndim == 0 else int.from_bytes(value.astype("<u4").tobytes(), "little")


def _write(memory: np.ndarray, mask: int, address: int, words: int, bits: int) -> None:
    while mask:
        lane = (mask & -mask).bit_length() - 1
        memory[address + lane] = words >> bits * lane & _mask(bits)
        mask &= mask - 1

"""The store engine against the functional reading, and its times against the contract's rules."""

from functools import partial

import numpy as np
import pytest
from amaranth.sim import Simulator

from tests.rtl.dma_cases import HBM_BYTES, STORES, Request, Times, bare_state, execute, random_request
from tests.rtl.memory import WriteMemory
from unmask.numerics import bf16, mx
from unmask.rtl.dma import Kind, Shape
from unmask.rtl.faults import Fault
from unmask.rtl.store import STORE_OVERHEAD, Store

ALL = tuple(mx.FORMATS.values())


def small_shape(**changes):
    """A shape for tests: any byte address will do."""
    sizes = {"beat_bytes": 16, "burst_beats": 8, "bursts": 64, "granule": 8, "lanes": 64, "vector_elements": 1 << 12}
    sizes |= {"integer_words": 1 << 9, "formats": ALL[:1] + ALL[4:5] + ALL[6:], "tag_bits": 16}
    return Shape(**{**sizes, **changes})


class Bench:
    """A store engine, its memory and its SRAMs.

    Attributes:
        starts, ends: cycles by tag. fault: (code, tag) once there is one.
    """

    def __init__(self, shape, state, latency, rng=None):
        self.shape, self.engine, self.hbm = shape, Store(shape), state.hbm.copy()
        self.vector, self.integers = bf16.to_bits(state.vector).astype(object), state.integers.view(np.uint32).astype(object)
        self.memory = WriteMemory(self.hbm, shape.beat_bytes, latency, rng)
        self.starts, self.ends, self.fault = {}, {}, None

    def run(self, requests, limit=20000, rng=None):
        """Hand requests over as fast as the engine takes them (`rng`: with pauses), until all have retired or it stops."""
        simulator = Simulator(self.engine)
        simulator.add_clock(1e-6)
        simulator.add_testbench(partial(self._drive, requests=list(requests), limit=limit, rng=rng))
        simulator.run()
        return self

    async def _drive(self, ctx, requests, limit, rng):
        e, bus = self.engine, self.engine.bus
        seen = (e.request.ready, e.retire, e.retired, e.fault, e.code, e.tag, e.quiet)
        reads = (e.vector.enable, e.vector.address, e.integer.enable, e.integer.address)
        channels = (bus.awvalid, bus.awaddr, bus.awlen, bus.wvalid, bus.wdata, bus.wstrb, bus.wlast, bus.bready)
        ctx.set(e.memory_bytes, HBM_BYTES)
        for name, value in self.memory.outputs.items():
            ctx.set(getattr(bus, name), value)
        wanted, cycle, pending = len(requests), 0, None
        while len(self.ends) < wanted and cycle < limit:
            if pending is None and requests and (rng is None or rng.random() < 0.5):
                pending = requests.pop(0)
                ctx.set(e.request.payload, pending.fields)
            ctx.set(e.request.valid, pending is not None)
            *_, ready, retire, retired, fault, code, tag, quiet, ve, va, ie, ia, awv, awa, awl, wv, wd, ws, wl, br = (
                await ctx.tick().sample(*seen, *reads, *channels)
            )
            if ve:
                ctx.set(e.vector.data.as_value(), self._read(self.vector, va * self.shape.granule, self.shape.lanes, 16))
            if ie:
                ctx.set(e.integer.data.as_value(), self._read(self.integers, ia, self.shape.words, 32))
            if pending is not None and ready:
                self.starts[pending.tag] = cycle
                pending = None
            if retire:
                self.ends[retired] = cycle + 1
            if fault:
                self.fault = (Fault(code), tag)
                if quiet:
                    return
            for name, value in self.memory.step(awv, awa, awl, wv, wd, ws, wl, br).items():
                ctx.set(getattr(bus, name), value)
            cycle += 1

    @staticmethod
    def _read(memory, address, lanes, bits):
        return sum(word << bits * lane for lane, word in enumerate(memory[address : address + lanes]))


def check(bench, state, requests):
    """All retired in order, and the memory as the functional reading leaves it."""
    for request in requests:
        execute(state, request, STORES)
    assert bench.fault is None
    assert list(bench.ends) == [request.tag for request in requests]
    assert np.flatnonzero(bench.hbm != state.hbm).size == 0


def legal(requests):
    """Words start at multiples of their size: the integer SRAM's port has only those of a beat."""
    for request in requests:
        if request.kind is Kind.INTEGER:
            request.memory &= ~3
    return requests


@pytest.mark.parametrize("seed", range(3))
def test_values_and_cycles_are_those_of_the_readings(seed):
    rng, latency = np.random.default_rng(seed), STORE_OVERHEAD + 5
    shape = small_shape()
    state = bare_state(shape, rng)
    requests = legal([random_request(rng, shape, tag) for tag in range(60)])
    bench = Bench(shape, state, latency - STORE_OVERHEAD).run(requests)
    times = Times(shape, scales_first=False, latency=latency)
    starts = [times.start(request, 0) for request in requests]
    assert list(bench.starts.values()) == starts
    assert [(cycle - 2, address, beats) for cycle, address, beats in bench.memory.asked] == times.asked
    assert list(bench.ends.values()) == times.ends
    check(bench, state, requests)


@pytest.mark.parametrize("latency", [1, 30, 500])
def test_values_do_not_depend_on_stalls(latency):
    rng = np.random.default_rng(latency)
    shape = small_shape(bursts=4, formats=ALL[1:3], granule=32, lanes=64, beat_bytes=8, burst_beats=4)
    state = bare_state(shape, rng)
    requests = legal([random_request(rng, shape, tag) for tag in range(12)])
    bench = Bench(shape, state, latency, rng).run(requests, rng=rng, limit=200000)
    check(bench, state, requests)


def test_a_beat_of_elements_suffices_for_data_that_begin_with_a_beat():
    rng = np.random.default_rng(3)
    shape = small_shape(lanes=32, formats=ALL[:2], beat_bytes=16)
    state = bare_state(shape, rng)
    requests = [random_request(rng, shape, tag, aligned=True) for tag in range(40)]
    check(Bench(shape, state, 3).run(requests), state, requests)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (Request(Kind.VECTOR, 7, cols=0), Fault.SIZE),
        (Request(Kind.VECTOR, 7, cols=8, sram=4), Fault.ALIGNMENT),
        (Request(Kind.VECTOR, 7, cols=8, sram=4096), Fault.ADDRESS),
        (Request(Kind.VECTOR, 7, cols=8, memory=HBM_BYTES - 15), Fault.ADDRESS),
        (Request(Kind.INTEGER, 7, cols=2, sram=511), Fault.ADDRESS),
        (Request(Kind.INTEGER, 7, cols=16, memory=3), Fault.ALIGNMENT),
        (Request(Kind.MX, 7, cols=64, format=3), Fault.FORMAT),
    ],
)
def test_what_no_program_may_ask_for_is_a_fault_and_what_came_before_ends(request_, code):
    shape = small_shape()
    state = bare_state(shape, np.random.default_rng(0))
    before = [Request(Kind.VECTOR, 1, cols=40, memory=64), Request(Kind.SYNC, 2)]
    bench = Bench(shape, state, 4).run([*before, request_])
    assert bench.fault == (code, 7)
    bench.fault = None
    if request_.kind is not Kind.INTEGER:
        check(bench, state, before)
    assert list(bench.ends) == [1, 2]


def test_an_error_of_the_memory_is_a_fault_of_its_instruction():
    shape = small_shape()
    state = bare_state(shape, np.random.default_rng(0))
    requests = [Request(Kind.VECTOR, tag, cols=40, memory=256 * tag, sram=64 * tag) for tag in range(4)]
    bench = Bench(shape, state, 4)
    bench.memory.errors.add(2 * 256 + 16)
    bench.run(requests)
    assert bench.fault == (Fault.MEMORY, 2)
    assert list(bench.ends) == [0, 1]
